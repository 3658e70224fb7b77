"""The catalog's tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mxart import database

_MIGRATIONS = (
    """
    CREATE TABLE repositories (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE packages (
        id INTEGER PRIMARY KEY,
        repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
        name TEXT NOT NULL,
        UNIQUE (repository, name)
    ) STRICT;
    CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
        package INTEGER NOT NULL REFERENCES packages ON DELETE CASCADE,
        path TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        etag TEXT NOT NULL,
        last_modified TEXT NOT NULL,
        origin TEXT NOT NULL,
        created REAL NOT NULL,
        validated REAL NOT NULL,
        UNIQUE (repository, path)
    ) STRICT;
    CREATE INDEX files_of_package ON files (package);
    CREATE INDEX files_of_digest ON files (digest);
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY,
        package INTEGER NOT NULL REFERENCES packages ON DELETE CASCADE,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        created REAL NOT NULL,
        UNIQUE (package, name)
    ) STRICT;
    CREATE TABLE tags (
        package INTEGER NOT NULL REFERENCES packages ON DELETE CASCADE,
        name TEXT NOT NULL,
        version INTEGER NOT NULL REFERENCES versions ON DELETE CASCADE,
        file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
        PRIMARY KEY (package, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_of_version ON tags (version);
    CREATE INDEX tags_of_file ON tags (file);
    CREATE TABLE missing (
        repository TEXT NOT NULL,
        path TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (repository, path)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE uses (
        file INTEGER PRIMARY KEY REFERENCES files ON DELETE CASCADE,
        last REAL NOT NULL
    ) STRICT;
    """,
    # What a manifest needs, and what it says about another one.
    """
    CREATE TABLE links (
        file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
        digest TEXT NOT NULL,
        PRIMARY KEY (file, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX links_of_digest ON links (digest);
    CREATE TABLE referrers (
        file INTEGER PRIMARY KEY REFERENCES files ON DELETE CASCADE,
        package INTEGER NOT NULL REFERENCES packages ON DELETE CASCADE,
        subject TEXT NOT NULL,
        digest TEXT NOT NULL,
        artifact_type TEXT NOT NULL,
        descriptor BLOB NOT NULL
    ) STRICT;
    CREATE INDEX referrers_of_subject ON referrers (package, subject, digest);
    CREATE INDEX referrers_of_type ON referrers (package, subject, artifact_type, digest);
    DROP INDEX files_of_package;
    CREATE INDEX files_of_package ON files (package, digest);
    """,
    # What each repository holds: its distinct files, however many names they have there. Kept up by triggers,
    # so that no writer can forget to, and a question about a quota costs microseconds.
    """
    CREATE TABLE holdings (
        repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        names INTEGER NOT NULL,
        PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage (
        repository INTEGER PRIMARY KEY REFERENCES repositories ON DELETE CASCADE,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE TRIGGER holdings_more AFTER INSERT ON holdings BEGIN
        INSERT INTO usage (repository, files, bytes) VALUES (new.repository, 1, new.size)
        ON CONFLICT (repository) DO UPDATE SET files = files + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER holdings_less AFTER DELETE ON holdings BEGIN
        UPDATE usage SET files = files - 1, bytes = bytes - old.size WHERE repository = old.repository;
    END;
    CREATE TRIGGER files_more AFTER INSERT ON files BEGIN
        INSERT INTO holdings (repository, digest, size, names) VALUES (new.repository, new.digest, new.size, 1)
        ON CONFLICT (repository, digest) DO UPDATE SET names = names + 1;
    END;
    CREATE TRIGGER files_less AFTER DELETE ON files BEGIN
        UPDATE holdings SET names = names - 1 WHERE repository = old.repository AND digest = old.digest;
        DELETE FROM holdings WHERE repository = old.repository AND digest = old.digest AND names <= 0;
    END;
    CREATE TRIGGER files_moved AFTER UPDATE OF repository, digest ON files
    WHEN new.digest <> old.digest OR new.repository <> old.repository BEGIN
        INSERT INTO holdings (repository, digest, size, names) VALUES (new.repository, new.digest, new.size, 1)
        ON CONFLICT (repository, digest) DO UPDATE SET names = names + 1;
        UPDATE holdings SET names = names - 1 WHERE repository = old.repository AND digest = old.digest;
        DELETE FROM holdings WHERE repository = old.repository AND digest = old.digest AND names <= 0;
    END;
    INSERT INTO holdings (repository, digest, size, names)
    SELECT repository, digest, max(size), count(*) FROM files GROUP BY repository, digest;
    """,
    # What was said of paths and no file tells (store.changes, Note).
    """
    CREATE TABLE notes (
        repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
        path TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (repository, path, key)
    ) STRICT, WITHOUT ROWID;
    """,
    # What clients know a file by. That of a published module stood where an upstream's entity tag stands.
    """
    ALTER TABLE files ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
    UPDATE files SET checksum = etag, etag = '' WHERE origin = '' AND etag LIKE 'h1:%';
    """,
    # By the SHA-1 that Maven's clients know a file by (store.finding): "md5:<32 digits> sha1:<40 digits> ...".
    """
    CREATE INDEX files_of_sha1 ON files (substr(checksum, 43, 40)) WHERE substr(checksum, 1, 4) = 'md5:';
    """,
)

SCHEMA = database.Schema(
    application_id=0x4D584152,  # "MXAR"
    migrations=_MIGRATIONS,
    called="this catalog",
    remedy="restore it from a backup, or move it away to begin an empty one (stored blobs stay)",
)


def connect(path: Path, busy_seconds: float = 10.0) -> sqlite3.Connection:
    """Open a catalog (database.connect). Raises sqlite3.Error."""
    return database.connect(path, SCHEMA, busy_seconds)


def prepare(path: Path) -> None:
    """Make the catalog, or bring an older one up to date (database.prepare). Raises ConfigError."""
    database.prepare(path, SCHEMA)
