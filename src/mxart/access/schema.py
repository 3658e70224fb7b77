"""The tables of `<data>/access.sqlite`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mxart import database

# A user's number is never given away again, so that what was signed for one who is gone is of use to nobody.
_MIGRATIONS = (
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

SCHEMA = database.Schema(
    application_id=0x4D584143,  # "MXAC"
    migrations=_MIGRATIONS,
    called="this file of users",
    remedy="restore the file from a backup, or move it away to begin with a new administrator",
    pragmas=("secure_delete = ON",),
)


def connect(path: Path, busy_seconds: float = 10.0) -> sqlite3.Connection:
    """Open the file (database.connect). Raises sqlite3.Error."""
    return database.connect(path, SCHEMA, busy_seconds)


def prepare(path: Path) -> None:
    """Make the file, or bring an older one up to date (database.prepare). Raises ConfigError."""
    database.prepare(path, SCHEMA)
