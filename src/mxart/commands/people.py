"""What the commands `user`, `group`, `token` and `check --as` share: the users of a data directory, and passwords."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mxart.access.audit import Audit, Entry
from mxart.access.management import Management
from mxart.app_access import open_users
from mxart.commands.options import Options, UserError
from mxart.config import parse_size
from mxart.errors import ConfigError, Problem
from mxart.store.generation import Generation
from mxart.store.paths import DataPaths


@contextmanager
def people(options: Options, change: str = "") -> Iterator[Management]:
    """The users of the data directory; a server that runs sees each change at once.

    `change` says what is changed, for the audit log.  A mistake becomes one line on standard error.
    """
    try:
        config = options.load()
        paths = DataPaths(config.data)
        paths.create()
        generation = Generation.outside(paths.generation)
        management = open_users(config.data, generation)
        try:
            yield management
        finally:
            management.directory.close()
            generation.close()
        if change:
            audit = Audit(paths.audit, parse_size(config.access.audit_bytes))
            source = f"command line of {getpass.getuser()}"
            audit.write(Entry(source=source, action="manage", outcome="done", detail=change))
            audit.close()
    except ConfigError as error:
        raise UserError(str(error)) from None
    except Problem as problem:
        raise UserError(problem.message) from None


def new_password(from_stdin: bool, file: str | None) -> str:
    """The password that the user wants, from where he says: never an argument, which every process can read.

    A line's end is not part of it. Raises UserError.
    """
    if from_stdin and file is not None:
        raise UserError("give --password-stdin or --password-file, not both")
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise UserError(f"{file}: cannot be read: {why}") from None
        return text.rstrip("\r\n")
    if from_stdin:
        return sys.stdin.read().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask for a password at: give --password-stdin or --password-file FILE")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of columns."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def day(seconds: float | None) -> str:
    """A Unix time as people read it."""
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
