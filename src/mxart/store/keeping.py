"""The partial file's names: who is told of it, and whether it becomes a blob, stays to be resumed, or goes."""

from __future__ import annotations

import logging
import os

import trio

from mxart.digest import Digest
from mxart.store.download import Download
from mxart.store.files import place, remove
from mxart.store.locks import same_file, try_lock, unlock
from mxart.store.notes import Note, Notes
from mxart.store.paths import StorePaths

log = logging.getLogger(__name__)


class Keeping:
    """What the writer of a download keeps on disk, and tells the other processes.

    `stored` says whether what has been written so far may stay there: false once the disk was full, or where the
    partial file has lost its name.
    """

    __slots__ = ("_download", "_paths", "_untold", "stored")

    def __init__(self, download: Download, paths: StorePaths, *, stored: bool) -> None:
        self._download = download
        self._paths = paths
        self._untold: list[Note] = []
        self.stored = stored

    @property
    def untold(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._untold)

    def note(self, note: Note) -> None:
        """Something for the next `tell`."""
        self._untold.append(note)

    def tell(self, *more: Note) -> None:
        """Notes for other processes. They do without where the disk is full: but for the head, then they are told
        by `forsake`.
        """
        notes, self._untold = (*self._untold, *more), []
        try:
            if self.stored:
                self._download.notes.append(*notes)
        except OSError as error:
            log.warning("%s: notes cannot be written: %s", self._download.label, error)
            if any(note.headers is not None for note in notes):
                self.forsake()

    def forsake(self) -> None:
        """Nothing of this will be stored: take the partial file's name away, which tells the other processes too."""
        if self.stored:
            self.stored = False
            remove(self._download.promise.notes)
            remove(self._download.promise.path)

    async def commit(self, digest: Digest, threads: trio.CapacityLimiter) -> None:
        """Make it a blob: synced first, named afterwards. Raises OSError, and the Problem of recording a name.

        That name is durable before the blob is there (see Naming.record): who comes in between finds the lock taken.
        """
        download = self._download
        if download.promise.named:
            await trio.to_thread.run_sync(self._sync, limiter=threads)
            assert download.notes.headers is not None
            await download.promise.record(digest, download.file.written, download.notes.headers)
        await trio.to_thread.run_sync(self._place, digest, limiter=threads)
        self.stored = False  # the partial file is no more

    def _sync(self) -> None:
        assert self._download.file.disk is not None
        os.fsync(self._download.file.disk)

    def _place(self, digest: Digest) -> None:
        self._sync()  # costs nothing the second time
        disk, path = self._download.file.disk, self._download.promise.path
        assert disk is not None
        if not same_file(disk, path):
            raise OSError("its partial file was removed by somebody else")
        place(path, self._paths.blob(digest))
        remove(self._download.promise.notes)
        # Here and not in the loop: the last one to close a file that is gone waits until its blocks are free.
        self._download.notes.close()

    def renew(self) -> None:
        """Begin again with an empty file, of which nobody has been told anything. Raises OSError.

        It has the old one's name, and our lock, from its first moment on; so the old one has none, which tells others.
        """
        scratch, promise = self._paths.scratch(), self._download.promise
        disk = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not try_lock(disk):
                raise OSError("a new file is locked by somebody else")
            remove(promise.notes)
            os.rename(scratch, promise.path)
        except BaseException:
            os.close(disk)
            raise
        self._download.start_again(disk, Notes(promise.notes, os.fstat(disk).st_ino))

    def leave(self, keep: bool) -> None:
        """The writer is done; `keep`: what there is may be resumed."""
        if not keep:
            self.forsake()
        elif self._untold:
            self.tell()
        self._download.notes.close()
        if self._download.file.disk is not None:
            unlock(self._download.file.disk)
