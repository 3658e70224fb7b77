"""Downloads under way: one for each digest, whatever the number of requests and worker processes.

`join` finds the digest among the blobs, or among what this process takes part in; else it opens the
partial file and tries its lock.  Whoever gets it writes (module writing), everybody else follows
(module following), and when the writer's process dies one of the followers goes on in its place.
Election and bookkeeping are synchronous, so two callers in one process cannot both begin.

The partial file is locked by its writer from the first byte to the rename that makes it a blob; the
lock is let go only after that, so whoever gets the lock and finds no blob knows that the file is for
him to complete.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import Problem, UpstreamUnavailable
from mxart.message import Headers
from mxart.store.base import Joined, Origin
from mxart.store.blobs import DiskBlobs
from mxart.store.download import Download
from mxart.store.files import WriteAt, as_problem, remove, write_at
from mxart.store.following import follow
from mxart.store.growing import GrowingFile
from mxart.store.locks import elect
from mxart.store.notes import Notes
from mxart.store.paths import StorePaths
from mxart.store.writing import Writing

log = logging.getLogger(__name__)

_THREADS = 8


class DiskTransfers:
    """`Transfers` into the blobs of one store. One per store and worker; `run` owns the tasks."""

    def __init__(self, paths: StorePaths, blobs: DiskBlobs, write: WriteAt = write_at) -> None:
        self._paths = paths
        self._blobs = blobs
        self._write = write
        self._threads = trio.CapacityLimiter(_THREADS)
        self._running: dict[Digest, Download] = {}
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
        stored: Source | None = self._blobs.open(digest)
        if stored is not None:
            return Joined(stored, Headers(), started=False)
        download = self._running.get(digest)
        started = False
        if download is None or not download.file.whole:
            found = self._begin(digest, size, origin)
            if not isinstance(found, tuple):
                return Joined(found, Headers(), started=False)
            download, started = found
        return await download.join(size, started)

    def _begin(self, digest: Digest, size: int | None, origin: Origin) -> tuple[Download, bool] | Source:
        """Start taking part, as the writer (True) or as a follower; or find that it has become a blob just now."""
        if self._nursery is None:
            raise UpstreamUnavailable("the server is shutting down", retry_after=5.0)
        path = self._paths.partial(digest)
        inode = 0
        try:
            disk, won = elect(path)
            inode = os.fstat(disk).st_ino
        except OSError as error:
            problem = as_problem(error, str(digest))
            if isinstance(problem, UpstreamUnavailable):
                raise problem from error
            log.warning("%s: cannot be stored: %s", digest, error)
            disk, won = None, False
        if disk is not None and won:
            try:
                stored = self._blobs.open(digest)
            except Problem:
                os.close(disk)
                raise
            if stored is not None:  # renamed between our two looks; what we opened is a new, or an old, leftover
                remove(path)
                os.close(disk)
                return stored
        download = Download(
            digest, size, origin, path=path, file=GrowingFile(disk), notes=Notes(self._paths.notes(digest), inode)
        )
        self._running[digest] = download
        self._tasks += 1
        writer = won or disk is None
        self._nursery.start_soon(self._take_part, download, writer, won)
        return download, writer

    async def _take_part(self, download: Download, writer: bool, stored: bool) -> None:
        """A download's task, from its beginning to its end in this process."""
        try:
            if not writer:
                try:
                    followed = await follow(download, self._paths)
                except OSError as error:
                    download.fail(as_problem(error, str(download.digest)))
                    return
                if followed is None:
                    return
                stored = followed
            self._resume(download)
            await Writing(download, self._paths, self._write, self._threads, stored=stored).run()
        finally:
            download.fail(UpstreamUnavailable("the server is shutting down", retry_after=5.0))
            if self._running.get(download.digest) is download:
                del self._running[download.digest]
            download.notes.close()
            download.file.let_go()
            self._tasks -= 1
            if self._tasks == 0:
                idle, self._idle = self._idle, []
                for tell in idle:
                    tell()

    def _resume(self, download: Download) -> None:
        """Take in what is on disk already; if that is all of it, no origin is needed any more."""
        if download.file.disk is None:
            return
        notes = download.notes
        notes.read()
        size = os.fstat(download.file.disk).st_size
        total = download.size if notes.total is None else notes.total
        if size == 0:
            return
        log.info("%s: going on at %d of %s bytes", download.digest, size, total)
        download.file.announce(total)
        download.file.advance(size)
        if size == total:
            download.begin(total, notes.headers or Headers())
