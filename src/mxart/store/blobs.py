"""Complete files under their digests.

A file gets its name in `blobs/` only after its bytes have been checked and synced, so whatever is
found there is whole.  Readers of the same blob share one descriptor: 500 of them cost one, and every
call that sends (sendfile, pread) names its own offset.
"""

from __future__ import annotations

import logging
import os

import trio

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.store.files import as_problem, place, remove, sync_directory, write_at
from mxart.store.locks import try_lock
from mxart.store.paths import StorePaths

log = logging.getLogger(__name__)

_THREADS = 8
_TOGETHER = 64 * 1024  # larger files are read in a thread


class _OpenBlob:
    """One descriptor, and how many read from it."""

    __slots__ = ("fd", "size", "users")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.users = 0


class FileSource:
    """A reader of a complete file (body.Source)."""

    __slots__ = ("_blobs", "_digest", "_file")

    def __init__(self, blobs: DiskBlobs, digest: Digest, file: _OpenBlob) -> None:
        self._blobs = blobs
        self._digest = digest
        self._file: _OpenBlob | None = file

    def fileno(self) -> int:
        return self._here().fd

    @property
    def total(self) -> int | None:
        return self._here().size

    def ready(self, offset: int) -> int:
        return max(offset, self._here().size)

    async def available(self, offset: int) -> int:
        return max(offset, self._here().size)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._blobs.let_go(self._digest, file)

    def _here(self) -> _OpenBlob:
        if self._file is None:
            raise ValueError("the source is closed")
        return self._file


class DiskBlobs:
    """`Blobs` in a directory of this machine (store.base). One per store and worker."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._open: dict[Digest, _OpenBlob] = {}
        self._threads = trio.CapacityLimiter(_THREADS)

    def open(self, digest: Digest) -> FileSource | None:
        """The complete file under a digest, None if it is not here. Raises a Problem if it cannot be opened."""
        file = self._open.get(digest)
        if file is None:
            try:
                fd = os.open(self._paths.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise as_problem(error, str(digest)) from error
            file = self._open[digest] = _OpenBlob(fd, os.fstat(fd).st_size)
        file.users += 1
        return FileSource(self, digest, file)

    def let_go(self, digest: Digest, file: _OpenBlob) -> None:
        """A reader is done; the last one closes the descriptor."""
        file.users -= 1
        if file.users == 0:
            del self._open[digest]
            os.close(file.fd)

    def has(self, digest: Digest) -> bool:
        return os.path.exists(self._paths.blob(digest))  # what is only open has been removed

    async def read(self, digest: Digest, max_bytes: int) -> bytes | None:
        source = self.open(digest)
        if source is None:
            return None
        try:
            size = source.ready(0)
            if size > max_bytes:
                return None
            if size <= _TOGETHER:
                return _read(source.fileno(), size, str(digest))
            return await trio.to_thread.run_sync(_read, source.fileno(), size, str(digest), limiter=self._threads)
        finally:
            source.close()

    async def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        # Not abandoned when cancelled: the thread finishes, so the blob is there whole or not at all.
        return await trio.to_thread.run_sync(self._put, data, digest, limiter=self._threads)

    def _put(self, data: bytes, digest: Digest | None) -> Digest:
        found = Digest.of(data, digest.algorithm if digest is not None else "sha256")
        if digest is not None and found != digest:
            raise ValueError(f"the bytes have the digest {found}, not {digest}")
        target = self._paths.blob(found)
        scratch = self._paths.scratch()
        try:
            if _touch(target):
                sync_directory(os.path.dirname(target))  # whoever placed it may not have come to that yet
                return found
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                try_lock(fd)  # tells housekeeping that somebody is at it
                _, error = write_at(fd, (data,), 0)
                if error is not None:
                    raise error
                os.fsync(fd)
                place(scratch, target)
            except BaseException:
                remove(scratch)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("%s: not kept: %s", found, error)
            raise as_problem(error, str(found)) from error
        return found


def _touch(path: str) -> bool:
    """Make a file as young as one that is put now, so that a collection leaves it alone; False if it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _read(fd: int, size: int, what: str) -> bytes:
    try:
        data = os.pread(fd, size, 0)
    except OSError as error:
        raise as_problem(error, what) from error
    if len(data) != size:
        raise Problem(f"{what}: the stored file is shorter than it was")
    return data
