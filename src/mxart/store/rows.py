"""The catalog's rows as one transaction writes them: the statements that several of its roles share."""

from __future__ import annotations

import sqlite3
from typing import Any

from mxart.digest import Digest
from mxart.store.base import FileRecord

RECORDS = """
    SELECT r.name, p.name, f.path, f.digest, f.size, f.media_type, f.etag, f.last_modified, f.origin, f.created,
           f.validated, f.checksum
    FROM files f JOIN repositories r ON r.id = f.repository JOIN packages p ON p.id = f.package"""
"""The beginning of a statement that finds what `as_record` reads."""
_PUT_FILE = """
    INSERT INTO files (repository, package, path, digest, size, media_type, etag, last_modified, origin, created,
                       validated, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (repository, path) DO UPDATE SET
        package = excluded.package, digest = excluded.digest, size = excluded.size, media_type = excluded.media_type,
        etag = excluded.etag, last_modified = excluded.last_modified, origin = excluded.origin,
        created = excluded.created, validated = excluded.validated, checksum = excluded.checksum
    RETURNING id"""
_PUT_VERSION = """
    INSERT INTO versions (package, name, digest, created) VALUES (?, ?, ?, ?)
    ON CONFLICT (package, name) DO UPDATE SET digest = excluded.digest RETURNING id"""
_PUT_TAG = """
    INSERT INTO tags (package, name, version, file) VALUES (?, ?, ?, ?)
    ON CONFLICT (package, name) DO UPDATE SET version = excluded.version, file = excluded.file"""
_PUT_USE = """
    INSERT INTO uses (file, last)
    SELECT f.id, ? FROM files f JOIN repositories r ON r.id = f.repository WHERE r.name = ? AND f.path = ?
    ON CONFLICT (file) DO UPDATE SET last = max(last, excluded.last)"""
_FORGET_EMPTY = """
    DELETE FROM packages WHERE id = ? AND NOT EXISTS (SELECT 1 FROM files WHERE package = packages.id)"""


def put_file(db: sqlite3.Connection, record: FileRecord) -> tuple[int, int]:
    """Insert or replace a file's row. Returns the ids of its package's row and of its own."""
    db.execute("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING", (record.repository,))
    ((repository,),) = db.execute("SELECT id FROM repositories WHERE name = ?", (record.repository,)).fetchall()
    db.execute(
        "INSERT INTO packages (repository, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (repository, record.package)
    )
    ((package,),) = db.execute(
        "SELECT id FROM packages WHERE repository = ? AND name = ?", (repository, record.package)
    ).fetchall()
    ((file,),) = db.execute(
        _PUT_FILE,
        (
            repository,
            package,
            record.path,
            str(record.digest),
            record.size,
            record.media_type,
            record.etag,
            record.last_modified,
            record.origin,
            record.created,
            record.validated,
            record.checksum,
        ),
    ).fetchall()
    db.execute("DELETE FROM missing WHERE repository = ? AND path = ?", (record.repository, record.path))
    return package, file


def put_tag(db: sqlite3.Connection, tag: str, record: FileRecord) -> None:
    """A tag's own file row, and the tag pointing at its version."""
    owner, file = put_file(db, record)
    digest = str(record.digest)
    ((version,),) = db.execute(_PUT_VERSION, (owner, digest, digest, record.created)).fetchall()
    db.execute(_PUT_TAG, (owner, tag, version, file))


def forget_empty(db: sqlite3.Connection, package: int) -> None:
    """Forget a package that holds no file any more."""
    db.execute(_FORGET_EMPTY, (package,))


def as_record(row: tuple[Any, ...]) -> FileRecord:
    """A file's record from a row of RECORDS."""
    owner, package, name, digest, *rest = row
    return FileRecord(owner, package, name, as_digest(digest), *rest)


def as_digest(text: str) -> Digest:
    """A digest that was checked before it was put."""
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value)


def put_use(db: sqlite3.Connection, repository: str, path: str, last: float) -> bool:
    """When a file was last used; False if it is not there."""
    return db.execute(_PUT_USE, (last, repository, path)).rowcount > 0
