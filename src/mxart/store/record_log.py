"""Records for ever, hashed as a Merkle tree (RFC 6962 section 2.1): an append-only log in a file of SQLite.

Theory of operation
-------------------
A record gets the next number, and its name is taken from then on; nothing is ever changed or deleted, which the file's
own triggers see to.  Whoever appends, in whichever process, does so in a transaction that holds SQLite's lock of
writers: so they come one after the other, and each sees what the tree was.  With a record come the nodes of the tree
that it completes, one on the average; the node (level, n) is the hash over the 2**level records from n * 2**level on,
and never changes either.  So a tree of any size that ever was can be hashed from what is here, and is the beginning of
every later one.

A record is on disk when `append` returns; what waits meanwhile shares the next transaction, and its sync.  Killed
before, it is not there, or nobody knows yet that it is, and it is found when it is appended again.

The log has a file of its own: it must outlive a catalog that is made anew.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from msgspec import Struct

from mxart import database
from mxart.errors import Problem, StorageFull, UpstreamUnavailable

_MIGRATIONS = (
    """
    CREATE TABLE records (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        text BLOB NOT NULL,
        origin TEXT NOT NULL,
        added REAL NOT NULL
    ) STRICT;
    CREATE TABLE nodes (
        level INTEGER NOT NULL,
        n INTEGER NOT NULL,
        hash BLOB NOT NULL,
        PRIMARY KEY (level, n)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER records_follow BEFORE INSERT ON records
    WHEN new.number <> (SELECT coalesce(max(number) + 1, 0) FROM records) BEGIN
        SELECT RAISE(ABORT, 'a record has the next number');
    END;
    CREATE TRIGGER records_stay BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
    CREATE TRIGGER records_last BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
    CREATE TRIGGER nodes_stay BEFORE DELETE ON nodes BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
    CREATE TRIGGER nodes_last BEFORE UPDATE ON nodes BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
    """,
    # Who has been found to have the very same: `origin` of a record is the first of them.
    """
    CREATE TABLE origins (
        number INTEGER NOT NULL REFERENCES records,
        origin TEXT NOT NULL,
        PRIMARY KEY (number, origin)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO origins (number, origin) SELECT number, origin FROM records;
    """,
)
_SCHEMA = database.Schema(
    application_id=0x4D58534C,  # "MXSL"
    migrations=_MIGRATIONS,
    called="this log of checksums",
    remedy="restore it from a backup, or move it away and choose another name for it: [go] sumdb_name",
)
_SIZE = "SELECT coalesce(max(number) + 1, 0) FROM records"
_FIND = "SELECT number, text FROM records WHERE name = ?"
_ORIGINS = "SELECT origin FROM origins WHERE number = ?"
_PUT_ORIGIN = "INSERT INTO origins (number, origin) VALUES (?, ?) ON CONFLICT DO NOTHING"
_NODE = "SELECT hash FROM nodes WHERE level = ? AND n = ?"
_ROW = "SELECT hash FROM nodes WHERE level = ? AND n >= ? AND n < ? ORDER BY n"
_TOGETHER = 500  # records in one transaction

Node = tuple[int, int]


class Entry(Struct, frozen=True):
    """What is to be recorded: under which name, and where it came from (a repository). `added`: Unix time."""

    name: str
    text: bytes
    origin: str
    added: float


class Recorded(Struct, frozen=True):
    """What is recorded under a name. `origins` are all that have had the very same, those that are gone too."""

    number: int
    text: bytes
    origins: frozenset[str]


class LogBroken(Problem):
    """What is in the file is not what was written there; the text says where."""


class _Job:
    """A record that waits for its transaction."""

    __slots__ = ("entry", "error", "result")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.error: Exception | None = None
        self.result: Recorded | None = None


class RecordLog:
    """The log, as one process has it. `leaf` hashes a record, `node` what is above two hashes.

    Reading takes microseconds, on the event loop.  Raises as Catalog does: StorageFull, UpstreamUnavailable where other
    processes write for too long, else Problem.
    """

    def __init__(
        self,
        path: Path,
        leaf: Callable[[bytes], bytes],
        node: Callable[[bytes, bytes], bytes],
        busy_seconds: float = 10.0,
    ) -> None:
        """Open it, making it if need be. Raises ConfigError."""
        database.prepare(path, _SCHEMA)
        self._reader = database.connect(path, _SCHEMA)
        self._writer = database.connect(path, _SCHEMA, busy_seconds)
        self._leaf = leaf
        self._node = node
        self._turn = trio.Lock()
        self._jobs: deque[_Job] = deque()  # filled by the loop, emptied by the writing thread

    def size(self) -> int:
        """How many records there are."""
        return int(self._ask(_SIZE, ())[0][0])

    def find(self, name: str) -> Recorded | None:
        """What is recorded under a name."""
        for number, text in self._ask(_FIND, (name,)):
            return Recorded(number, text, frozenset(origin for (origin,) in self._ask(_ORIGINS, (number,))))
        return None

    def nodes(self, wanted: Sequence[Node]) -> list[bytes]:
        """The hashes of nodes that the tree has. Raises LogBroken for one that is not there."""
        found: list[bytes] = []
        for level, n in wanted:
            rows = self._ask(_NODE, (level, n))
            if not rows:
                raise LogBroken(f"the log of checksums has no node {n} at level {level}")
            found.append(rows[0][0])
        return found

    def row(self, level: int, begin: int, count: int) -> list[bytes]:
        """Neighbours of one level, as many of them as there are."""
        return [hash_ for (hash_,) in self._ask(_ROW, (level, begin, begin + count))]

    async def append(self, entry: Entry) -> Recorded:
        """Record it, durably when this returns, unless something is recorded under its name: then that is returned.

        If that is the very same, the entry's origin is added to its origins.  Cancelled, it is recorded or not.
        """
        job = _Job(entry)
        self._jobs.append(job)
        try:
            async with self._turn:
                if job.result is None and job.error is None:
                    # Not abandoned when cancelled: the thread commits, or has not begun.
                    await trio.to_thread.run_sync(self._transact)
        finally:
            with suppress(ValueError):  # a thread takes it in this very moment, or has
                self._jobs.remove(job)  # cancelled before
        if isinstance(job.error, sqlite3.Error):
            raise _as_problem(job.error) from job.error
        if job.error is not None:
            raise job.error
        assert job.result is not None, "the thread has seen to it"
        return job.result

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._reader.close()
        self._writer.close()

    def audit(self) -> int:
        """Hash every record anew, and compare all nodes: how many records there are. Seconds for each million.

        Raises LogBroken, sqlite3.Error.
        """
        db = self._reader
        db.execute("BEGIN")
        try:
            count = 0
            peaks: list[bytes] = []
            for number, text in db.execute("SELECT number, text FROM records ORDER BY number"):
                if number != count:
                    raise LogBroken(f"record {count} is missing")
                for level, n, hash_ in self._completed(count, text, lambda level, n: peaks.pop()):
                    rows = db.execute(_NODE, (level, n)).fetchall()
                    if rows != [(hash_,)]:
                        raise LogBroken(f"node {n} at level {level}, above record {number}, has another hash")
                peaks.append(hash_)
                count += 1
            ((nodes,),) = db.execute("SELECT count(*) FROM nodes").fetchall()
            if nodes != 2 * count - count.bit_count():
                raise LogBroken(f"{nodes} nodes are there; {count} records have {2 * count - count.bit_count()}")
            return count
        finally:
            db.execute("ROLLBACK")

    def _transact(self) -> None:
        """In a thread: whatever waits by now, in one transaction."""
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < _TOGETHER:
            jobs.append(self._jobs.popleft())
        db = self._writer
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [self._append(db, job.entry) for job in jobs]
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # nothing of it is on disk, and each is told so
            if db.in_transaction:
                db.execute("ROLLBACK")
            for job in jobs:
                job.error = error
        else:
            for job, result in zip(jobs, results, strict=True):
                job.result = result

    def _append(self, db: sqlite3.Connection, entry: Entry) -> Recorded:
        for number, text in db.execute(_FIND, (entry.name,)).fetchall():
            if text == entry.text:
                db.execute(_PUT_ORIGIN, (number, entry.origin))
            origins = db.execute(_ORIGINS, (number,)).fetchall()
            return Recorded(number, text, frozenset(origin for (origin,) in origins))
        ((number,),) = db.execute(_SIZE).fetchall()
        db.execute(
            "INSERT INTO records (number, name, text, origin, added) VALUES (?, ?, ?, ?, ?)",
            (number, entry.name, entry.text, entry.origin, entry.added),
        )
        db.execute(_PUT_ORIGIN, (number, entry.origin))

        def at(level: int, n: int) -> bytes:
            ((hash_,),) = db.execute(_NODE, (level, n)).fetchall()
            return bytes(hash_)

        made = self._completed(number, entry.text, at)
        db.executemany("INSERT INTO nodes (level, n, hash) VALUES (?, ?, ?)", made)
        return Recorded(number, entry.text, frozenset((entry.origin,)))

    def _completed(self, number: int, text: bytes, at: Callable[[int, int], bytes]) -> list[tuple[int, int, bytes]]:
        """The nodes that a record completes, from its own up; `at` tells the hashes to the left of them."""
        level, n, hash_ = 0, number, self._leaf(text)
        found = [(level, n, hash_)]
        while n & 1:
            hash_ = self._node(at(level, n - 1), hash_)
            level, n = level + 1, n >> 1
            found.append((level, n, hash_))
        return found

    def _ask(self, statement: str, values: tuple[str | int, ...]) -> list[Any]:  # sqlite3's rows are untyped
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _as_problem(error) from error


_TABLE: dict[int, type[Problem]] = {sqlite3.SQLITE_FULL: StorageFull}


def _as_problem(error: sqlite3.Error) -> Problem:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary one (sqlite.org/rescode.html)
    if code == sqlite3.SQLITE_BUSY:
        return UpstreamUnavailable("the log of checksums is busy: others write to it for long", retry_after=2.0)
    return _TABLE.get(code, Problem)(f"the log of checksums cannot be used: {error}")
