"""The catalog in SQLite: the names of everything that is kept.

Every worker process has two connections of its own, opened after fork: one reads, synchronously and
in microseconds, on the event loop; the other writes, in a worker thread, one transaction at a time;
whatever came to wait meanwhile shares the next transaction, and its fsync.
Write-ahead logging lets both go on at once, across processes too.  A statement that reads is always
run to its end: one left half-way would hold its snapshot, and the readers would not see later writes.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from mxart.digest import Digest
from mxart.errors import Problem, StorageFull
from mxart.store.base import FileRecord, VersionRecord
from mxart.store.generation import Generation
from mxart.store.schema import connect, prepare

_FILE = """
    SELECT r.name, p.name, f.path, f.digest, f.size, f.media_type, f.etag, f.last_modified, f.origin, f.created,
           f.validated
    FROM files f JOIN repositories r ON r.id = f.repository JOIN packages p ON p.id = f.package
    WHERE r.name = ? AND f.path = ?"""
_TAGS = """
    SELECT t.name, v.digest, f.created
    FROM tags t JOIN versions v ON v.id = t.version JOIN files f ON f.id = t.file
    WHERE t.package = (SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository
                       WHERE r.name = ? AND p.name = ?)
      AND t.name > ? ORDER BY t.name LIMIT ?"""
_HAS_PACKAGE = """
    SELECT 1 FROM packages p JOIN repositories r ON r.id = p.repository WHERE r.name = ? AND p.name = ?"""
_PACKAGES = """
    SELECT p.name FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name > ? ORDER BY p.name LIMIT ?"""
_MISSING = "SELECT 1 FROM missing WHERE repository = ? AND path = ? AND until > ?"
_PUT_FILE = """
    INSERT INTO files (repository, package, path, digest, size, media_type, etag, last_modified, origin, created,
                       validated)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (repository, path) DO UPDATE SET
        package = excluded.package, digest = excluded.digest, size = excluded.size, media_type = excluded.media_type,
        etag = excluded.etag, last_modified = excluded.last_modified, origin = excluded.origin,
        created = excluded.created, validated = excluded.validated
    RETURNING id"""
_PUT_VERSION = """
    INSERT INTO versions (package, name, digest, created) VALUES (?, ?, ?, ?)
    ON CONFLICT (package, name) DO UPDATE SET digest = excluded.digest RETURNING id"""
_PUT_TAG = """
    INSERT INTO tags (package, name, version, file) VALUES (?, ?, ?, ?)
    ON CONFLICT (package, name) DO UPDATE SET version = excluded.version, file = excluded.file"""
_PUT_MISSING = """
    INSERT INTO missing (repository, path, until) VALUES (?, ?, ?)
    ON CONFLICT (repository, path) DO UPDATE SET until = excluded.until"""
_PUT_USE = """
    INSERT INTO uses (file, last)
    SELECT f.id, ? FROM files f JOIN repositories r ON r.id = f.repository WHERE r.name = ? AND f.path = ?
    ON CONFLICT (file) DO UPDATE SET last = max(last, excluded.last)"""
_FORGET_EMPTY = """
    DELETE FROM packages WHERE id = ? AND NOT EXISTS (SELECT 1 FROM files WHERE package = packages.id)"""


_TOGETHER = 500  # writes in one transaction

_Work = Callable[[sqlite3.Connection], object]


class _Job:
    """A write that waits for its transaction."""

    __slots__ = ("done", "error", "tell", "work")

    def __init__(self, work: _Work, tell: bool) -> None:
        self.work = work
        self.tell = tell
        self.done = False
        self.error: sqlite3.Error | None = None


class SqliteCatalog:
    """`Catalog` in one file (store.base). One per worker, opened after fork; close it with `aclose`.

    Every read raises a Problem if the database cannot be read, every write if it was not written:
    StorageFull where the disk is full.
    """

    def __init__(self, path: Path, generation: Generation | None = None) -> None:
        """Open it, making it or bringing it up to date. Raises ConfigError."""
        prepare(path)
        self._reader = connect(path)
        self._writer = connect(path)
        self._generation = generation
        self._turn = trio.Lock()
        self._jobs: deque[_Job] = deque()  # filled by the loop, emptied by the writing thread
        self._uses: dict[tuple[str, str], float] = {}
        if generation is not None:
            # The last process in this slot may have died between a commit and saying so.
            generation.bump()

    # Reading

    def generation(self) -> int:
        if self._generation is not None:
            return self._generation.value()
        # Changes when any other connection commits, our own writer's too (sqlite.org/pragma.html#pragma_data_version).
        (version,) = self._reader.execute("PRAGMA data_version").fetchall()[0]
        return int(version)

    def file(self, repository: str, path: str) -> FileRecord | None:
        rows = self._ask(_FILE, (repository, path))
        if not rows:
            return None
        owner, package, name, digest, size, media_type, etag, last_modified, origin, created, validated = rows[0]
        return FileRecord(
            owner,
            package,
            name,
            _digest(digest),
            size,
            media_type,
            etag,
            last_modified,
            origin,
            created,
            validated,
        )

    def tags(self, repository: str, package: str, after: str, limit: int) -> list[VersionRecord]:
        rows: list[tuple[str, str, float]] = self._ask(_TAGS, (repository, package, after, limit))
        return [VersionRecord(name, _digest(digest), created) for name, digest, created in rows]

    def has_package(self, repository: str, package: str) -> bool:
        return bool(self._ask(_HAS_PACKAGE, (repository, package)))

    def packages(self, repository: str, after: str, limit: int) -> list[str]:
        rows: list[tuple[str]] = self._ask(_PACKAGES, (repository, after, limit))
        return [name for (name,) in rows]

    def missing(self, repository: str, path: str, now: float) -> bool:
        return bool(self._ask(_MISSING, (repository, path, now)))

    def last_use(self, repository: str, path: str) -> float | None:
        """When a file was last used, in seconds since the epoch; None: never since it was put, or not written yet."""
        pending = self._uses.get((repository, path))
        rows: list[tuple[float]] = self._ask(
            "SELECT u.last FROM uses u JOIN files f ON f.id = u.file JOIN repositories r ON r.id = f.repository"
            " WHERE r.name = ? AND f.path = ?",
            (repository, path),
        )
        return max([last for (last,) in rows] + ([pending] if pending is not None else []), default=None)

    def _ask(self, statement: str, values: tuple[str | float, ...]) -> list[Any]:  # sqlite3's rows are untyped
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _as_problem(error) from error

    # Writing

    async def put_file(self, record: FileRecord) -> None:
        await self._write(lambda db: _put_file(db, record))

    async def forget_file(self, repository: str, path: str) -> None:
        def forget(db: sqlite3.Connection) -> None:
            rows = db.execute(
                "DELETE FROM files WHERE repository = (SELECT id FROM repositories WHERE name = ?) AND path = ?"
                " RETURNING package",
                (repository, path),
            ).fetchall()
            db.executemany(_FORGET_EMPTY, rows)

        await self._write(forget)

    async def put_tag(self, repository: str, package: str, tag: str, record: FileRecord) -> None:
        if (record.repository, record.package) != (repository, package):
            raise ValueError(f"a tag of {repository} {package} cannot name a file of another package")

        def put(db: sqlite3.Connection) -> None:
            owner, file = _put_file(db, record)
            digest = str(record.digest)
            ((version,),) = db.execute(_PUT_VERSION, (owner, digest, digest, record.created)).fetchall()
            db.execute(_PUT_TAG, (owner, tag, version, file))

        await self._write(put)

    async def put_missing(self, repository: str, path: str, until: float) -> None:
        await self._write(lambda db: db.execute(_PUT_MISSING, (repository, path, until)))

    def used(self, repository: str, path: str, now: float) -> None:
        self._uses[repository, path] = now

    async def flush(self, now: float) -> None:
        """Write the uses noted so far, and drop what is no longer missing."""
        uses, self._uses = self._uses, {}

        def write(db: sqlite3.Connection) -> None:
            db.executemany(_PUT_USE, [(last, repository, path) for (repository, path), last in uses.items()])
            db.execute("DELETE FROM missing WHERE until <= ?", (now,))

        await self._write(write, tell=False)

    async def aclose(self, now: float) -> None:
        """Write what is pending and close. A failure to do the former is not worth failing for."""
        try:
            await self.flush(now)
        except Problem:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close at once; uses noted since the last flush are lost."""
        self._reader.close()
        self._writer.close()

    async def _write(self, work: _Work, *, tell: bool = True) -> None:
        job = _Job(work, tell)
        self._jobs.append(job)
        try:
            async with self._turn:
                if not job.done:
                    # Not abandoned when cancelled: the thread commits, or has not begun.
                    await trio.to_thread.run_sync(self._transact)
        finally:
            if job in self._jobs:
                self._jobs.remove(job)  # cancelled before a thread took it
        if job.error is not None:
            raise _as_problem(job.error) from job.error

    def _transact(self) -> None:
        """In a thread: whatever waits to be written by now, as one transaction and with one sync."""
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < _TOGETHER:
            jobs.append(self._jobs.popleft())
        db = self._writer
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            for job in jobs:
                job.error = error
        if self._generation is not None and any(job.tell and job.error is None for job in jobs):
            self._generation.bump()
        for job in jobs:
            job.done = True

    def _attempt(self, job: _Job) -> None:
        """One of several writes: it fails alone, unless SQLite has given up the whole transaction."""
        db = self._writer
        db.execute("SAVEPOINT job")
        try:
            job.work(db)
        except sqlite3.Error as error:
            if not db.in_transaction:
                raise
            job.error = error
            db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")


def _put_file(db: sqlite3.Connection, record: FileRecord) -> tuple[int, int]:
    """Returns the rows of its package and of itself."""
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
        ),
    ).fetchall()
    db.execute("DELETE FROM missing WHERE repository = ? AND path = ?", (record.repository, record.path))
    return package, file


def _digest(text: str) -> Digest:
    """A digest that was checked before it was put."""
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value)


_TABLE: dict[int, type[Problem]] = {sqlite3.SQLITE_FULL: StorageFull}


def _as_problem(error: sqlite3.Error) -> Problem:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary one (sqlite.org/rescode.html)
    return _TABLE.get(code, Problem)(f"the catalog cannot be used: {error}")
