"""A file that grows, as the readers of one process see it.

There is one `GrowingFile` for each download that this process takes part in, whether it writes or
follows another process that does.  Somebody feeds it (`advance`, `finish`, `fail`); readers ask it
how far they may read and wait for more.  All of it is plain state that changes between two awaits.

The watermark stays `TAIL` bytes short of the end until the whole file has been verified, so that a
file that turns out wrong is a short one for everybody.  Where the length is not known, any byte may
be the last, so the newest `TAIL` bytes are always withheld.

Disk full: from `spill` on, bytes go to a file in memory (memfd_create(2)) at the same offsets.  Only a
window of it is kept: the writer waits (`room`) while the slowest reader is a window behind, and what
all readers have passed is given back by punching holes.  A reader then sees two files, the disk's up
to `disk_end` and the memory's after it; no range crosses over, and `fileno` answers for the range
answered last.  A reader's place is the offset it asked for last: what lies before is no longer needed.
A file that has to be judged as a whole is `entire`: nothing of it is given back, and it ends where the window is full.
"""

from __future__ import annotations

import os

import trio

from mxart.errors import BodyBroken
from mxart.store.files import punch_hole

TAIL = 16 * 1024  # bytes; at a slow 1 KB/s this holds back the end for 16 s, less than any client's patience
WINDOW = 8 * 1024 * 1024
_PUNCH = 1024 * 1024  # give back in pieces of this size
_PAGE = 4096


class GrowingFile:
    """The state that the readers and the writer of this process share.

    Owns its descriptors: they close when the writer has let go (`let_go`) and every source is closed.
    """

    __slots__ = (
        "_floor",
        "_held",
        "_memory",
        "_moved",
        "_sources",
        "_visible",
        "_waiting",
        "_withheld",
        "broken",
        "disk",
        "disk_end",
        "entire",
        "total",
        "verified",
        "written",
    )

    def __init__(self, disk: int | None, *, entire: bool = False) -> None:
        self.entire = entire
        self.disk = disk  # descriptor of the partial file; None where not even that could be made
        self.total: int | None = None
        self.written = 0  # bytes that are there
        self.verified = False
        self.broken: str | None = None  # why it will never be complete
        self.disk_end: int | None = None  # where the disk was full; None: it was not
        self._memory: int | None = None
        self._floor = 0  # what lies between disk_end and this has been given back
        self._visible = 0
        self._withheld = False
        self._held = True
        self._sources: set[GrowingSource] = set()
        self._waiting = trio.lowlevel.ParkingLot()
        self._moved = trio.lowlevel.ParkingLot()

    # For whoever feeds it

    def announce(self, total: int | None) -> None:
        """The length is known, or is known to be unknown."""
        self.total = total
        self._update()

    def advance(self, written: int) -> None:
        """So many bytes are there."""
        if written > self.written:
            self.written = written
            self._update()

    def withhold(self) -> None:
        """Until `release` nobody gets more than he could get already: upstream may have another file by now."""
        self._withheld = True

    def release(self) -> None:
        """What is there may be read again."""
        if self._withheld:
            self._withheld = False
            self._update()

    def finish(self) -> None:
        """It is right: everything may be read."""
        self.verified = True
        self.total = self._visible = self.written
        self._waiting.unpark_all()

    def fail(self, reason: str) -> None:
        """It will never be complete: everybody is cut."""
        if not self.verified and self.broken is None:
            self.broken = reason
            self._waiting.unpark_all()

    def replace(self, disk: int | None) -> None:
        """Another file takes the place of one that nobody has read from."""
        assert self._visible == 0
        if self.disk is not None:
            os.close(self.disk)
        self.disk = disk
        self.written = 0
        self.total = None

    def let_go(self) -> None:
        """The feeding side is done with it."""
        self._held = False
        self._maybe_close()

    def _update(self) -> None:
        if self.verified or self._withheld:
            return
        limit = self.written if self.total is None else self.total
        end = min(self.written, limit - TAIL)
        if end > self._visible:
            self._visible = end
            self._waiting.unpark_all()

    def _maybe_close(self) -> None:
        if self._held or self._sources:
            return
        for fd in (self.disk, self._memory):
            if fd is not None:
                os.close(fd)
        self.disk = self._memory = None

    # The window

    def spill(self) -> int:
        """The disk is full: go on in memory from here. Returns the descriptor to write to. Raises OSError."""
        if self._memory is None:
            self._memory = os.memfd_create("mxart-window", os.MFD_CLOEXEC)
            self.disk_end = self._floor = self.written
            self._moved.unpark_all()
        return self._memory

    def room(self) -> int:
        """How many more bytes the window takes now; what every reader has passed is given back."""
        assert self._memory is not None
        assert self.disk_end is not None
        if self.entire:
            return max(0, self.disk_end + WINDOW - self.written)
        slowest = min((source.place for source in self._sources), default=self.written)
        floor = max(self._floor, min(slowest, self._visible) // _PAGE * _PAGE)
        if floor - self._floor >= _PUNCH:
            punch_hole(self._memory, self._floor // _PAGE * _PAGE, floor)
            self._floor = floor
        return max(0, max(slowest, self.disk_end) + WINDOW - self.written)

    async def moved(self) -> None:
        """Wait until a reader of the window has moved or left."""
        await self._moved.park()

    @property
    def windowed(self) -> bool:
        """Whether the disk was full."""
        return self._memory is not None

    @property
    def whole(self) -> bool:
        """Whether a new reader still finds everything from the first byte on."""
        return self.disk_end is None or self._floor == self.disk_end

    def held(self, offset: int) -> tuple[int, int]:
        """Which descriptor holds the byte at `offset`, and up to where, whether readers may have it or not."""
        in_memory = self.disk_end is not None and offset >= self.disk_end
        fd = self._memory if in_memory else self.disk
        assert fd is not None
        return fd, self.written if in_memory or self.disk_end is None else self.disk_end

    # For readers

    @property
    def shown(self) -> bool:
        """Whether readers may have had something of it, if only that it is empty."""
        return self._visible > 0 or self.verified

    @property
    def readers(self) -> int:
        """How many sources are open."""
        return len(self._sources)

    def open(self) -> GrowingSource:
        """A new reader, at the first byte."""
        source = GrowingSource(self)
        self._sources.add(source)
        return source

    def reach(self, offset: int) -> tuple[int | None, int]:
        """Which descriptor holds the byte at `offset`, and up to where it may be read. Raises BodyBroken."""
        if self.broken is not None:
            raise BodyBroken(self.broken)
        end = self._visible
        if self.disk_end is None:
            return self.disk, max(offset, end)
        if offset < self.disk_end:
            return self.disk, max(offset, min(end, self.disk_end))
        if offset < self._floor:
            raise BodyBroken("the disk is full, and these bytes are no longer in memory")
        return self._memory, max(offset, end)

    async def more(self) -> None:
        """Wait until the state has changed."""
        await self._waiting.park()

    def reader_moved(self) -> None:
        """A reader has passed some bytes."""
        if self._memory is not None:
            self._moved.unpark_all()

    def leave(self, source: GrowingSource) -> None:
        """A reader is done."""
        self._sources.discard(source)
        self._moved.unpark_all()
        self._maybe_close()


class GrowingSource:
    """A reader of a file that may still be growing (body.Source)."""

    __slots__ = ("_closed", "_fd", "_file", "place")

    def __init__(self, file: GrowingFile) -> None:
        self._file = file
        self._fd = file.disk
        self._closed = False
        self.place = 0  # bytes before this offset are not needed any more

    def fileno(self) -> int:
        if self._closed or self._fd is None:
            raise ValueError("the source is closed, or has no bytes yet")
        return self._fd

    @property
    def total(self) -> int | None:
        return self._file.total

    def ready(self, offset: int) -> int:
        if self._closed:
            raise ValueError("the source is closed")
        self._fd, end = self._file.reach(offset)
        if offset != self.place:
            self.place = offset
            self._file.reader_moved()
        return end

    async def available(self, offset: int) -> int:
        end = self.ready(offset)
        if end > offset or self._file.verified:
            await trio.lowlevel.checkpoint()  # who only ever asks must not stop the others
            return self.ready(offset)
        while end == offset and not self._file.verified:
            await self._file.more()
            end = self.ready(offset)
        return end

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._file.leave(self)
