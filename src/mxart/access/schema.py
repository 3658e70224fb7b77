"""The tables of `<data>/access.sqlite`, and how an older file becomes a newer one.

`user_version` counts the migrations that the file has been through; they are only ever added to.  A file of a newer
program is refused, never guessed at.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mxart.atomic import locked_directory
from mxart.errors import ConfigError

APPLICATION_ID = 0x4D584143  # "MXAC"

# A user's number is never given away again, so that what was signed for one who is gone is of use to nobody.
MIGRATIONS = (
    """
    CREATE TABLE users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        robot INTEGER NOT NULL,
        disabled INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        changed REAL NOT NULL
    ) STRICT;
    CREATE TABLE groups (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE members (
        user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
        "group" INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
        PRIMARY KEY (user, "group")
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX members_of_group ON members ("group");
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        hash BLOB NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        ceiling TEXT NOT NULL,
        parent TEXT REFERENCES tokens ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_of_user ON tokens (user, kind, created);
    CREATE INDEX tokens_of_token ON tokens (parent);
    CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO groups (name) VALUES ('admins');
    """,
)


def connect(path: Path, busy_seconds: float = 10.0) -> sqlite3.Connection:
    """Open the file. The caller sees to it that one thread uses it at a time. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # who is locked out stays so if the power goes
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path) -> None:
    """Make the file, or bring an older one up to date; several processes may do so at once. Raises ConfigError."""
    try:
        # SQLite does not wait where several make a new file's log at once (PRAGMA journal_mode).
        with locked_directory(path.parent):
            path.touch(mode=0o600, exist_ok=True)
            path.chmod(0o600)
            connection = connect(path)
            try:
                _migrate(connection, path)
            finally:
                connection.close()
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(
            f"{path}: the users cannot be read: {error}; restore the file from a backup, or move it away to begin "
            "with a new administrator"
        ) from error


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        if owner not in {0, APPLICATION_ID} or (owner == 0 and found != 0):
            raise ConfigError(f"{path}: this is a database of another program; choose another data directory")
        if found > len(MIGRATIONS):
            raise ConfigError(
                f"{path}: this file was written by a newer program (schema {found}, this one knows up to "
                f"{len(MIGRATIONS)}); run that one, or choose another data directory"
            )
        for number, script in enumerate(MIGRATIONS[found:], found + 1):
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
