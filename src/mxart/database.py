"""Our files of SQLite: how they are opened, made, and brought up to date.

`user_version` of a file counts the migrations that it has been through, and these are only ever added to.  A file from
a newer program, or of another one, is refused, never guessed at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from mxart.atomic import locked_directory
from mxart.errors import ConfigError


class Schema(Struct, frozen=True):
    """One kind of file. `application_id` is what file(1) and we know it by.

    `called` and `remedy` are for the message about one that cannot be used: "this catalog", and what to do.
    """

    application_id: int
    migrations: tuple[str, ...]
    called: str
    remedy: str
    pragmas: tuple[str, ...] = ()


def connect(path: Path, schema: Schema, busy_seconds: float = 10.0) -> sqlite3.Connection:
    """Open a file that `prepare` has seen. The caller sees to it that one thread uses it at a time.

    A commit is on disk when it returns.  Raises sqlite3.Error.
    """
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", *schema.pragmas):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, schema: Schema) -> None:
    """Make the file (0600), or bring an older one up to date; several processes may at once. Raises ConfigError."""
    try:
        # SQLite does not wait where several make a new file's log at once (PRAGMA journal_mode).
        with locked_directory(path.parent):
            path.touch(mode=0o600, exist_ok=True)
            path.chmod(0o600)
            connection = connect(path, schema)
            try:
                _migrate(connection, path, schema)
            finally:
                connection.close()
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{path}: {schema.called} cannot be used: {error}; {schema.remedy}") from error


def _migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    known = len(schema.migrations)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner not in {0, schema.application_id} or (owner == 0 and found != 0):
        raise ConfigError(f"{path}: this is a database of another program; choose another data directory")
    if found > known:
        raise ConfigError(
            f"{path}: {schema.called} was written by a newer program (schema {found}, this one knows up to "
            f"{known}); run that one, or choose another data directory"
        )
    if found == known:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, script in enumerate(schema.migrations[found:], found + 1):
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit the transaction."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += piece + ";"
        if sqlite3.complete_statement(statement):  # a trigger has semicolons inside
            yield statement
            statement = ""
