"""The body of an HTTP/1.1 request: read when it is wanted, skipped when it is not."""

from __future__ import annotations

from collections.abc import Callable

import h11
import trio

from mxart.errors import BadRequest, Disconnected, TooLarge
from mxart.message import Tap
from mxart.proto.heads import bad_head
from mxart.proto.transport import Drawable, Transport

READ_BYTES = 65536  # asked of the transport at once
_SKIP_BYTES = 65536  # of a request body that nobody wanted, so that the connection can be kept


class Http1Body:
    """A request's body, unframed by h11 as it is asked for.

    `wire` is the h11 connection that has read the head.  More than `max_bytes` raise TooLarge; skipping gives up after
    `skip_seconds`.  `on_end` is called once, with the bytes
    that came after the body.
    """

    def __init__(
        self,
        transport: Transport,
        wire: h11.Connection,
        length: int | None,
        *,
        max_bytes: int,
        skip_seconds: float,
        on_end: Callable[[bytes], None],
    ) -> None:
        self.length = length
        self.complete = False
        self._transport = transport
        self._wire = wire
        self._max_bytes = max_bytes
        self._skip_seconds = skip_seconds
        self._on_end = on_end
        self._received = 0
        self._taken = 0  # by the thread at the tap, and not counted yet
        self._rest = b""
        self._raw = False  # h11 has given out all it had, and the length is known
        self._failure: Disconnected | BadRequest | TooLarge | None = None

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        if self._failure is not None:
            raise self._failure
        if not self._rest and not self.complete:
            try:
                self._rest = await (self._next_raw(max_bytes) if self._raw else self._next(max_bytes))
            except h11.RemoteProtocolError as error:
                self._failure = BadRequest(str(bad_head(error)))
                raise self._failure from None
            except (Disconnected, BadRequest, TooLarge) as error:
                self._failure = error
                raise
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def _next(self, max_bytes: int) -> bytes:
        limit = self._max_bytes
        if self.length is not None and self.length > limit:
            raise TooLarge(f"The body has {self.length} bytes; at most {limit} are taken")
        while True:
            match self._wire.next_event():
                case h11.Data(data=data):
                    self._received += len(data)
                    if self._received > limit:
                        raise TooLarge(f"The body has more than {limit} bytes")
                    if self._received == self.length:
                        self._wire.next_event()  # EndOfMessage, for which nothing more has to arrive
                        self._end(self._wire.trailing_data[0])
                    if data:
                        return bytes(data)
                case h11.EndOfMessage():
                    self._end(self._wire.trailing_data[0])
                    return b""
                case _:  # NEED_DATA
                    if self._wire.they_are_waiting_for_100_continue:
                        go_on = self._wire.send(
                            h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                        )
                        await self._transport.send_all(go_on)
                    if self.length is not None:
                        self._raw = True
                        return await self._next_raw(max_bytes)
                    self._wire.receive_data(await self._some(max_bytes))

    async def _next_raw(self, max_bytes: int) -> bytes:
        """What is left is counting, and is spared h11's copies."""
        data = await self._some(max_bytes)
        left = self._left
        self._received += min(left, len(data))
        if not self._left:
            self._end(data[left:])
        return data[:left]

    async def _some(self, max_bytes: int) -> bytes:
        data = await self._transport.receive_some(max(max_bytes, READ_BYTES))
        if not data:
            raise Disconnected("the client left in the middle of its request")
        return data

    @property
    def _left(self) -> int:
        return (self.length or 0) - self._received

    # message.TappedBody, and its tap

    def tap(self) -> Tap | None:
        drawable = self._raw and not self._rest and not self.complete and self._failure is None
        return self if drawable and isinstance(self._transport, Drawable) else None

    def take(self, buffer: memoryview, wait: float) -> int:
        """In a thread."""
        left = self._left - self._taken
        if not left or self._failure is not None or not isinstance(self._transport, Drawable):
            return 0
        try:
            count = self._transport.receive_into(buffer[:left], wait)
        except Disconnected as error:
            self._failure = error
            return 0
        self._taken += count
        return count

    def drawn(self, count: int) -> None:
        self._received += count
        self._taken = 0
        if not self._left:
            self._end(b"")

    def _end(self, rest: bytes) -> None:
        self.complete = True
        self._on_end(rest)

    @property
    def skippable(self) -> bool:
        """Whether what has not been read is likely to come, and worth reading, to keep the connection."""
        if self.complete:
            return True
        if self._failure is not None or self._wire.they_are_waiting_for_100_continue:
            # Whether a body follows a final answer to Expect is the client's secret: RFC 9110 section 10.1.1.
            return False
        return self.length is None or self.length - self._received <= _SKIP_BYTES

    async def skip(self) -> bool:
        """Read what is left and throw it away; False if that takes too much or too long."""
        left = _SKIP_BYTES
        with trio.move_on_after(self._skip_seconds):
            try:
                while not self.complete:
                    left -= len(await self.receive())
                    if left < 0:
                        return False
            except (Disconnected, BadRequest, TooLarge):
                return False
            else:
                return True
        return False
