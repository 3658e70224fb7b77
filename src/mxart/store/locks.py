"""Who writes a file, settled between all processes of the machine by flock(2) on the file itself.

A lock belongs to the open file description, so it goes when the last descriptor is closed: when its
process dies, however it dies.  The file that carries it may be renamed or removed at any time; a lock
on a file that no longer has its name says nothing, so whoever opens by name looks again
(`same_file`) once it has the lock or has failed to get it.
"""

from __future__ import annotations

import fcntl
import os

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def try_lock(fd: int) -> bool:
    """Take the lock if nobody has it. Never waits."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Let the next one have it, while the descriptor stays open for reading."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def same_file(fd: int, path: str) -> bool:
    """Whether the open file still has this name."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return named.st_ino == mine.st_ino and named.st_dev == mine.st_dev


def elect(path: str) -> tuple[int, bool]:
    """Open the file of this name, making it if need be, and try to become its writer.

    Returns its descriptor, and whether this process is the writer.  Raises OSError.
    """
    while True:
        fd = os.open(path, _FLAGS, 0o600)
        try:
            won = try_lock(fd)
            if same_file(fd, path):
                return fd, won
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # renamed or removed between open and lock: look again
