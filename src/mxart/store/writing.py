"""The writing side of a download: takes what the origin delivers, stores it, hashes it, judges it.

The origin calls `Writing.write`, which only queues (up to `_QUEUE` bytes, then the origin waits).  One
task takes the queue whole and hands it to a worker thread, which writes it, publishes the new
watermark to the loop at once, and then hashes it; meanwhile the loop fills the next queue and the
readers send.  So receiving, sending and hashing overlap on two cores, and a slow disk never holds the
loop.  The very first piece is written without a thread; after a pause bytes go at once,
those of a fast stream in batches.

An origin that has a tap instead, and much to give, calls `Writing.draw`: then a thread receives, too
(module recording).

Every end of it::

    origin returns, judged right              readers released, then fsync and rename: stored
    ... disk was full                         readers released, nothing stored
    origin returns, anything wrong            readers cut, partial file removed
    ... nobody can tell now                   readers cut, partial file kept to be judged again
    bytes past the end, another total         the same
    origin raises                             readers cut (or told, before the head); partial file kept to be resumed
    upstream has another file than before     begun again if nobody was told anything; else readers cut, file removed
    disk full and nobody reads any more       stopped, partial file removed
    cancelled (shutdown)                      as if the origin had raised
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

import trio

from mxart.digest import Digest
from mxart.errors import Problem, StorageFull, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers, Tap
from mxart.store.download import Download
from mxart.store.files import WriteAt, rest_of
from mxart.store.judging import UNTOLD, verdict
from mxart.store.keeping import Keeping
from mxart.store.notes import Note
from mxart.store.paths import StorePaths
from mxart.store.recording import Recorder

log = logging.getLogger(__name__)

_QUEUE = 2 * 1024 * 1024  # bytes that may wait to be written
_BATCH = 512 * 1024  # worth a visit to a thread at once (which costs as much as hashing 64 KiB) ...
_PATIENCE = 0.002  # ... while less than that waits until the last visit is so many seconds ago
_FIRST = 256 * 1024  # written and hashed within a third of a millisecond
_COURTESY = 8  # rounds of the scheduler that a woken reader needs until its first byte is out
_CHUNKS = 1024  # and pieces, so that a flood of tiny ones stays small
_REHASH = 64 * 1024 * 1024  # read back in one visit to a thread


class Writing:
    """`store.base.Sink`, and the task that drives it. The caller holds the lock on the partial file, if there is one.

    `stored` as in Keeping.
    """

    def __init__(
        self, download: Download, paths: StorePaths, write_at: WriteAt, threads: trio.CapacityLimiter, *, stored: bool
    ) -> None:
        self._download = download
        self._file = download.file
        self._keeping = Keeping(download, paths, stored=stored)
        self._threads = threads
        self._queue: list[bytes] = []
        self._queued = 0
        self._offset = self._file.written  # what the origin has delivered, queued or written
        self._found = self._offset  # what an earlier process has left
        self._rehashed = False
        self._resting = False  # the storing task waits for the queue to fill
        self._hurry = False  # somebody waits for the queue to be empty
        self._ended = False  # the origin will deliver nothing more
        self._wrong: str | None = None  # why the bytes can never be right, whatever the origin says
        self._full: str | None = None  # why they can be judged by nobody, though they may be right
        self._changed = False  # upstream has another file than the one that is there in part
        self._work = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()
        tell = partial(trio.lowlevel.current_trio_token().run_sync_soon, self._advance, idempotent=True)
        self._recorder = Recorder(download.promise.hasher(), write_at, tell, self._offset)

    # Sink

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def headers(self) -> Headers | None:
        return self._download.notes.headers

    def begin(self, total: int | None, headers: Headers) -> None:
        download = self._download
        notes = download.notes
        self._confirm(total, headers)
        known = self._download.size if notes.total is None else notes.total
        if total is not None and known is not None and total != known:
            self._wrong = f"upstream now speaks of {total} bytes, before it was {known}"
        elif total is not None and total < self._offset:
            self._wrong = f"upstream now speaks of {total} bytes, and {self._offset} are there"
        elif total == 0 and not download.promise.may_be_empty:
            self._wrong = "upstream sends nothing at all, which has another digest"
        else:
            self._wrong = None
        if self._wrong is not None:
            raise self._failed(self._wrong)
        total = known if total is None else total
        if notes.headers is None or notes.total != total:
            note = Note(total=total, headers=headers.items)
            notes.take(note)
            self._keeping.note(note)
            if self._offset:
                self._keeping.tell()
            self._work.unpark_all()
        self._download.begin(total, headers)

    def _confirm(self, total: int | None, headers: Headers) -> None:
        """Raise UpstreamFailed unless upstream goes on with the file whose first bytes are there.

        They stay what they are: who has read some of them must not be given the rest of another file.
        """
        known = self._download.notes.headers
        # Where all are there, an origin repeats what is known, without a question to upstream.
        repeated = (total, headers) == (self._offset, known)
        if self._offset and not repeated and not self._download.promise.same(known, headers):
            self._changed = True
            raise self._failed("upstream does not say that it still has the file whose first bytes are here")
        self._file.release()

    async def write(self, chunk: bytes) -> None:
        if not self._download.begun:
            raise RuntimeError("an origin calls begin before write")
        total = self._file.total
        if total is not None and self._offset + len(chunk) > total:
            self._wrong = f"upstream sent more than the {total} bytes it spoke of"
            raise self._failed(self._wrong)
        self._offset += len(chunk)
        if self._keeping.stored and self._file.written == 0 and not self._queue:
            chunk = self._write_first(chunk)
            if self._offset != total:
                await _give_way()  # it is sent now, not after the next pieces were received
        if not chunk:
            return
        first = not self._queue
        self._queue.append(chunk)
        self._queued += len(chunk)
        if first or self._queued >= _BATCH or len(self._queue) >= _CHUNKS:
            self._work.unpark_all()
        while self._queued >= _QUEUE or len(self._queue) >= _CHUNKS:
            await self._space.park()

    def _write_first(self, chunk: bytes) -> bytes:
        """Write the first piece at once: somebody is waiting for its first byte. Returns what is left to be queued.

        Where that fails, the ordinary way tries again, and tells.
        """
        assert self._file.disk is not None
        piece = chunk[:_FIRST]
        written, _ = self._recorder.record(self._file.disk, [piece])
        self._advance()
        return chunk[written:]

    async def draw(self, tap: Tap) -> None:
        total = self._file.total
        if total is None or not self._keeping.stored:
            return
        self._hurry = True
        self._work.unpark_all()
        try:
            while self._queue or not self._resting:
                await self._space.park()
        finally:
            self._hurry = False
        more = True
        while more and self._keeping.stored and self._offset < total:
            assert self._file.disk is not None
            # Not abandoned when cancelled: the descriptor stays in use until the thread is back, which is soon.
            drawn = await trio.to_thread.run_sync(
                self._recorder.draw, self._file.disk, tap, total, limiter=self._threads
            )
            more = drawn.more
            self._advance()
            self._offset = self._file.written
            if drawn.error is not None:
                self._lose_disk(drawn.error)
                self._offset += len(drawn.rest)
                self._queue.append(drawn.rest)
                self._queued += len(drawn.rest)
                self._work.unpark_all()

    def _advance(self) -> None:
        self._file.advance(self._recorder.end)

    def _failed(self, why: str) -> UpstreamFailed:
        return UpstreamFailed(f"{self._download.label}: {why}", subject=self._download.promise.subject)

    # The task

    async def run(self) -> bool:
        """Bring the download to one of its ends. Raises nothing but cancellation.

        Returns whether it is to be begun again from the first byte, with a new file: that is up to the caller, who
        still has the lock.
        """
        started = time.monotonic()
        problem: Problem | None = None
        keep = True
        try:
            problem = await self._fetch()
            if self._changed:
                if self._keeping.stored and not self._download.told:
                    return True
                problem = self._broken(self._failed("upstream has another file by now"))
            elif problem is None:
                problem = await self._judge(started)
        except Exception as error:
            # One download ends, never the server.
            log.exception("%s: storing it failed in an unforeseen way", self._download.label)
            problem = Problem(f"{self._download.label}: {type(error).__name__} while storing it")
        finally:
            # Also when cancelled: no awaits from here on.
            again = self._changed and self._wrong is None
            if not self._file.verified and not again:
                problem = problem or self._download.problem
                problem = problem or UpstreamUnavailable("the server is shutting down", retry_after=5.0)
                keep = keep and self._wrong is None and self._file.written > 0
                self._download.fail(problem)
                log.log(
                    logging.WARNING if self._download.begun else logging.INFO,
                    "%s: download ended at %d of %s bytes: %s; partial file %s",
                    self._download.label,
                    self._file.written,
                    self._file.total,
                    problem.message,
                    "kept" if keep and self._keeping.stored else "removed",
                )
            if not again:
                self._keeping.leave(keep)
        return False

    async def _fetch(self) -> Problem | None:
        """Run origin and storing side by side until one of them ends. Returns what went wrong, if that is known."""
        problem: Problem | None = None
        stopped = True  # until shown otherwise: by the storing task, which found that it is pointless to go on
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store, nursery.cancel_scope)
            if self._file.total is None or self._file.written < self._file.total:
                try:
                    await self._download.origin(self)
                except Problem as error:
                    problem = error
                except Exception as error:
                    log.exception("%s: the origin failed in an unforeseen way", self._download.label)
                    problem = UpstreamFailed(f"{self._download.label}: {type(error).__name__}: {error}")
            self._ended = True
            self._work.unpark_all()
            if problem is not None and not (self._keeping.stored and self._rehashed):
                nursery.cancel_scope.cancel()  # else what has been delivered is written, to be resumed from there
            stopped = False
        if self._full is not None:
            problem = StorageFull(f"{self._download.label}: {self._full}", subject=self._download.promise.subject)
        if problem is None and (stopped or self._wrong is not None):
            problem = self._failed(self._wrong or "nobody reads it any more")
        return problem

    async def _store(self, scope: trio.CancelScope) -> None:
        """Write and hash what is queued, until the origin has ended and all is done."""
        try:
            await self._rehash()
            patience = trio.current_time()
            while True:
                while not self._queue:
                    if self._ended:
                        return
                    if self._keeping.untold:
                        # A file takes half a millisecond to make. First the reader of this process has its first byte.
                        await _give_way(lambda: self._ended)
                        if not self._ended:
                            self._keeping.tell()
                        continue
                    self._resting = True
                    self._space.unpark_all()
                    await self._work.park()
                self._resting = False
                with trio.move_on_at(patience):
                    while not (self._queued >= _BATCH or len(self._queue) >= _CHUNKS or self._ended or self._hurry):
                        await self._work.park()
                chunks, self._queue, self._queued = self._queue, [], 0
                self._space.unpark_all()
                if self._keeping.stored:
                    await self._onto_disk(chunks)
                else:
                    await self._into_memory(chunks)
                patience = trio.current_time() + _PATIENCE
        except (OSError, _NobodyReads) as error:
            self._wrong = f"it can be neither stored nor passed on: {error}"
            scope.cancel()

    async def _rehash(self) -> None:
        """Take what an earlier process left behind into the hash."""
        done, end = 0, self._found
        while done < end:
            goal = min(end, done + _REHASH)
            assert self._file.disk is not None
            await trio.to_thread.run_sync(self._recorder.read_back, self._file.disk, done, goal, limiter=self._threads)
            done = goal
        self._rehashed = True

    async def _onto_disk(self, chunks: list[bytes]) -> None:
        # Not abandoned when cancelled: the descriptor stays in use until the thread is back.
        assert self._file.disk is not None
        written, error = await trio.to_thread.run_sync(
            self._recorder.record, self._file.disk, chunks, limiter=self._threads
        )
        self._advance()
        if error is not None:
            self._lose_disk(error)
            await self._into_memory(rest_of(chunks, written))

    def _lose_disk(self, error: OSError) -> None:
        log.error(
            "%s: cannot be stored: %s; it goes on from memory to those who read it, and is not kept",
            self._download.label,
            error.strerror or error,
        )
        self._keeping.forsake()

    async def _into_memory(self, chunks: list[bytes]) -> None:
        """Past the end of the disk: no further ahead of the slowest reader than the window. Raises _NobodyReads."""
        memory = self._file.spill()
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                while (room := self._file.room()) == 0:
                    self._check_readers()
                    if self._file.entire:
                        self._full = "the disk is full, and too much of it is still to come to be judged in memory"
                        raise _NobodyReads(self._full)
                    await self._file.moved()
                self._check_readers()
                count = os.pwrite(memory, view[:room], self._file.written)
                self._file.advance(self._file.written + count)
                view = view[count:]
            self._recorder.add(chunk)
        await trio.lowlevel.checkpoint()

    def _check_readers(self) -> None:
        if self._file.readers == 0:
            raise _NobodyReads("the disk is full and nobody reads it any more")

    async def _judge(self, started: float) -> Problem | None:
        """The origin has delivered all it has: if it is right, store it."""
        download, file = self._download, self._file
        total = file.written if file.total is None else file.total
        digest = Digest(download.promise.algorithm, self._recorder.hexdigest())
        if file.written != total:
            return self._broken(self._failed(f"upstream sent {file.written} of {total} bytes"))
        problem = await verdict(download, digest)
        if problem is not None:
            return problem if isinstance(problem, UNTOLD) else self._broken(problem)
        download.finish(digest)
        self._keeping.tell(Note(verified=True, digest=str(digest)))
        if not self._keeping.stored:
            return None
        # Readers have everything now; what follows keeps nobody waiting.
        try:
            await self._keeping.commit(digest, self._threads)
        except (OSError, Problem) as error:
            log.warning("%s: verified, but cannot be stored: %s", download.label, error)
            self._keeping.forsake()
            return None
        log.info("%s: stored, %d bytes in %.3f s", download.label, file.written, time.monotonic() - started)
        return None

    def _broken(self, problem: Problem) -> Problem:
        """The bytes are wrong: every process says so, and they go."""
        self._wrong = problem.message
        if not self._keeping.untold:  # who has been told nothing finds the file gone, and starts again
            self._keeping.tell(Note(broken=problem.message))
        self._download.fail(problem)
        return problem


async def _give_way(enough: Callable[[], bool] = lambda: False) -> None:
    for _ in range(_COURTESY):
        if enough():
            return
        await trio.lowlevel.checkpoint()


class _NobodyReads(Exception):
    """What is in memory is for nobody."""
