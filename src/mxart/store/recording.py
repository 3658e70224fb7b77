"""What threads do with the bytes of a download: onto the disk, known to the readers, into the hash.

Theory of operation
-------------------
To receive, to write and to hash are three calls that let go of the interpreter's lock.  After each its
thread has to get the lock again, and may be woken on another core for it, which costs as much as
moving 64 KiB.  So a fast download is not handed from task to thread piece by piece: for a stretch of it one
thread does all three in turns, with one buffer (`draw`), while the loop does nothing but send to the
readers, and the kernel receives on while the thread hashes.  A thread more, for the hash, gains nothing on two
cores: the other one is busy sending.

A stretch is short, so that a cancelled download ends soon and others get the thread.  It ends, too, when
nothing has come for a moment: waiting long is the loop's business.

Readers get bytes before they are hashed; the last ones wait for the verdict (module growing).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from time import monotonic

from msgspec import Struct

from mxart.digest import Hash
from mxart.message import Tap
from mxart.store.files import WriteAt, start_writeback

_PIECE = 2 * 1024 * 1024  # bytes; the page cache takes large pieces for a fifth less than those of half the size
_PATIENCE = 0.002  # seconds that less than that may wait to be written,
_LONG_PATIENCE = 0.010  # and at most, where a download lasts: each piece wakes all its readers
_FRACTION = 0.02  # of the time that it has lasted
_STRETCH = 0.05  # seconds
_WRITEBACK = 8 * 1024 * 1024
_CALM = 1.0  # seconds: a download that is over by then is written back when its readers have it


class Drawn(Struct, frozen=True):
    """How a stretch ended."""

    rest: bytes = b""  # what was taken from the tap and could not be written
    error: OSError | None = None  # why
    more: bool = False  # another stretch may follow at once


class Recorder:
    """The partial file of one download and its hash. Used by one thread at a time; its calls block.

    `end` is up to where the file is written; whenever it has grown, `publish` is called in the thread.
    """

    def __init__(self, fresh: Hash, write_at: WriteAt, publish: Callable[[], None], end: int) -> None:
        self.end = end
        self._hash = fresh
        self._write_at = write_at
        self._publish = publish
        self._synced = end
        self._began = monotonic()
        self._buffer: memoryview | None = None

    def hexdigest(self) -> str:
        """Of all that was recorded, read back, or added."""
        return self._hash.hexdigest()

    def add(self, data: bytes | memoryview) -> None:
        """Into the hash only: the bytes are somewhere else."""
        self._hash.update(data)

    def record(self, disk: int, chunks: Sequence[bytes | memoryview]) -> tuple[int, OSError | None]:
        """Append chunks. What cannot be written is not hashed either. Returns as `WriteAt` does."""
        written, error = self._write_at(disk, chunks, self.end)
        self.end += written
        self._publish()
        left = written
        for chunk in chunks:
            self._hash.update(chunk if left >= len(chunk) else memoryview(chunk)[:left])
            left -= min(left, len(chunk))
        if self.end - self._synced >= _WRITEBACK and monotonic() >= self._began + _CALM:
            upto = min(self.end, self._synced + 2 * _WRITEBACK)  # catches up by and by
            start_writeback(disk, self._synced, upto)
            self._synced = upto
        return written, error

    def draw(self, disk: int, tap: Tap, total: int) -> Drawn:
        """Append what comes out of a tap, for a stretch, and not past `total`."""
        if self._buffer is None:
            self._buffer = _memory(min(_PIECE, total - self.end))  # many downloads are small
        until = monotonic() + _STRETCH
        while self.end < total:
            piece = fill(tap, self._buffer[: total - self.end], until, patience(monotonic() - self._began))
            if not piece:
                return Drawn()
            written, error = self.record(disk, (piece,))
            if error is not None:
                return Drawn(bytes(piece[written:]), error)
            if monotonic() >= until:
                break
        return Drawn(more=self.end < total)

    def read_back(self, disk: int, start: int, end: int) -> None:
        """Take what is on disk already into the hash. Raises OSError."""
        buffer = memoryview(bytearray(min(_PIECE, end - start)))
        while start < end:
            count = os.preadv(disk, [buffer[: end - start]], start)
            if count == 0:
                raise OSError("the partial file has become shorter")
            self._hash.update(buffer[:count])
            start += count


def _memory(size: int) -> memoryview:
    """A buffer of which a slow download takes no more memory than the pieces that it fills."""
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def patience(lasted: float) -> float:
    """How long bytes may wait for more of them, in a download that has lasted so long. Seconds, both."""
    return min(_LONG_PATIENCE, max(_PATIENCE, lasted * _FRACTION))


def fill(tap: Tap, buffer: memoryview, latest: float, wait: float = _PATIENCE) -> memoryview:
    """As much as comes in `wait` seconds, and after that what is there without waiting, until `latest`."""
    filled = 0
    until = monotonic() + wait
    while filled < len(buffer):
        count = tap.take(buffer[filled:], max(0.0, until - monotonic()))
        if count == 0:
            break
        filled += count
        if monotonic() >= latest:
            break
    return buffer[:filled]
