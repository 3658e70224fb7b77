"""What setting up a client amounts to: files to write, commands to run afterwards, things to know. Values only.

A planner reads what is there through `Files` and returns a Plan; it writes nothing.  What it would
have to change against the user's own will is a conflict: the plan's content has our value, and
`apply` writes it only when told to.
"""

from __future__ import annotations

import json
from typing import Protocol

from msgspec import Struct

HEADER = "# Written by `mxart setup`, which replaces the whole file."
"""How a file begins that is ours alone."""


class SetupError(Exception):
    """What stands in the way of a plan, for the user to read. No option overrides it."""


class Files(Protocol):
    """The files of the machine that is set up. Paths are absolute."""

    def read(self, path: str) -> str | None:
        """A file's text, None if there is no such file. Raises SetupError if it cannot be read."""
        ...

    def names(self, folder: str) -> list[str] | None:
        """What a folder holds, in order; None if there is no such folder. Raises SetupError."""
        ...


class Change(Struct, frozen=True):
    """A file's whole content to be. `owned`: nobody else writes it, so no copy of what was there is kept."""

    path: str
    content: str
    why: str
    mode: int = 0o644
    owned: bool = False


class Conflict(Struct, frozen=True):
    """The user has set something else. `key` is empty where the whole file is his."""

    path: str
    key: str
    theirs: object
    ours: object

    def __str__(self) -> str:
        if not self.key:
            return f"{self.path} is there already and was not written by mxart"
        return f"{self.path}: {self.key} is {_shown(self.theirs)}; ours would be {_shown(self.ours)}"


class Snippet(Struct, frozen=True):
    """Text for a file that is a project's, not the machine's: its user puts it there. `where` says which one."""

    where: str
    text: str


class Plan(Struct, frozen=True):
    """`commands` are run by the user after the changes; plans add up."""

    changes: tuple[Change, ...] = ()
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    snippets: tuple[Snippet, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            self.changes + other.changes,
            tuple(dict.fromkeys(self.commands + other.commands)),
            tuple(dict.fromkeys(self.notes + other.notes)),
            self.conflicts + other.conflicts,
            self.snippets + other.snippets,
        )


def own_file(files: Files, path: str, text: str, why: str, header: str = HEADER) -> Plan:
    """A file that is ours alone; a conflict if somebody else wrote one by that name. `header` is a comment in it."""
    content = f"{header}\n{text}"
    there = files.read(path)
    foreign = there is not None and not there.startswith(header) and there != content
    conflicts = (Conflict(path, "", there, content),) if foreign else ()
    return Plan((Change(path, content, why, owned=not foreign),), conflicts=conflicts)


def _shown(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)
