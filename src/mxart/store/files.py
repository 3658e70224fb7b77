"""System calls on files that the store needs, and the table of their errors."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mxart.errors import Problem, StorageFull, UpstreamUnavailable

log = logging.getLogger(__name__)

_IOV_MAX = 1024  # limits.h
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_RANGE_WRITE = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_RANGE_ALL = 7  # ... with WAIT_BEFORE and WAIT_AFTER

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_RANGES = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ESPIPE}
)  # a file system, or a sandbox, that has no such thing
_SHORT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class WriteAt(Protocol):
    """How bytes reach a file; a test puts a small disk in its place."""

    def __call__(self, fd: int, chunks: Sequence[bytes | memoryview], offset: int) -> tuple[int, OSError | None]:
        """Write all of it. Returns how much was written, and what stopped it if that is less. Blocks."""
        ...


def write_at(fd: int, chunks: Sequence[bytes | memoryview], offset: int) -> tuple[int, OSError | None]:
    """`WriteAt` by pwritev(2)."""
    done = 0
    rest: list[bytes | memoryview] = list(chunks)
    try:
        while rest:
            count = os.pwritev(fd, rest[:_IOV_MAX], offset + done)
            done += count
            drop = 0
            while drop < len(rest) and count >= len(rest[drop]):
                count -= len(rest[drop])
                drop += 1
            del rest[:drop]
            if count:
                rest[0] = memoryview(rest[0])[count:]
    except OSError as error:
        return done, error
    return done, None


def rest_of(chunks: Sequence[bytes], count: int) -> list[bytes]:
    """The chunks without their first `count` bytes."""
    rest: list[bytes] = []
    for chunk in chunks:
        rest.append(chunk[count:])
        count = max(0, count - len(chunk))
    return rest


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give back the memory or blocks of a range, which reads as zeros from then on (fallocate(2)). Raises OSError."""
    if _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, end - start) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def start_writeback(fd: int, start: int, end: int) -> None:
    """Have the kernel begin writing a range out, so that the fsync at the end is short. A hint: errors say nothing."""
    _sync_file_range(fd, start, end - start, _RANGE_WRITE)


def finish_writeback(fd: int, start: int, end: int) -> None:
    """Write a range out and wait until that is done. No promise that it outlasts a power failure; fsync gives that.

    Raises OSError, and the fsync that follows does not tell of the same error again.
    """
    if _sync_file_range(fd, start, end - start, _RANGE_ALL) != 0:
        code = ctypes.get_errno()
        if code not in _NO_RANGES:
            raise OSError(code, os.strerror(code))


def sync_directory(path: str | Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def place(source: str, target: str) -> None:
    """Give a synced file its final name, durably; the directories above it are made. Raises OSError."""
    folder = os.path.dirname(target)
    above: tuple[str, ...] = ()
    try:
        os.rename(source, target)
    except FileNotFoundError:
        os.makedirs(folder, 0o700, exist_ok=True)
        os.rename(source, target)
        algorithm = os.path.dirname(folder)
        above = (algorithm, os.path.dirname(algorithm))
    with suppress(FileNotFoundError):  # swept at once, by a collection without grace: whoever would name it sees that
        os.chmod(target, 0o444)
    # Last, and together: a file system with a journal writes all of it at the first, and leaves nothing for the others.
    for directory in (folder, *above):
        sync_directory(directory)


def remove(path: str) -> None:
    """Remove a file, if it is there. An error is logged: what is left is cleaned at the next start."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s: cannot be removed: %s", path, error.strerror)


def as_problem(error: OSError, what: str) -> Problem:
    """The table: what an error of the file system is to the one who asked."""
    detail = error.strerror or str(error)
    if error.errno in FULL:
        return StorageFull(f"{what}: the disk is full", detail=detail)
    if error.errno in _SHORT_OF_DESCRIPTORS:
        return UpstreamUnavailable(f"{what}: too many files are open", detail=detail, retry_after=1.0)
    return Problem(f"{what}: the store cannot be used", detail=detail)
