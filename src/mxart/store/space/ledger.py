"""The catalog as housekeeping reads and writes it: in short statements, on a connection of its own.

Theory of operation.  A file on disk is named by rows of the catalog.  A row is only ever made in a transaction
that, inside itself, sees the file (store.base, Publications), or by a proxy, which fetches again what it
does not find; a file is only removed in a transaction that sees no row of it.  SQLite has one writer at
a time, so these are ordered, and no row of a local repository ever names a file that is gone.

The same with names: a manifest is published in a transaction that sees the row of everything it needs; a
row goes only in a transaction that sees no link to it.  So whatever is decided from an earlier read is
decided again inside the transaction that acts on it, and it does not matter how old that read is, nor
whether the process is killed between any two of them.

No transaction lasts longer than a batch: some milliseconds.  Readers never wait for any of it (write-ahead
logging).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from mxart.store.changes import HELD
from mxart.store.generation import Generation
from mxart.store.schema import connect, prepare
from mxart.store.space.task import Freed, Member

# Rows looked at in one statement, and rows deleted in one transaction.
WINDOW = 500
BATCH = 100

_WRITER_SECONDS = 30.0

_UNLINKED = """
    c.repository = f.repository
    AND f.path = p.name || c.part || f.digest
    AND f.created < :before AND coalesce((SELECT u.last FROM uses u WHERE u.file = f.id), 0) < :before
    AND NOT EXISTS (SELECT 1 FROM links l CROSS JOIN files m ON m.id = l.file
                    WHERE l.digest = f.digest AND m.package = f.package)"""
_FIND_UNLINKED = f"""
    SELECT f.id, f.digest, f.size, c.name
    FROM files f JOIN packages p ON p.id = f.package JOIN collected c ON c.repository = f.repository
    WHERE f.id > :after AND f.id <= :until AND {_UNLINKED}
    ORDER BY f.id"""  # noqa: S608  # of our own words
_DROP_UNLINKED = f"""
    DELETE FROM files WHERE id = :id AND EXISTS (
        SELECT 1 FROM files f JOIN packages p ON p.id = f.package JOIN collected c ON c.repository = f.repository
        WHERE f.id = files.id AND {_UNLINKED})
    RETURNING package"""  # noqa: S608  # as above
_FORGET_EMPTY = """
    DELETE FROM packages WHERE id = ? AND NOT EXISTS (SELECT 1 FROM files WHERE package = packages.id)"""
_KEPT_BY = """
    SELECT 1 FROM files f WHERE f.digest = ? AND f.repository NOT IN (SELECT repository FROM elsewhere WHERE store = ?)
    LIMIT 1"""
_ELSEWHERE = """
    SELECT DISTINCT r.name FROM files f JOIN elsewhere e ON e.repository = f.repository
                                        JOIN repositories r ON r.id = f.repository
    WHERE e.store = ? AND f.digest = ?"""
# The true numbers of each repository, where the running ones are others.
_MISCOUNTED = """
    WITH held AS (SELECT repository, max(size) AS size FROM files GROUP BY repository, digest)
    SELECT repository, count(*), sum(size) FROM held GROUP BY repository
    EXCEPT SELECT repository, files, bytes FROM usage
    LIMIT 1"""


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full. Deleting a row wants room, too."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


class Row(Struct, frozen=True):
    """A file's row, as far as it matters here."""

    id: int
    digest: str
    size: int
    repository: str


class Ledger:
    """One thread uses it at a time. Everything raises sqlite3.Error; opening also ConfigError."""

    def __init__(self, catalog: Path, generation: Generation | None, members: Sequence[Member]) -> None:
        prepare(catalog)
        self._db = connect(catalog, _WRITER_SECONDS)
        self._log = f"{catalog}-wal"
        self._generation = generation
        self._members = {member.name: member for member in members}
        # A commit is whole, and ordered before later ones, but on disk only after `settle`: hundreds of syncs would be
        # felt by everybody who writes to that disk.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("CREATE TEMP TABLE collected (repository INTEGER PRIMARY KEY, part TEXT, name TEXT)")
        self._db.execute(
            "CREATE TEMP TABLE elsewhere (store TEXT, repository INTEGER, PRIMARY KEY (store, repository))"
        )
        self._known: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def look_around(self, stores: Iterable[str]) -> list[str]:
        """Learn which repositories there are; returns the names of those that the configuration does not have.

        To be called before anything else, and again when a repository may have got its first file.
        """
        found: dict[str, int] = dict(self._db.execute("SELECT name, id FROM repositories").fetchall())
        # What is held for a repository of ours (store.changes) counts for every store, as unknown ones do.
        unknown = sorted(name for name in found.keys() - self._members.keys() if HELD not in name)
        if found == self._known:
            return unknown
        self._known = found
        ours = [(number, self._members[name]) for name, number in found.items() if name in self._members]
        self._db.execute("DELETE FROM collected")
        self._db.executemany(
            "INSERT INTO collected VALUES (?, ?, ?)",
            [(number, f"/{member.part}/", member.name) for number, member in ours if member.part],
        )
        self._db.execute("DELETE FROM elsewhere")
        self._db.executemany(
            "INSERT INTO elsewhere VALUES (?, ?)",
            [(store, number) for store in stores for number, member in ours if member.store != store],
        )
        return unknown

    def held(self, repository: str) -> Freed:
        """What a repository holds: its distinct files."""
        rows = self._db.execute(
            "SELECT u.files, u.bytes FROM usage u JOIN repositories r ON r.id = u.repository WHERE r.name = ?",
            (repository,),
        ).fetchall()
        return Freed(*rows[0]) if rows else Freed()

    def rows(self, statement: str, values: Sequence[str | float]) -> list[Any]:  # sqlite3's rows are untyped
        """What a short statement finds."""
        return self._db.execute(statement, values).fetchall()

    def recount(self) -> bool:
        """Count anew what each repository holds, if the running count is wrong; returns whether it was.

        It cannot be, short of somebody changing the database by hand.
        """
        if not self._db.execute(_MISCOUNTED).fetchall():
            return False
        with self.writing():
            self._db.execute("DELETE FROM holdings")
            self._db.execute("DELETE FROM usage")
            self._db.execute(
                "INSERT INTO holdings (repository, digest, size, names)"
                " SELECT repository, digest, max(size), count(*) FROM files GROUP BY repository, digest"
            )
        return True

    # Names that nothing refers to

    def count(self) -> int:
        """About how many rows there are to look at."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM files").fetchall()[0][0])

    def window(self, after: int) -> int | None:
        """The last of the next rows, by number; None if there are none."""
        rows = self._db.execute(
            "SELECT max(id) FROM (SELECT id FROM files WHERE id > ? ORDER BY id LIMIT ?)", (after, WINDOW)
        ).fetchall()
        last: int | None = rows[0][0]
        return last

    def unlinked(self, after: int, until: int, before: float) -> list[Row]:
        """Of these rows, those that nothing links and nobody has put or used since a time."""
        found = self._db.execute(_FIND_UNLINKED, {"after": after, "until": until, "before": before}).fetchall()
        return [Row(*row) for row in found]

    def drop_unlinked(self, rows: Iterable[Row], before: float) -> list[Row]:
        """Delete those of them of which that still holds; returns which. One transaction."""
        dropped: list[Row] = []
        with self.writing():
            packages: set[int] = set()
            for row in rows:
                gone = self._db.execute(_DROP_UNLINKED, {"id": row.id, "before": before}).fetchall()
                if gone:
                    dropped.append(row)
                    packages.update(package for (package,) in gone)
            self.forget_empty(packages)
        if dropped:
            self.tell()
        return dropped

    def forget_empty(self, packages: Iterable[int]) -> None:
        """Within a transaction: packages that hold no file any more are none."""
        self._db.executemany(_FORGET_EMPTY, [(package,) for package in packages])

    # Files on disk

    def named(self, store: str, first: str, last: str, without: set[int]) -> set[str]:
        """The digests from `first` up to `last`, which is none of them, that rows name in this store.

        Repositories that the configuration does not have count for every store.  `without` are rows that do not count.
        """
        rows = self._db.execute(
            "SELECT id, digest FROM files WHERE digest >= ? AND digest < ?"
            " AND repository NOT IN (SELECT repository FROM elsewhere WHERE store = ?)",
            (first, last, store),
        ).fetchall()
        return {digest for number, digest in rows if number not in without}

    def is_named(self, store: str, digest: str) -> bool:
        """Within a transaction: whether any row names this file in this store."""
        return bool(self._db.execute(_KEPT_BY, (digest, store)).fetchall())

    def elsewhere(self, store: str, digest: str) -> set[str]:
        """The other stores in which repositories have such a file, by what rows say."""
        rows = self._db.execute(_ELSEWHERE, (store, digest)).fetchall()
        return {self._members[name].store for (name,) in rows}

    # Transactions

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer is in: all of it is done, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def settle(self) -> None:
        """What was committed so far is on disk when this returns: before files go whose rows went. Raises OSError.

        A row that came back after a loss of power, without its file, would be a lie.  Syncing the log does it (what
        has left the log was synced then), and wants no room.  SQLite locks other files than this one, so closing it
        here takes no lock away.
        """
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """All that is read meanwhile is as it was at one moment. For moments only: the log grows as long."""
        self._db.execute("BEGIN")
        try:
            yield self._db
        finally:
            self._db.execute("ROLLBACK")

    def tell(self) -> None:
        """Tell all workers that something has changed."""
        if self._generation is not None:
            self._generation.bump()
