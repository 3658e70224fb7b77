"""Bodies of requests, as a client sends them."""

from __future__ import annotations

import trio

from mxart.errors import Disconnected


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
