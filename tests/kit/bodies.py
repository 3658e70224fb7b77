"""Bodies of requests, as a client sends them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import trio

from mxart.errors import Disconnected
from mxart.message import Tap


class GivenBody:
    """Gives its data in chunks; with `breaks_at` the client leaves there. `length` -1: the true one."""

    def __init__(self, data: bytes, *, chunk: int = 65_536, length: int | None = -1, breaks_at: int = -1) -> None:
        self.length = len(data) if length == -1 else length
        self.taken = 0
        self._data = data if breaks_at < 0 else data[:breaks_at]
        self._breaks = breaks_at >= 0
        self._chunk = chunk

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._data[self.taken : self.taken + min(self._chunk, max_bytes)]
        if not piece and self._breaks:
            raise Disconnected("the client left in the middle of its request")
        self.taken += len(piece)
        return piece


class DrawnBody(GivenBody):
    """Lets a thread draw from it, in pieces of the sizes told, in turns, 0 being "nothing now"."""

    def __init__(
        self,
        data: bytes,
        sizes: Iterable[int] = (1 << 30,),
        *,
        chunk: int = 65_536,
        length: int | None = -1,
        breaks_at: int = -1,
    ) -> None:
        super().__init__(data, chunk=chunk, length=length, breaks_at=breaks_at)
        self.drawn_bytes = 0
        self._sizes = list(sizes)
        self._turn = 0
        self._ahead = 0  # taken in the thread and not counted yet

    def tap(self) -> Tap | None:
        return self if self.taken < len(self._data) else None

    def take(self, buffer: memoryview, wait: float) -> int:
        assert threading.current_thread() is not threading.main_thread()
        assert len(buffer)
        assert wait >= 0
        size = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        at = self.taken + self._ahead
        piece = self._data[at : at + min(size, len(buffer))]
        buffer[: len(piece)] = piece
        self._ahead += len(piece)
        return len(piece)

    def drawn(self, count: int) -> None:
        assert count == self._ahead
        self.taken += count
        self.drawn_bytes += count
        self._ahead = 0
