"""What clients push, until it is whole: one file for each upload, and its state beside it.

Theory of operation
-------------------
The file system is all there is: any worker goes on with any upload, and so does the next start of the program.
flock(2) on the state file says who is at an upload; it goes with its process, however that dies.  The bytes are written
in order, so the size of the file is the offset, always.  The hash goes along and is put aside when a
request ends and every 64 MiB (module uploads_state); whoever opens the upload after a kill reads what lies
behind that point, and no more.

Every end of it::

    commit, digest right      synced, renamed to a blob, directory synced; then the state is removed
    ... digest wrong          nothing changes: what came is still there
    ... sync failed           nobody knows which bytes reached the disk: the upload begins again at 0
    discard, or expiry        the bytes are removed, then the state
    killed                    at any moment: what was written is there, in order; a state without a file is empty
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mxart.digest import Digest
from mxart.errors import BodyBroken, Disconnected, Problem, TooLarge
from mxart.message import RequestBody
from mxart.store.base import DigestMismatch, UploadBusy, UploadState, UploadUnknown
from mxart.store.files import WriteAt, as_problem, place, remove, write_at
from mxart.store.hash_state import new_hash
from mxart.store.locks import same_file, try_lock
from mxart.store.paths import StorePaths
from mxart.store.uploads_file import UploadFile
from mxart.store.uploads_state import Identity, read_checkpoint, read_identity, write_identity

log = logging.getLogger(__name__)

_THREADS = 8  # that write and hash; an upload gives its one back after a piece
_SYNCING = 8  # that wait for the disk
_FIRST_PAUSE = 0.002  # seconds between looks whether an upload is free ...
_LONGEST_PAUSE = 0.05
_BUSY_SECONDS = 1.0  # ... until it is called busy
_BATCH = 1024 * 1024  # bytes that are worth a visit to a thread
_AT_ONCE = 64 * 1024  # bytes that are written and hashed without one, in a tenth of a millisecond
_READ_BACK = 64 * 1024 * 1024  # bytes read in one visit to a thread


class DiskUploads:
    """`Uploads` (store.base) in a directory of this machine. One per store and worker."""

    def __init__(self, paths: StorePaths, write: WriteAt = write_at, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self._paths = paths
        self._write_at = write
        self._busy_seconds = busy_seconds
        self._threads = trio.CapacityLimiter(_THREADS)
        self._syncing = trio.CapacityLimiter(_SYNCING)

    async def begin(self, repository: str, package: str, owner: str, algorithm: str = "sha256") -> UploadState:
        name = self._paths.new_upload()
        identity = Identity(repository, package, owner, algorithm, time.time())
        # Not abandoned when cancelled: the thread finishes.
        await trio.to_thread.run_sync(self._begin, name, identity, limiter=self._threads)
        return _state_of(name, identity, 0)

    def _begin(self, name: str, identity: Identity) -> None:
        path = self._paths.upload_state(name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_identity(fd, name, identity)
            except BaseException:
                remove(path)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise as_problem(error, f"an upload to {identity.package}") from error

    def find(self, name: str) -> UploadState | None:
        if not self._paths.is_upload(name):
            return None
        try:
            fd = os.open(self._paths.upload_state(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                identity = read_identity(fd, name)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise as_problem(error, f"upload {name}") from error
        if identity is None:
            return None
        try:
            size = os.stat(self._paths.upload(name)).st_size
        except FileNotFoundError:
            size = 0
        return _state_of(name, identity, size)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[DiskUpload]:
        """As `Uploads.open` says."""
        if not self._paths.is_upload(name):
            raise UploadUnknown(name)
        lock = await self._lock(name)
        try:
            upload = self._open(name, lock)
        except BaseException:
            os.close(lock)
            raise
        try:
            await upload.catch_up()
            yield upload
        finally:
            upload.close()

    async def _lock(self, name: str) -> int:
        path = self._paths.upload_state(name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UploadUnknown(name) from None
        except OSError as error:
            raise as_problem(error, f"upload {name}") from error
        try:
            deadline = trio.current_time() + self._busy_seconds
            pause = _FIRST_PAUSE
            while not try_lock(fd):
                if trio.current_time() >= deadline:
                    raise UploadBusy
                await trio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
            if not same_file(fd, path):
                raise UploadUnknown(name)  # whoever had it has committed it, or given it up
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open(self, name: str, lock: int) -> DiskUpload:
        """Takes `lock` over, unless it raises."""
        try:
            identity = read_identity(lock, name)
            if identity is None:
                log.warning("upload %s: its state is broken; it is taken for unknown", name)
                raise UploadUnknown(name)
            data = os.open(self._paths.upload(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(data).st_size
                hashed = read_checkpoint(lock, name, identity.algorithm, size) if size else None
                file = UploadFile(name, data, lock, size, hashed or (0, new_hash(identity.algorithm)), self._write_at)
            except BaseException:
                os.close(data)
                raise
        except OSError as error:
            raise as_problem(error, f"upload {name}") from error
        return DiskUpload(_state_of(name, identity, size), self._paths, file, self._threads, self._syncing)


def _state_of(name: str, identity: Identity, size: int) -> UploadState:
    return UploadState(
        name, identity.repository, identity.package, identity.owner, identity.algorithm, size, identity.created
    )


class DiskUpload:
    """`Upload` (store.base): one that is open here."""

    def __init__(
        self,
        state: UploadState,
        paths: StorePaths,
        file: UploadFile,
        threads: trio.CapacityLimiter,
        syncing: trio.CapacityLimiter,
    ) -> None:
        self.state = state
        self._paths = paths
        self._file = file
        self._threads = threads
        self._syncing = syncing
        self._gone = False

    async def catch_up(self) -> None:
        """Hash what a killed worker had not. Cancelled: it is done by the next one."""
        try:
            while self._file.hashed < self._file.end:
                # Not abandoned when cancelled, here and below: the descriptor is in use until the thread is back.
                await trio.to_thread.run_sync(self._file.catch_up, _READ_BACK, limiter=self._threads)
        except OSError as error:
            raise self._problem(error) from error

    async def receive(self, body: RequestBody, limit: int | None) -> None:
        if self._gone:
            raise UploadUnknown(self.state.id)
        room = None if limit is None else limit - self.state.offset
        if room is not None and body.length is not None and body.length > room:
            raise self._too_large(limit)
        chunks: list[bytes] = []
        size = 0
        failure: Problem | Disconnected | BodyBroken | None = None
        while failure is None:
            try:
                chunk = await body.receive(_BATCH - size)
            except (Problem, Disconnected, BodyBroken) as error:
                failure, chunk = error, b""
            if chunk:
                size += len(chunk)
                chunks.append(chunk)
                if room is not None and (room := room - len(chunk)) < 0:
                    chunks[-1] = chunk[:room]
                    failure = self._too_large(limit)
            if size >= _BATCH or failure is not None or not chunk:
                await self._append(chunks, size)
                chunks, size = [], 0
            if not chunk:
                break
        if failure is not None:
            raise failure

    async def _append(self, chunks: list[bytes], size: int) -> None:
        if size <= _AT_ONCE:
            error = self._file.append(chunks)
        else:
            error = await trio.to_thread.run_sync(self._file.append, chunks, limiter=self._threads)
        self.state.offset = self._file.end
        if error is not None:
            log.warning("upload %s: stopped at %d bytes: %s", self.state.id, self._file.end, error)
            raise self._problem(error) from error

    def _too_large(self, limit: int | None) -> TooLarge:
        return TooLarge(f"The upload would have more than {limit} bytes, the most that is taken here", subject="upload")

    async def commit(self, digest: Digest) -> int:
        if self._gone:
            raise UploadUnknown(self.state.id)
        found = await self._digest(digest.algorithm)
        if found != digest.hex:
            raise DigestMismatch(digest, Digest(digest.algorithm, found), self._file.end)
        started = time.monotonic()
        try:
            await trio.to_thread.run_sync(self._commit, digest, limiter=self._syncing)
        except OSError as error:
            log.warning("upload %s: %s is not stored: %s", self.state.id, digest, error)
            raise self._problem(error) from error
        log.info("%s: pushed, %d bytes, on disk in %.3f s", digest, self._file.end, time.monotonic() - started)
        return self._file.end

    async def _digest(self, algorithm: str) -> str:
        """Of all bytes, in hexadecimal."""
        if algorithm == self.state.algorithm:
            return self._file.hexdigest()
        other = new_hash(algorithm)
        done = 0
        try:
            while done < self._file.end:
                done = await trio.to_thread.run_sync(
                    self._file.hash_again, other, done, _READ_BACK, limiter=self._threads
                )
        except OSError as error:
            raise self._problem(error) from error
        return other.hexdigest()

    def _commit(self, digest: Digest) -> None:
        """In a thread: synced first, named afterwards. Raises OSError."""
        path = self._paths.upload(self.state.id)
        try:
            os.utime(self._file.data)  # what is young is not swept before it has a name in the catalog
            os.fsync(self._file.data)
        except OSError:
            self._doubt()
            raise
        place(path, self._paths.blob(digest))
        self._gone = True
        remove(self._paths.upload_state(self.state.id))

    def _doubt(self) -> None:
        """A sync failed: the next one may succeed all the same, and say nothing of the bytes that were lost."""
        try:
            self._file.start_again(self.state.algorithm)
        except OSError:
            self._remove()
        self.state.offset = self._file.end

    async def discard(self) -> None:
        if not self._gone:
            await trio.to_thread.run_sync(self._remove, limiter=self._threads)

    def _remove(self) -> None:
        self._gone = True
        remove(self._paths.upload(self.state.id))
        remove(self._paths.upload_state(self.state.id))

    def _problem(self, error: OSError) -> Problem:
        return as_problem(error, f"the upload to {self.state.package}")

    def close(self) -> None:
        """Put the hash aside and let the next one have it. Without waiting."""
        self._file.close()
