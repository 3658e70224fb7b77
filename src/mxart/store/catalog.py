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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio

from mxart.errors import Problem, StorageFull, UpstreamUnavailable
from mxart.store.base import FileRecord, VersionRecord
from mxart.store.generation import Generation
from mxart.store.rows import RECORDS, as_digest, as_record, forget_empty, put_file, put_tag, put_use
from mxart.store.schema import connect, prepare

_FILE = f"{RECORDS} WHERE r.name = ? AND f.path = ?"
_UNLINKED = f"""
    {RECORDS}
    WHERE f.id > ? AND f.id <= ? AND r.name = ? AND NOT EXISTS (
        SELECT 1 FROM files o CROSS JOIN links l ON l.file = o.id
        WHERE o.package = f.package AND o.digest = f.digest)"""  # noqa: S608  # of our own words
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
_PUT_MISSING = """
    INSERT INTO missing (repository, path, until) VALUES (?, ?, ?)
    ON CONFLICT (repository, path) DO UPDATE SET until = excluded.until"""

_TOGETHER = 500  # writes in one transaction

_T = TypeVar("_T")


class _Job(Generic[_T]):
    """A write that waits for its transaction."""

    __slots__ = ("done", "error", "result", "tell", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], _T], tell: bool) -> None:
        self.work = work
        self.tell = tell
        self.done = False
        self.error: Exception | None = None
        self.result: list[_T] = []

    def attempt(self, db: sqlite3.Connection) -> None:
        self.result[:] = (self.work(db),)


class SqliteCatalog:
    """`Catalog` in one file (store.base). One per worker, opened after fork; close it with `aclose`.

    Every read raises a Problem if the database cannot be read, every write if it was not written:
    StorageFull where the disk is full, UpstreamUnavailable where other processes write for too long.
    """

    def __init__(self, path: Path, generation: Generation | None = None, busy_seconds: float = 10.0) -> None:
        """Open it, making it or bringing it up to date. Raises ConfigError.

        A write waits for other processes for `busy_seconds`.
        """
        prepare(path)
        self._reader = connect(path)
        self._writer = connect(path, busy_seconds)
        self._generation = generation
        self._turn = trio.Lock()
        self._jobs: deque[_Job[Any]] = deque()  # filled by the loop, emptied by the writing thread
        self._uses: dict[tuple[str, str], float] = {}
        if generation is not None:
            # The last process in this slot may have died between a commit and saying so.
            generation.bump()
        self._heard = (self._data_version(), generation.value() if generation is not None else 0)

    # Reading

    def generation(self) -> int:
        return self._data_version() if self._generation is None else self._generation.value()

    def overhear(self) -> None:
        """Say for others that something has changed, if they have not: a process may be killed before it comes to that.

        To be called now and then; tens of microseconds.
        """
        if self._generation is None:
            return
        heard = (self._data_version(), self._generation.value())
        if heard[0] != self._heard[0] and heard[1] == self._heard[1]:
            self._generation.bump()
        self._heard = (heard[0], self._generation.value())

    def _data_version(self) -> int:
        # Changes when any other connection commits, our own writer's too (sqlite.org/pragma.html#pragma_data_version).
        (version,) = self.ask("PRAGMA data_version", ())[0]
        return int(version)

    def file(self, repository: str, path: str) -> FileRecord | None:
        rows = self.ask(_FILE, (repository, path))
        return as_record(rows[0]) if rows else None

    def unlinked(self, repository: str, after: int) -> tuple[int | None, list[FileRecord]]:
        """Files of which no links are known, among some hundred rows after a number.

        Returns the number to go on with, None at the end.
        """
        ((last,),) = self.ask("SELECT max(id) FROM (SELECT id FROM files WHERE id > ? ORDER BY id LIMIT 300)", (after,))
        if last is None:
            return None, []
        return last, [as_record(row) for row in self.ask(_UNLINKED, (after, last, repository))]

    def tags(self, repository: str, package: str, after: str, limit: int) -> list[VersionRecord]:
        rows: list[tuple[str, str, float]] = self.ask(_TAGS, (repository, package, after, limit))
        return [VersionRecord(name, as_digest(digest), created) for name, digest, created in rows]

    def has_package(self, repository: str, package: str) -> bool:
        return bool(self.ask(_HAS_PACKAGE, (repository, package)))

    def packages(self, repository: str, after: str, limit: int) -> list[str]:
        rows: list[tuple[str]] = self.ask(_PACKAGES, (repository, after, limit))
        return [name for (name,) in rows]

    def missing(self, repository: str, path: str, now: float) -> bool:
        return bool(self.ask(_MISSING, (repository, path, now)))

    def last_use(self, repository: str, path: str) -> float | None:
        """When a file was last used, in seconds since the epoch; None: never since it was put, or not written yet."""
        pending = self._uses.get((repository, path))
        rows: list[tuple[float]] = self.ask(
            "SELECT u.last FROM uses u JOIN files f ON f.id = u.file JOIN repositories r ON r.id = f.repository"
            " WHERE r.name = ? AND f.path = ?",
            (repository, path),
        )
        return max([last for (last,) in rows] + ([pending] if pending is not None else []), default=None)

    def held(self, repository: str) -> tuple[int, int]:
        """How many distinct files a repository holds, and how many bytes of them."""
        rows: list[tuple[int, int]] = self.ask(
            "SELECT u.files, u.bytes FROM usage u JOIN repositories r ON r.id = u.repository WHERE r.name = ?",
            (repository,),
        )
        return rows[0] if rows else (0, 0)

    def ask(self, statement: str, values: tuple[str | float, ...]) -> list[Any]:  # sqlite3's rows are untyped
        """The rows that a statement finds: for the other roles of the catalog (module publications)."""
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _as_problem(error) from error

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """All that is asked within is answered as of the same moment. Nothing may be awaited within."""
        try:
            self._reader.execute("BEGIN")
        except sqlite3.Error as error:
            raise _as_problem(error) from error
        try:
            yield
        finally:
            self._reader.execute("ROLLBACK")

    # Writing

    async def put_file(self, record: FileRecord) -> None:
        await self.write(lambda db: put_file(db, record))

    async def forget_file(self, repository: str, path: str) -> None:
        def forget(db: sqlite3.Connection) -> None:
            rows = db.execute(
                "DELETE FROM files WHERE repository = (SELECT id FROM repositories WHERE name = ?) AND path = ?"
                " RETURNING package",
                (repository, path),
            ).fetchall()
            for (owner,) in rows:
                forget_empty(db, owner)

        await self.write(forget)

    async def put_tag(self, repository: str, package: str, tag: str, record: FileRecord) -> None:
        if (record.repository, record.package) != (repository, package):
            raise ValueError(f"a tag of {repository} {package} cannot name a file of another package")

        def put(db: sqlite3.Connection) -> None:
            put_tag(db, tag, record)

        await self.write(put)

    async def put_missing(self, repository: str, path: str, until: float) -> None:
        await self.write(lambda db: db.execute(_PUT_MISSING, (repository, path, until)))

    def used(self, repository: str, path: str, now: float) -> None:
        self._uses[repository, path] = now

    async def flush(self, now: float) -> None:
        """Write the uses noted so far, and drop what is no longer missing."""
        uses, self._uses = self._uses, {}

        def write(db: sqlite3.Connection) -> None:
            for (repository, path), last in uses.items():
                put_use(db, repository, path, last)
            db.execute("DELETE FROM missing WHERE until <= ?", (now,))

        await self.write(write, tell=False)

    async def forget_held(self, before: float) -> int:
        """Forget what was sent before a time to be held (store.changes) and of which the end never came.

        Returns how many files that were; their bytes are swept.
        """
        held = "r.name GLOB '*[+]*'"
        if not self.ask(f"SELECT 1 FROM repositories r WHERE {held} LIMIT 1", ()):  # noqa: S608  # of our own words
            return 0

        def forget(db: sqlite3.Connection) -> int:
            mine = f"SELECT r.id FROM repositories r WHERE {held}"  # noqa: S608  # as above
            gone = db.execute(
                f"DELETE FROM files WHERE created < ? AND repository IN ({mine}) RETURNING package",  # noqa: S608
                (before,),
            ).fetchall()
            for owner in {package for (package,) in gone}:
                forget_empty(db, owner)
            # With them goes what was noted of builds that will never be.
            db.execute(
                f"DELETE FROM repositories WHERE id IN ({mine}) AND id NOT IN (SELECT repository FROM files)"  # noqa: S608
            )
            return len(gone)

        return await self.write(forget, tell=False)

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

    async def write(self, work: Callable[[sqlite3.Connection], _T], *, tell: bool = True) -> _T:
        """Do some work in a transaction, and return what it returns once that is durable.

        It runs in a thread; what it raises takes back what it did, and is raised here.
        `tell`: the generation moves.
        """
        job = _Job(work, tell)
        self._jobs.append(job)
        try:
            async with self._turn:
                if not job.done:
                    # Not abandoned when cancelled: the thread commits, or has not begun.
                    await trio.to_thread.run_sync(self._transact)
        finally:
            with suppress(ValueError):  # a thread takes it in this very moment, or has
                self._jobs.remove(job)  # cancelled before
        if isinstance(job.error, sqlite3.Error):
            raise _as_problem(job.error) from job.error
        if job.error is not None:
            raise job.error
        (result,) = job.result
        return result

    def _transact(self) -> None:
        """In a thread: whatever waits to be written by now, as one transaction and with one sync."""
        jobs: list[_Job[Any]] = []
        while self._jobs and len(jobs) < _TOGETHER:
            jobs.append(self._jobs.popleft())
        db = self._writer
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # nothing of it is on disk, and each is told so
            if db.in_transaction:
                db.execute("ROLLBACK")
            for job in jobs:
                job.error = error
        if self._generation is not None and any(job.tell and job.error is None for job in jobs):
            self._generation.bump()
        for job in jobs:
            job.done = True

    def _attempt(self, job: _Job[Any]) -> None:
        """One of several writes: it fails alone, unless SQLite has given up the whole transaction."""
        db = self._writer
        db.execute("SAVEPOINT job")
        try:
            job.attempt(db)
        except Exception as error:  # a fault of the program, too, is this one's own, and the others are written
            if not db.in_transaction:
                raise
            job.error = error
            db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")


_TABLE: dict[int, type[Problem]] = {sqlite3.SQLITE_FULL: StorageFull}


def _as_problem(error: sqlite3.Error) -> Problem:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary one (sqlite.org/rescode.html)
    if code == sqlite3.SQLITE_BUSY:
        return UpstreamUnavailable("the catalog is busy: others write to it for long", retry_after=2.0)
    return _TABLE.get(code, Problem)(f"the catalog cannot be used: {error}")
