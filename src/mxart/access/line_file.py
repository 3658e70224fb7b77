"""A file of lines that several processes append to, and that begins anew at a certain size.

NAME            appended to, a line with one write(2), so that lines never mix
NAME.1 ...      older ones, the higher the older; `KEPT` of them
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mxart.atomic import locked_directory

KEPT = 9
_BLOCK = 65536


class LineFile:
    """Lines in the order of their writing. Used by one thread at a time; the directory is there."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises OSError."""
        self.path = path
        self._max = max_bytes
        self._fd = -1
        self._inode = -1
        self._open()

    def append(self, line: bytes) -> bool:
        """Write a line; False if there was no room for all of it. Raises OSError."""
        self._follow()
        return os.write(self._fd, line) == len(line)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def backwards(self) -> Iterator[bytes]:
        """All lines that are kept, the last one first. Blocks."""
        for path in (self.path, *(self._older(number) for number in range(1, KEPT + 1))):
            yield from _backwards(path)

    def _open(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd = fd
        self._inode = os.fstat(fd).st_ino

    def _follow(self) -> None:
        """Begin another file when this one is long; go to the new one when another process has begun it."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return self._open()
        if found.st_ino != self._inode:
            self._open()
        if found.st_size >= self._max:
            with locked_directory(self.path.parent):
                self._open()
                if os.fstat(self._fd).st_size >= self._max:  # another process may have been faster
                    for number in range(KEPT - 1, 0, -1):
                        older = self._older(number)
                        if older.exists():
                            older.rename(self._older(number + 1))
                    self.path.rename(self._older(1))
                    self._open()
        return None

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at > 0:
            step = min(_BLOCK, at)
            at -= step
            file.seek(at)
            first, *lines = (file.read(step) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
