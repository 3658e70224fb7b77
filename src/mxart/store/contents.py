"""What the catalog holds, for people: packages, tags and versions with sizes and times. Reads only.

Two connections of its own, opened when first asked: only a worker that somebody looks at this way needs them.  What
takes microseconds is asked on the event loop; what adds up sizes, in a thread, one question at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.store.base import FileRecord
from mxart.store.finding import Sought, find
from mxart.store.schema import connect

_PACKAGE = """
    (SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository WHERE r.name = ? AND p.name = ?)"""
_HAS_PACKAGE = f"SELECT id FROM packages WHERE id = {_PACKAGE}"  # noqa: S608  all of these are constants
_PACKAGES = """
    SELECT p.name FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name > ? ORDER BY p.name LIMIT ?"""
_TAG = """
    SELECT t.name, v.digest, f.media_type, f.size, f.created, u.last
    FROM tags t JOIN versions v ON v.id = t.version JOIN files f ON f.id = t.file LEFT JOIN uses u ON u.file = f.id
    WHERE t.package = ?"""
_TAGS = f"{_TAG} AND t.name > ? ORDER BY t.name LIMIT ?"
_ONE_TAG = f"{_TAG} AND t.name = ?"
# What something needs, and what is tagged. The bytes of a version may be there under its tags' names only.
_VERSIONS = """
    SELECT v.digest FROM versions v WHERE v.package = ?1 AND v.digest > ?2
        AND EXISTS (SELECT 1 FROM files f WHERE f.package = ?1 AND f.digest = v.digest)
    UNION
    SELECT f.digest FROM files f WHERE f.package = ?1 AND f.digest > ?2
        AND (EXISTS (SELECT 1 FROM links l WHERE l.file = f.id)
             OR EXISTS (SELECT 1 FROM referrers n WHERE n.file = f.id))
    ORDER BY 1 LIMIT ?3"""
_VERSION = """
    SELECT f.media_type, f.size, min(f.created), max(u.last), max(n.subject), max(n.artifact_type)
    FROM files f LEFT JOIN uses u ON u.file = f.id LEFT JOIN referrers n ON n.file = f.id
    WHERE f.package = ? AND f.digest = ? GROUP BY f.package"""
_TAGS_OF = "SELECT t.name FROM tags t JOIN versions v ON v.id = t.version WHERE v.package = ? AND v.name = ? ORDER BY 1"
# All that is reached by what it needs, and what that needs, each once; ends however often they need each other.
_TOTAL = """
    WITH RECURSIVE reached (digest) AS (
        SELECT ?2
        UNION
        SELECT l.digest FROM reached r JOIN files f ON f.package = ?1 AND f.digest = r.digest
                                       JOIN links l ON l.file = f.id)
    SELECT sum(size) FROM (SELECT max(f.size) AS size FROM reached r
                           JOIN files f ON f.package = ?1 AND f.digest = r.digest GROUP BY r.digest)"""

_USAGE = "SELECT r.name, u.files, u.bytes FROM usage u JOIN repositories r ON r.id = u.repository"

_T = TypeVar("_T")


class KeptTag(Struct, frozen=True):
    """A tag and the document that it points at; `total` is of all that this needs, as far as it is here, each once.

    Sizes are in bytes, times seconds since the epoch, `used` to half a minute or so; None: never.
    """

    name: str
    digest: Digest
    media_type: str
    size: int
    total: int
    created: float
    used: float | None


class KeptVersion(Struct, frozen=True):
    """A version of a package, tagged or not. `subject` and `artifact_type` of a referrer, "" for others."""

    digest: Digest
    media_type: str
    size: int
    total: int
    created: float
    used: float | None
    tags: tuple[str, ...]
    subject: str
    artifact_type: str


class Contents:
    """The catalog at a path, which exists. Raises a Problem where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._adder: sqlite3.Connection | None = None
        self._turn = trio.CapacityLimiter(1)

    def packages(self, repository: str, after: str, limit: int) -> list[str]:
        """Packages in ASCII order, those after `after`. Microseconds."""
        return [name for (name,) in _ask(self._connected(), _PACKAGES, (repository, after, limit))]

    def has_package(self, repository: str, package: str) -> bool:
        """Whether anything of it is kept. Microseconds."""
        return bool(_ask(self._connected(), _HAS_PACKAGE, (repository, package)))

    def usage(self) -> dict[str, tuple[int, int]]:
        """Distinct files and their bytes, by repository; one that never held anything is not there. Microseconds."""
        return {name: (files, size) for name, files, size in _ask(self._connected(), _USAGE, ())}

    async def tags(self, repository: str, package: str, after: str, limit: int) -> list[KeptTag]:
        """Tags in ASCII order, those after `after`."""
        return await self._apart(lambda db: _tags(db, repository, package, _TAGS, (after, limit)))

    async def tag(self, repository: str, package: str, name: str) -> KeptTag | None:
        """One tag."""
        found = await self._apart(lambda db: _tags(db, repository, package, _ONE_TAG, (name,)))
        return found[0] if found else None

    async def versions(self, repository: str, package: str, after: str, limit: int) -> list[KeptVersion]:
        """Versions by digest, those after `after`."""
        return await self._apart(lambda db: _versions(db, repository, package, after, limit))

    async def version(self, repository: str, package: str, digest: Digest) -> KeptVersion | None:
        """One version."""
        return await self._apart(lambda db: _one_version(db, repository, package, str(digest)))

    async def find(self, repository: str, sought: Sought, after: str, limit: int) -> list[FileRecord]:
        """Files of a repository by what they are or by their packages' names, in the order of their paths."""
        return await self._apart(lambda db: find(partial(_ask, db), repository, sought, after, limit))

    def close(self) -> None:
        """Close the connections; nobody may be asking. Idempotent."""
        for connection in (self._reader, self._adder):
            if connection is not None:
                connection.close()
        self._reader = self._adder = None

    def _connected(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = _open(self._path)
        return self._reader

    async def _apart(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        def run() -> _T:
            if self._adder is None:
                self._adder = _open(self._path)
            return read(self._adder)

        return await trio.to_thread.run_sync(run, limiter=self._turn)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return connect(path)
    except sqlite3.Error as error:
        raise Problem(f"the catalog cannot be read: {error}") from error


def _ask(db: sqlite3.Connection, statement: str, values: tuple[str | int, ...]) -> list[Any]:  # sqlite3's are untyped
    try:
        return db.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        raise Problem(f"the catalog cannot be read: {error}") from error


def _package(db: sqlite3.Connection, repository: str, package: str) -> int | None:
    rows = _ask(db, _HAS_PACKAGE, (repository, package))
    return int(rows[0][0]) if rows else None


def _total(db: sqlite3.Connection, package: int, digest: str) -> int:
    ((total,),) = _ask(db, _TOTAL, (package, digest))
    return int(total or 0)


def _tags(
    db: sqlite3.Connection, repository: str, package: str, statement: str, more: tuple[str | int, ...]
) -> list[KeptTag]:
    owner = _package(db, repository, package)
    rows: list[tuple[str, str, str, int, float, float | None]]
    rows = _ask(db, statement, (owner, *more)) if owner is not None else []
    totals = {digest: _total(db, owner or 0, digest) for digest in dict.fromkeys(row[1] for row in rows)}
    return [
        KeptTag(name, _digest(digest), media_type, size, max(size, totals[digest]), created, used)
        for name, digest, media_type, size, created, used in rows
    ]


def _versions(db: sqlite3.Connection, repository: str, package: str, after: str, limit: int) -> list[KeptVersion]:
    owner = _package(db, repository, package)
    rows = _ask(db, _VERSIONS, (owner, after, limit)) if owner is not None else []
    found = (_one_version(db, repository, package, digest) for (digest,) in rows)
    return [version for version in found if version is not None]


def _one_version(db: sqlite3.Connection, repository: str, package: str, digest: str) -> KeptVersion | None:
    owner = _package(db, repository, package)
    rows = _ask(db, _VERSION, (owner, digest)) if owner is not None else []
    if owner is None or not rows:
        return None
    ((media_type, size, created, used, subject, artifact_type),) = rows
    tags = tuple(name for (name,) in _ask(db, _TAGS_OF, (owner, digest)))
    total = max(size, _total(db, owner, digest))
    return KeptVersion(
        _digest(digest), media_type, size, total, created, used, tags, subject or "", artifact_type or ""
    )


def _digest(text: str) -> Digest:
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value)
