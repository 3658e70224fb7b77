"""A number that every process can read in a fraction of a microsecond, and that changes when any of them writes.

It lies in `<data>/generation`, a file that all processes map.  Each worker counts in a slot of its own,
so no update is ever lost to another; the number is the sum of the slots.  A process that takes over a
slot goes on counting where the last one stopped.  Slot 0 is for processes outside the server (`mxart gc`,
`mxart user`), which take a lock on the file for the moment of counting.

Only changes of the number mean something, so whatever the file holds at the start is as good as zeros.
Its blocks are there before it is mapped: writing to a hole where the disk is full kills the process (SIGBUS).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

from mxart.errors import ConfigError

OUTSIDE = 0
"""The slot of processes outside the server."""

_SLOT = 8  # bytes; an aligned store of that size is never seen by halves
_MASK = (1 << 64) - 1


class Generation:
    """The counter. The server opens it before fork(2), then gives each worker a slot of its own by `slot`.

    Made without a file it is anonymous memory, for the children of this process.
    """

    __slots__ = ("_fd", "_memory", "_mine", "_owner", "_slots", "_turn")

    def __init__(self, slots: int = 1, *, shared: mmap.mmap | None = None, index: int = 0, fd: int = -1) -> None:
        self._memory = mmap.mmap(-1, slots * _SLOT) if shared is None else shared
        self._slots = memoryview(self._memory).cast("Q")
        if not 0 <= index < len(self._slots):
            raise ValueError(f"slot {index} of {len(self._slots)}")
        self._mine = index
        self._fd = fd
        self._owner = True
        self._turn = threading.Lock()  # the catalog's writing thread is not the only one that counts

    @classmethod
    def open(cls, path: Path, slots: int) -> Generation:
        """The counter in a file, made if need be, with at least so many slots. Raises ConfigError.

        The descriptor stays open for the life of the process: a worker that takes a slot looks at the file again.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, slots * _SLOT)  # never makes it shorter: somebody may have it mapped
                return cls(shared=mmap.mmap(fd, slots * _SLOT), fd=fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be used: {error.strerror or error}; it tells the workers of each other's changes, "
                "and needs a page of room on a disk of this machine"
            ) from error

    @classmethod
    def outside(cls, path: Path) -> Generation:
        """For a process outside the server: counts in its slot, and reads all that there are. Raises ConfigError."""
        try:
            slots = path.stat().st_size // _SLOT
        except OSError:
            slots = 0  # `open` says what is wrong, if anything is
        return cls.open(path, max(1, slots))

    def slot(self, index: int) -> Generation:
        """The same counter, counting in another slot. One process a slot at a time. Raises OSError if the disk is full.

        A file that somebody has cut since gets its blocks again: a worker that died of that has a successor.
        """
        if self._fd >= 0:
            os.posix_fallocate(self._fd, 0, len(self._memory))
        other = Generation(shared=self._memory, index=index, fd=self._fd)
        other._owner = False
        return other

    def bump(self) -> None:
        """Something has changed. Call it after the change can be seen. From any thread; takes microseconds."""
        with self._turn:
            shared = self._mine == OUTSIDE and self._fd >= 0
            if shared:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._slots[self._mine] = (self._slots[self._mine] + 1) & _MASK
            finally:
                if shared:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)

    def value(self) -> int:
        """The number."""
        return sum(self._slots)

    def close(self) -> None:
        """Let go of a slot, or, when all its slots are closed, of the file. Idempotent."""
        self._slots.release()
        if self._owner:
            self._memory.close()
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
