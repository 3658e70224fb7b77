"""What there is to do, and what was done: values that cross from one process to another as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from mxart.config import Retention
from mxart.store.paths import StorePaths

Tell = Callable[[int, int | None, str], None]
"""How far it is: how much is done, of how much (None: nobody knows), and what it is. Called often; cheap."""

Pause = Callable[[str], None]
"""Called between two transactions, with what was done: whoever else wants to write, or the disk, has its turn."""


class Member(msgspec.Struct, frozen=True):
    """A repository of the configuration.

    `part`: where the files lie that exist for others of their package only: the row of such a file has the path
    `<package>/<part>/<digest>`, and goes when nothing links it.  "": all files stand for themselves.  `builds`: what
    the paths of files look like that belong to builds of a version, as a regular expression with the groups `version`,
    `time`, `number` and `kind`; retention is of these then.  "": it is of tags.  `complete`: the key of a note on the
    directory of such a version, of the highest number whose build is complete; later ones are under way.
    """

    name: str
    store: str
    part: str = ""
    builds: str = ""
    complete: str = ""
    max_bytes: int | None = None
    retention: tuple[Retention, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """One round: where everything lies, whose it is, and for how many seconds what is unneeded is left alone.

    `every`: it is one of a schedule, of which another process may have done it by now; 0: it was asked for.
    """

    catalog: str
    generation: str
    lock: str
    stores: dict[str, str]  # root folders
    members: tuple[Member, ...]
    grace: float = 24 * 3600.0
    dry_run: bool = False
    only_evict: bool = False
    every: float = 0.0

    def places(self) -> dict[str, StorePaths]:
        """Where the stores are."""
        return {name: StorePaths(Path(root)) for name, root in self.stores.items()}


class Freed(msgspec.Struct):
    """How many files, and how many bytes of them."""

    files: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """One more."""
        self.files += 1
        self.bytes += size


class Retired(msgspec.Struct):
    """What retention rules let go. `bytes` come free once it is collected; `changed` had to stay for this time."""

    tags: int = 0
    manifests: int = 0
    bytes: int = 0
    changed: int = 0
    builds: int = 0  # each of one kind of file

    def add(self, other: Retired) -> None:
        """And that."""
        self.tags += other.tags
        self.manifests += other.manifests
        self.bytes += other.bytes
        self.changed += other.changed
        self.builds += other.builds

    def __str__(self) -> str:
        """What it was, in words."""
        return f"{self.builds} builds" if self.builds else f"{self.tags} tags and {self.manifests} manifests"


class Report(msgspec.Struct):
    """What a round did, or would do in a dry run.

    `names` are, by repository, files that nothing there refers to any more; `blobs` are, by store, what was removed
    from the disk.  `unknown` are repositories in the catalog that the configuration does not have: all theirs is kept.
    """

    dry_run: bool = False
    retired: dict[str, Retired] = msgspec.field(default_factory=dict)
    names: dict[str, Freed] = msgspec.field(default_factory=dict)
    evicted: dict[str, Freed] = msgspec.field(default_factory=dict)
    blobs: dict[str, Freed] = msgspec.field(default_factory=dict)
    unknown: dict[str, Freed] = msgspec.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def freed(self) -> Freed:
        """Over all stores."""
        found = self.blobs.values()
        return Freed(sum(item.files for item in found), sum(item.bytes for item in found))


def ignore_progress(done: int, total: int | None, what: str) -> None:
    """A `Tell` for nobody."""


def no_pause(stage: str) -> None:
    """A `Pause` for who has the disk for himself."""
