"""An upload that is open: bytes go in, and it becomes a blob or is given up.

Theory of operation
-------------------
Bytes come to the disk in one of three ways.  What is small (most files that are pushed are a few kilobytes) stays in
memory until the commit, or until the upload is left: that is one visit to a thread for a whole file.  What is
large is drawn by a thread from the body's tap, where it has one (module uploads_file).  Otherwise the loop receives
batches, and while a thread writes and hashes one, the next is received.

Threads are never abandoned: a cancelled task waits until its thread is back, so the descriptors stay good, and what
was written is counted.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import trio
from msgspec import Struct, field

from mxart.digest import Digest
from mxart.errors import Disconnected, Problem, TooLarge
from mxart.message import Headers, RequestBody, Tap, TappedBody
from mxart.store.base import DigestMismatch, Judged, Unjudged, UploadState, UploadUnknown
from mxart.store.files import as_problem, place, remove
from mxart.store.hash_state import new_hash
from mxart.store.paths import StorePaths
from mxart.store.uploads_file import UploadFile
from mxart.store.uploads_hashing import PIECE

log = logging.getLogger(__name__)

_SMALL = 64 * 1024  # bytes that may wait in memory
_READ_BACK = 64 * 1024 * 1024  # bytes read in one visit to a thread
_ENDLESS = 1 << 62  # bytes


class Threads:
    """How many threads of a worker may be at the uploads of one store."""

    def __init__(self) -> None:
        self.writing = trio.CapacityLimiter(8)  # a stretch each, then the next one's turn; a slow disk slows them
        self.syncing = trio.CapacityLimiter(8)  # these wait for the disk
        self.reviewing = trio.CapacityLimiter(2)  # these are busy, perhaps for seconds
        self.naming = trio.CapacityLimiter(8)  # these are quick, and are not to stand behind the others


class _Batch(Struct):
    """What was received together."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    more: bool = True  # something may follow
    failure: Problem | Disconnected | None = None  # why nothing will


class DiskUpload:
    """`Upload` (store.base). `retire` is called, in a thread, to take the state away."""

    def __init__(
        self,
        state: UploadState,
        paths: StorePaths,
        file: UploadFile,
        threads: Threads,
        retire: Callable[[str], None],
    ) -> None:
        self.state = state
        self._paths = paths
        self._file = file
        self._threads = threads
        self._retire = retire
        self._held: list[bytes] = []  # received, and not written yet
        self._gone = False

    async def catch_up(self) -> None:
        """Hash what a killed worker had not. Cancelled: it is done by the next one."""
        try:
            while self._file.hashed < self._file.end:
                await trio.to_thread.run_sync(self._file.catch_up, _READ_BACK, limiter=self._threads.writing)
        except OSError as error:
            raise self._problem(error) from error

    # Receiving

    async def receive(self, body: RequestBody, limit: int | None) -> None:
        if self._gone:
            raise UploadUnknown(self.state.id)
        end = _ENDLESS if limit is None else limit
        if body.length is not None and self.state.offset + body.length > end:
            raise _too_large(end)
        if self._held:
            await self._write([])
        batch = await _gather(body, _SMALL, self._file.end, end)
        if batch.more:
            batch = await self._receive_much(body, batch, end)
        self._hold(batch.chunks)
        if batch.failure is not None:
            await self._write([])
            raise batch.failure

    async def _receive_much(self, body: RequestBody, batch: _Batch, end: int) -> _Batch:
        """Returns the last batch, which is not written."""
        if not isinstance(body, TappedBody):
            return await self._stream(body, batch, end)
        while batch.more:
            if (tap := body.tap()) is not None:
                await self._draw(batch.chunks, body, tap, end)
            else:
                await self._write(batch.chunks)
            batch = await _gather(body, PIECE, self._file.end, end)
        return batch

    async def _draw(self, chunks: list[bytes], body: TappedBody, tap: Tap, end: int) -> None:
        """Write chunks and what comes after them without a pause. How it goes on, or ends, is for `receive` to say."""
        more = True
        while more:
            drawn = await trio.to_thread.run_sync(self._file.draw, chunks, tap, end, limiter=self._threads.writing)
            body.drawn(drawn.taken)
            self._written(drawn.error)
            chunks, more = [], drawn.more

    async def _stream(self, body: RequestBody, batch: _Batch, end: int) -> _Batch:
        """Receive a batch while the one before is written. Returns the last one."""
        give, take = trio.open_memory_channel[list[bytes]](0)
        errors: list[Problem] = []

        async def write() -> None:
            with take:
                async for chunks in take:
                    try:
                        await self._write(chunks)
                    except Problem as error:
                        errors.append(error)
                        return

        async with trio.open_nursery() as nursery, give:
            nursery.start_soon(write)
            at = self._file.end
            try:
                while batch.more:
                    await give.send(batch.chunks)
                    at += batch.size
                    batch = await _gather(body, PIECE, at, end)
            except trio.BrokenResourceError:
                pass  # it says why
        if errors:
            raise errors[0]
        return batch

    def _hold(self, chunks: list[bytes]) -> None:
        self._held = chunks
        self.state.offset = self._file.end + sum(map(len, chunks))

    def _write_held(self, more: list[bytes] | None = None) -> OSError | None:
        """In a thread (so a task that is cancelled before it gets one has it still): all of it, and more."""
        chunks, self._held = self._held, []
        return self._file.append(chunks + more if more else chunks)

    async def _write(self, chunks: list[bytes]) -> None:
        """Write what is held, and chunks. Raises a Problem."""
        if self._held or chunks:
            self._written(await trio.to_thread.run_sync(self._write_held, chunks, limiter=self._threads.writing))

    def _written(self, error: OSError | None) -> None:
        self.state.offset = self._file.end
        if error is not None:
            log.warning("upload %s: stopped at %d bytes: %s", self.state.id, self._file.end, error)
            raise self._problem(error) from error

    async def review(self, look: Callable[[Unjudged], Judged]) -> Judged:
        if self._gone:
            raise UploadUnknown(self.state.id)
        await self._write([])
        return await trio.to_thread.run_sync(self._review, look, limiter=self._threads.reviewing)

    def _review(self, look: Callable[[Unjudged], Judged]) -> Judged:
        digest = Digest(self.state.algorithm, self._file.hexdigest())
        with open(self._paths.upload(self.state.id), "rb") as file:
            return look(Unjudged(file, self._file.end, digest, Headers()))

    # Ends

    async def commit(self, digest: Digest) -> int:
        if self._gone:
            raise UploadUnknown(self.state.id)
        found = None if digest.algorithm == self.state.algorithm else await self._hash_again(digest.algorithm)
        started = time.monotonic()
        try:
            found = await trio.to_thread.run_sync(self._commit, digest, found, limiter=self._threads.syncing)
        except OSError as error:
            log.warning("upload %s: %s is not stored: %s", self.state.id, digest, error)
            raise self._problem(error) from error
        finally:
            self.state.offset = self._file.end
        if found != digest.hex:
            raise DigestMismatch(digest, Digest(digest.algorithm, found), self._file.end)
        log.info("%s: pushed, %d bytes, on disk in %.3f s", digest, self._file.end, time.monotonic() - started)
        return self._file.end

    async def _hash_again(self, algorithm: str) -> str:
        """All bytes, in hexadecimal, by an algorithm that was not announced."""
        await self._write([])
        other = new_hash(algorithm)
        done = 0
        try:
            while done < self._file.end:
                done = await trio.to_thread.run_sync(
                    self._file.hash_again, other, done, _READ_BACK, limiter=self._threads.writing
                )
        except OSError as error:
            raise self._problem(error) from error
        return other.hexdigest()

    def _commit(self, digest: Digest, found: str | None) -> str:
        """In a thread: synced first, named afterwards. Returns the digest that was found. Raises OSError."""
        if (error := self._write_held()) is not None:
            raise error
        if found is None:
            found = self._file.hexdigest()
        if found == digest.hex:
            os.utime(self._file.data)  # what is young is not swept before it has a name in the catalog
            self._file.sync()
            place(self._paths.upload(self.state.id), self._paths.blob(digest))
            self._gone = True
            self._retire(self.state.id)
        return found

    async def discard(self) -> None:
        self._held = []
        if not self._gone:
            await trio.to_thread.run_sync(self._remove, limiter=self._threads.naming)

    def _remove(self) -> None:
        self._gone = True
        remove(self._paths.upload(self.state.id))
        self._retire(self.state.id)

    async def put_aside(self, *, quietly: bool = False) -> None:
        """What is in memory goes to disk, for the next one. Raises StorageFull, unless it is to be quiet."""
        if self._gone:
            return
        limiter = self._threads.naming if quietly else self._threads.syncing
        # Shielded: what was received is not lost with a client that has left. It is a small write.
        with trio.CancelScope(shield=quietly):
            error = await trio.to_thread.run_sync(self._put_aside, quietly, limiter=limiter)
        try:
            self._written(error)
        except Problem:
            if not quietly:
                raise

    def _put_aside(self, quietly: bool) -> OSError | None:
        error = self._write_held()
        self._file.checkpoint()
        if error is None and not quietly:
            error = self._file.settle()
        return error

    def _problem(self, error: OSError) -> Problem:
        """What an error is to the client. Where the disk has lost bytes, the upload starts again at 0."""
        if self._file.doubtful:
            try:
                self._file.start_again(self.state.algorithm)
            except OSError:
                self._remove()
            self.state.offset = self._file.end
        return as_problem(error, f"the upload to {self.state.package}")

    def close(self) -> None:
        """Let the next one have it."""
        self._file.close()


async def _gather(body: RequestBody, most: int, at: int, end: int) -> _Batch:
    """Receive until there are `most` bytes, or nothing follows: nothing past the offset `end`, and we are `at` another.

    Cancelled: they are lost.
    """
    batch = _Batch()
    while batch.more and batch.size < most:
        try:
            chunk = await body.receive(most - batch.size)
        except (Problem, Disconnected) as error:
            batch.failure, batch.more = error, False
            break
        if at + batch.size + len(chunk) > end:
            chunk = chunk[: max(0, end - at - batch.size)]
            batch.failure = _too_large(end)
        batch.more = bool(chunk) and batch.failure is None
        if chunk:
            batch.size += len(chunk)
            batch.chunks.append(chunk)
    return batch


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The upload would have more than {limit} bytes, the most that is taken here", subject="upload")
