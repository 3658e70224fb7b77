"""What clients push, until it is whole: one file for each upload, and its state beside it.

Theory of operation
-------------------
The file system is all there is: any worker goes on with any upload, and so does the next start of the program.
flock(2) on the state file says who is at an upload; it goes with its process, however that dies.  The bytes are written
in order, so the size of the file is the offset, always.  The hash goes along and is put aside when a
request ends and every 64 MiB (module uploads_state); whoever opens the upload after a kill reads what lies
behind that point, and no more.

Every end of it::

    commit, digest right      synced, renamed to a blob, directory synced; then the state goes
    ... digest wrong          nothing changes: what came is still there
    ... sync failed           nobody knows which bytes reached the disk: the upload begins again at 0
    discard, or expiry        the bytes are removed, then the state
    killed                    at any moment: what was written is there, in order; a state without a file is empty

A state file that is done with is kept under another name for the next upload, for file systems are slow to give
out again what was just freed (ext4 looks at every inode freed in the last minute before it takes another).
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from mxart.errors import UpstreamUnavailable
from mxart.store.base import UploadBusy, UploadState, UploadUnknown
from mxart.store.files import WriteAt, as_problem, remove, write_at
from mxart.store.hash_state import new_hash
from mxart.store.locks import same_file, try_lock
from mxart.store.paths import STATE, StorePaths
from mxart.store.uploads_file import UploadFile
from mxart.store.uploads_open import DiskUpload, Threads
from mxart.store.uploads_state import Identity, read_checkpoint, read_identity, write_identity

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.002  # seconds between looks whether an upload is free ...
_LONGEST_PAUSE = 0.05
_BUSY_SECONDS = 1.0  # ... until it is called busy
_SPARES = 64  # state files kept for the next uploads
_MOST = 10_000  # uploads under way in a store: a flood of them must not fill the disk with empty files
_COUNTED = 100  # begun between two counts of what is there
_SHARE = 100  # of that many equal parts, who has less than one may begin where all others may not
_OWNERS_SECONDS = 5.0  # between two looks at whose they are: that is a read of each


class DiskUploads:
    """`Uploads` (store.base) in a directory of this machine. One per store and worker."""

    def __init__(
        self,
        paths: StorePaths,
        write: WriteAt = write_at,
        *,
        busy_seconds: float = _BUSY_SECONDS,
        most: int = _MOST,
    ) -> None:
        """`most`: about how many may be under way; each worker counts its own exactly, and others' now and then.

        Past that, only who has few himself may begin more, up to twice as many.
        """
        self._paths = paths
        self._most = most
        self._there = 0  # when they were counted
        self._begun = _COUNTED  # since then
        self._owners: Counter[str] = Counter()
        self._owners_until = -math.inf
        self._write_at = write
        self._busy_seconds = busy_seconds
        self._threads = Threads()
        self._spares: list[str] = []  # of this worker; housekeeping may take them away

    async def begin(self, repository: str, package: str, owner: str, algorithm: str = "sha256") -> UploadState:
        if self._begun >= min(_COUNTED, self._most - self._there):
            self._there = await trio.to_thread.run_sync(self._count, limiter=self._threads.naming)
            self._begun = 0
        if self._there >= self._most and not await self._is_modest(owner):
            raise UpstreamUnavailable(
                f"{self._there} uploads are under way here, more than may be: finish them, or give them up",
                subject="upload",
                retry_after=60.0,
            )
        self._begun += 1
        name = self._paths.new_upload()
        identity = Identity(repository, package, owner, algorithm, time.time())
        # Not abandoned when cancelled: the thread finishes.
        await trio.to_thread.run_sync(self._begin, name, identity, limiter=self._threads.naming)
        return _state_of(name, identity, 0)

    def _count(self) -> int:
        """How many uploads there are, whoever began them. Raises a Problem."""
        try:
            return sum(entry.name.endswith(STATE) for entry in os.scandir(self._paths.uploads))
        except OSError as error:
            raise as_problem(error, "the uploads") from error

    async def _is_modest(self, owner: str) -> bool:
        """Whether somebody has so few uploads that he is not to suffer from those who have too many."""
        if self._there >= 2 * self._most:
            return False
        if trio.current_time() >= self._owners_until:
            self._owners_until = trio.current_time() + _OWNERS_SECONDS
            self._owners = await trio.to_thread.run_sync(self._count_owners, limiter=self._threads.naming)
        self._owners[owner] += 1
        return self._owners[owner] <= max(1, self._most // _SHARE)

    def _count_owners(self) -> Counter[str]:
        """How many uploads each has. Raises a Problem."""
        owners: Counter[str] = Counter()
        try:
            for entry in os.scandir(self._paths.uploads):
                if entry.name.endswith(STATE) and (identity := _identity(entry.path, entry.name.removesuffix(STATE))):
                    owners[identity.owner] += 1
        except OSError as error:
            raise as_problem(error, "the uploads") from error
        return owners

    def _begin(self, name: str, identity: Identity) -> None:
        path = self._paths.upload(name)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            try:
                self._write_state(name, identity)
            except BaseException:
                remove(path)
                raise
        except OSError as error:
            raise as_problem(error, f"an upload to {identity.package}") from error

    def _write_state(self, name: str, identity: Identity) -> None:
        """Into a file that waits for that, or into a new one. Raises OSError."""
        state = self._paths.upload_state(name)
        # IndexError: none waits.  FileNotFoundError: housekeeping took it away, which it may do up to the last moment.
        with suppress(IndexError, FileNotFoundError):
            spare = self._spares.pop()
            _fill(spare, os.O_RDWR, name, identity)
            os.rename(spare, state)
            return
        _fill(state, os.O_RDWR | os.O_CREAT | os.O_EXCL, name, identity)

    def _retire(self, name: str) -> None:
        """In a thread: an upload is over, its state goes. Never raises."""
        state = self._paths.upload_state(name)
        if len(self._spares) < _SPARES:
            with suppress(OSError):
                spare = self._paths.spare_state()
                os.rename(state, spare)
                self._spares.append(spare)
                return
        remove(state)

    def find(self, name: str) -> UploadState | None:
        if not self._paths.is_upload(name):
            return None
        try:
            identity = _identity(self._paths.upload_state(name), name)
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
            await upload.put_aside()
        except BaseException:
            await upload.put_aside(quietly=True)
            raise
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
        return DiskUpload(_state_of(name, identity, size), self._paths, file, self._threads, self._retire)


def _identity(path: str, name: str) -> Identity | None:
    """What a state file says; None where there is none, or it is broken. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return read_identity(fd, name)
    finally:
        os.close(fd)


def _fill(path: str, flags: int, name: str, identity: Identity) -> None:
    """Write a state file, or leave none. Raises OSError."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        write_identity(fd, name, identity)
    except BaseException:
        remove(path)
        raise
    finally:
        os.close(fd)


def _state_of(name: str, identity: Identity, size: int) -> UploadState:
    return UploadState(
        name, identity.repository, identity.package, identity.owner, identity.algorithm, size, identity.created
    )
