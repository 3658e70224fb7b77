"""What a tunnel over an HTTP/2 stream sends and receives (RFC 9113 section 8.5)."""

from __future__ import annotations

from collections.abc import Callable

import trio

from mxart.errors import Disconnected
from mxart.proto.http2_stream import Incoming

_MOST = 64 << 10  # bytes that wait to be framed, before who sends them has to wait


class Relay:
    """Both ways of one stream after a successful CONNECT (takeover.Duplex); in the output's eyes an `Outgoing`.

    `incoming` is None where the client had nothing to send from the start.  `arrived` is called when there is something
    to take, or nothing more will come.
    """

    def __init__(self, incoming: Incoming | None, arrived: Callable[[], None]) -> None:
        self.done = False  # all of it was taken
        self.sent = False  # and is on its way
        self.finished = False  # nobody uses it any more
        self._incoming = incoming
        self._arrived = arrived
        self._buffer = bytearray()
        self._ended = False
        self._room: trio.Event | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to take, or the end to tell."""
        return bool(self._buffer) or self._ended

    def take(self, limit: int) -> bytes:
        """As `Outgoing.take`; nothing breaks it."""
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        if self._room is not None and len(self._buffer) <= _MOST // 2:
            self._room.set()
            self._room = None
        self.done = self._ended and not self._buffer
        return data

    async def receive_some(self) -> bytes:
        return b"" if self._incoming is None else await self._incoming.receive()

    async def send_all(self, data: bytes) -> None:
        """Send. Raises Disconnected behind `send_eof`."""
        if self._ended:
            raise Disconnected("the stream was ended already")
        self._buffer += data
        self._arrived()
        while len(self._buffer) > _MOST:
            self._room = self._room or trio.Event()
            await self._room.wait()

    async def send_eof(self) -> None:
        self._ended = True
        self.done = not self._buffer
        self._arrived()
