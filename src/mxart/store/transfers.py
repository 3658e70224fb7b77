"""Downloads under way: one for each digest, or name, whatever the number of requests and worker processes.

`join` finds the digest among the blobs, or among what this process takes part in; else it opens the
partial file and tries its lock.  Whoever gets it writes (module writing), everybody else follows
(module following), and when the writer's process dies one of the followers goes on in its place.
Election and bookkeeping are synchronous, so two callers in one process cannot both begin.

The partial file is locked by its writer from the first byte to the rename that makes it a blob; the
lock is let go only after that, so whoever gets the lock and finds no blob knows that the file is for
him to complete.

Of a download that is known by a name (module promises) nobody is told anything, not even its head, before he may have
the first byte.  So what an earlier process has left, and upstream does not vouch for, is quietly begun again with a new
file under the old name.  Where somebody has been given a part of the old one he is cut: he is never given parts of two.
Its name is recorded elsewhere (Naming) under the same lock, a moment before it is a blob: who gets the lock and finds
neither knows the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from mxart.digest import Digest
from mxart.errors import Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers
from mxart.store.base import Joined, Naming, Origin
from mxart.store.blobs import DiskBlobs
from mxart.store.download import Download
from mxart.store.files import WriteAt, as_problem, remove, write_at
from mxart.store.following import follow
from mxart.store.growing import GrowingFile
from mxart.store.keeping import Keeping
from mxart.store.locks import elect
from mxart.store.notes import Notes
from mxart.store.paths import StorePaths
from mxart.store.promises import ByDigest, ByName, Promise, strong
from mxart.store.writing import Writing

log = logging.getLogger(__name__)

_THREADS = 8
_BEGINNINGS = 4


class DiskTransfers:
    """`Transfers` into the blobs of one store. One per store and worker; `run` owns the tasks."""

    def __init__(self, paths: StorePaths, blobs: DiskBlobs, write: WriteAt = write_at) -> None:
        self._paths = paths
        self._blobs = blobs
        self._write = write
        self._threads = trio.CapacityLimiter(_THREADS)
        self._running: dict[Digest | str, Download] = {}
        self._tasks = 0
        self._idle: list[Callable[[], None]] = []
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the downloads; returns after `stop`. Cancelled: they end where they are, to be resumed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def stop(self, seconds: float) -> None:
        """Begin nothing new, let what runs finish for so many seconds, then end it and `run`. Readers of those are cut.

        Cancelled: ends them at once.
        """
        nursery, self._nursery = self._nursery, None
        try:
            with trio.move_on_after(seconds):
                while self._tasks:
                    done = trio.Event()
                    self._idle.append(done.set)
                    await done.wait()
        finally:
            if nursery is not None:
                nursery.cancel_scope.cancel()

    @property
    def running(self) -> int:
        """How many downloads this process takes part in."""
        return self._tasks

    async def join(self, digest: Digest, size: int | None, origin: Origin) -> Joined:
        return await self._join(digest, ByDigest(digest, self._paths), size, origin)

    async def join_named(self, key: str, origin: Origin, naming: Naming) -> Joined:
        return await self._join(key, ByName(key, naming, self._paths), None, origin)

    async def _join(self, key: Digest | str, promise: Promise, size: int | None, origin: Origin) -> Joined:
        if (stored := self._stored(promise)) is not None:
            return stored
        download = self._running.get(key)
        started = False
        if download is None or not download.file.whole:
            found = self._begin(key, promise, size, origin)
            if not isinstance(found, tuple):
                return found
            download, started = found
        return await download.join(size, started)

    def _stored(self, promise: Promise) -> Joined | None:
        """What is among the blobs."""
        digest = promise.settled()
        source = self._blobs.open(digest) if digest is not None else None
        return None if source is None else Joined(source, Headers(), started=False, digest=digest)

    def _begin(
        self, key: Digest | str, promise: Promise, size: int | None, origin: Origin
    ) -> tuple[Download, bool] | Joined:
        """Start taking part, as the writer (True) or as a follower; or find that it has become a blob just now."""
        if self._nursery is None:
            raise UpstreamUnavailable("the server is shutting down", retry_after=5.0)
        inode = 0
        try:
            disk, won = elect(promise.path)
            inode = os.fstat(disk).st_ino
        except OSError as error:
            problem = as_problem(error, promise.label)
            if isinstance(problem, UpstreamUnavailable):
                raise problem from error
            log.warning("%s: cannot be stored: %s", promise.label, error)
            disk, won = None, False
        if disk is not None and won:
            try:
                stored = self._stored(promise)
            except Problem:
                os.close(disk)
                raise
            if stored is not None:  # renamed between our two looks; what we opened is a new, or an old, leftover
                remove(promise.path)
                os.close(disk)
                return stored
        file = GrowingFile(disk, entire=promise.named)
        download = Download(promise, size, origin, file=file, notes=Notes(promise.notes, inode))
        self._running[key] = download
        self._tasks += 1
        writer = won or disk is None
        self._nursery.start_soon(self._take_part, key, download, writer, won)
        return download, writer

    async def _take_part(self, key: Digest | str, download: Download, writer: bool, stored: bool) -> None:
        """A download's task, from its beginning to its end in this process."""
        try:
            if not writer:
                followed = await follow(download, self._paths)
                if followed is None:
                    return
                stored = followed
            await self._write_it(download, stored)
        except OSError as error:
            download.fail(as_problem(error, download.label))
        except Problem as problem:  # nobody can tell what has its name by now
            download.fail(problem)
        finally:
            download.fail(UpstreamUnavailable("the server is shutting down", retry_after=5.0))
            if self._running.get(key) is download:
                del self._running[key]
            download.notes.close()
            download.file.let_go()
            self._tasks -= 1
            if self._tasks == 0:
                idle, self._idle = self._idle, []
                for tell in idle:
                    tell()

    async def _write_it(self, download: Download, stored: bool) -> None:
        """Bring a download to its end as its writer. Raises OSError where a new file is needed and cannot be made."""
        if download.file.disk is not None and not self._resume(download):
            self._renew(download)
        for _ in range(_BEGINNINGS):
            if not await Writing(download, self._paths, self._write, self._threads, stored=stored).run():
                return
            log.info("%s: upstream has another file by now, it is begun again", download.label)
            self._renew(download)
        download.fail(UpstreamFailed(f"{download.label}: upstream's file changes all the time"))

    def _renew(self, download: Download) -> None:
        Keeping(download, self._paths, stored=True).renew()

    def _resume(self, download: Download) -> bool:
        """Take in what is on disk already; if that is all of it, no origin is needed any more.

        False: upstream could not be asked for the rest, and nobody has been told anything.
        """
        file, notes, promise = download.file, download.notes, download.promise
        assert file.disk is not None
        notes.read()
        size = os.fstat(file.disk).st_size
        total = download.size if notes.total is None else notes.total
        if size == 0:
            return True
        if promise.named:
            resumable = notes.headers is not None and bool(strong(notes.headers))
            if size != total and not resumable and not download.told:
                return False
            file.withhold()  # until upstream confirms it, or it is judged
        log.info("%s: going on at %d of %s bytes", download.label, size, total)
        file.announce(total)
        file.advance(size)
        if size == total:
            download.begin(total, notes.headers or Headers())
        return True
