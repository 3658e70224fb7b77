"""One at a time, by name, over all worker processes: for what is too small to be a growing file.

Each name is one byte of a lock file, at the place that its hash says, locked by an open file
description lock (fcntl(2), F_OFD_SETLK).  The file stays empty: locks may lie beyond its end.  A lock
goes with its descriptor, however its process dies.  Two names that hash alike wait for each other,
which costs time and nothing else, for no one ever holds two.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid: struct flock of 64-bit Linux
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


class FileTurns:
    """`Turns` (store.base) in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn and hold it. Cancelled while waiting: nothing is held. Raises OSError."""
        place = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            pause = _FIRST_PAUSE
            while not _try_lock(fd, place):
                await trio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
            yield
        finally:
            os.close(fd)


def _try_lock(fd: int, place: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except BlockingIOError:
        return False
    return True
