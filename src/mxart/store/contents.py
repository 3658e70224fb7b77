"""What the catalog holds, for people: tags and their packages with sizes and times. Reads only.

A connection of its own, opened when first asked: only a worker that somebody looks at this way needs it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.store.schema import connect

_PACKAGE = """
    (SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository WHERE r.name = ? AND p.name = ?)"""
_TAG = """
    SELECT t.name, v.digest, f.media_type, f.size, f.created, u.last
    FROM tags t JOIN versions v ON v.id = t.version JOIN files f ON f.id = t.file LEFT JOIN uses u ON u.file = f.id"""
_TAGS = f"{_TAG} WHERE t.package = {_PACKAGE} AND t.name > ? ORDER BY t.name LIMIT ?"
_ONE_TAG = f"{_TAG} WHERE t.package = {_PACKAGE} AND t.name = ?"
_PACKAGES = """
    SELECT p.name FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name > ? ORDER BY p.name LIMIT ?"""


@dataclass(frozen=True, slots=True)
class KeptTag:
    """A tag and the document that it points at. Times are seconds since the epoch, `used` to half a minute or so."""

    name: str
    digest: Digest
    media_type: str
    size: int
    created: float
    used: float | None


class Contents:
    """The catalog at a path, which exists. Every read takes microseconds, and raises a Problem if it cannot be done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None

    def packages(self, repository: str, after: str, limit: int) -> list[str]:
        """Packages in ASCII order, those after `after`."""
        return [name for (name,) in self._ask(_PACKAGES, (repository, after, limit))]

    def has_package(self, repository: str, package: str) -> bool:
        """Whether anything of it is kept."""
        return bool(self._ask(f"SELECT 1 WHERE EXISTS {_PACKAGE}", (repository, package)))

    def tags(self, repository: str, package: str, after: str, limit: int) -> list[KeptTag]:
        """Tags in ASCII order, those after `after`."""
        return [_tag(row) for row in self._ask(_TAGS, (repository, package, after, limit))]

    def tag(self, repository: str, package: str, name: str) -> KeptTag | None:
        """One tag."""
        rows = self._ask(_ONE_TAG, (repository, package, name))
        return _tag(rows[0]) if rows else None

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _ask(self, statement: str, values: tuple[str | float, ...]) -> list[Any]:  # sqlite3's rows are untyped
        try:
            if self._reader is None:
                self._reader = connect(self._path)
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise Problem(f"the catalog cannot be read: {error}") from error


def _tag(row: tuple[str, str, str, int, float, float | None]) -> KeptTag:
    name, digest, media_type, size, created, used = row
    algorithm, _, value = digest.partition(":")
    return KeptTag(name, Digest(algorithm, value), media_type, size, created, used)
