"""A download that is all there, as one file to read from, wherever its bytes lie (module growing)."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from mxart.store.growing import GrowingFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER = 256 * 1024  # bytes


class _Whole(io.RawIOBase):
    """Borrows the download's descriptors, and never moves their offsets."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.written}[whence]
        if base + offset < 0:
            raise ValueError(f"a file has nothing at {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        fd, end = self._file.held(self._at)
        view = memoryview(buffer).cast("B")[: max(0, end - self._at)]
        if not view:
            return 0
        count = os.preadv(fd, [view], self._at)
        if count == 0:
            raise OSError("the partial file has become shorter")
        self._at += count
        return count


def opened(file: GrowingFile) -> io.BufferedReader:
    """For reading, from the first byte. To be used and closed while the download's feeding side holds the file."""
    return io.BufferedReader(_Whole(file), _BUFFER)
