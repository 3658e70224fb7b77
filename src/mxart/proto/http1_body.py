"""The body of an HTTP/1.1 request: read when it is wanted, skipped when it is not."""

from __future__ import annotations

from collections.abc import Callable

import h11
import trio

from mxart.errors import BadRequest, Disconnected, TooLarge
from mxart.message import Tap
from mxart.proto.chunked import Chunked
from mxart.proto.transport import Drawable, Transport

READ_BYTES = 65536  # asked of the transport at once
_SKIP_BYTES = 65536  # of a request body that nobody wanted, so that the connection can be kept
_TINY = 16384  # bytes given out at once; less takes longer to take apart than to receive
_SCRATCH = 262144  # bytes received at once by a thread that has to take chunks apart


class Http1Body:
    """A request's body (message.TappedBody), unframed as it is asked for.

    `wire` is the h11 connection that has read the head, and has judged the framing: a `length`, or None for chunks.
    More than `max_bytes` raise TooLarge; skipping gives up after `skip_seconds`.  `on_end` is called once, with the
    bytes that came after the body.
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
        self._drawable = transport if isinstance(transport, Drawable) else None
        self._wire = wire
        self._max_bytes = max_bytes
        self._skip_seconds = skip_seconds
        self._on_end = on_end
        self._received = 0
        self._early = wire.trailing_data[0]  # came with the head
        # RFC 9110 section 10.1.1: a client that sends before it was told to does not wait.
        self._waits = wire.they_are_waiting_for_100_continue and not self._early
        self._chunks = Chunked() if length is None else None
        self._tiny = False  # the chunks that came last
        self._rest = b""
        self._taken = 0  # by the thread at the tap, and not counted yet
        self._scratch: memoryview | None = None
        self._failure: Disconnected | BadRequest | TooLarge | None = None

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        if self._failure is not None:
            raise self._failure
        if not self._rest and not self.complete:
            try:
                if self.length is not None and self.length > self._max_bytes:
                    raise TooLarge(f"The body has {self.length} bytes; at most {self._max_bytes} are taken")
                if self._chunks is None:
                    self._rest = self._counted(await self._some(max_bytes))
                else:
                    self._rest = await self._unchunked(self._chunks, max_bytes)
            except (Disconnected, BadRequest, TooLarge) as error:
                self._failure = error
                raise
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def _some(self, max_bytes: int) -> bytes:
        """What has arrived, framed as it is."""
        if self._early:
            data, self._early = self._early, b""
            return data
        if self._waits:
            self._waits = False
            go_on = self._wire.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            await self._transport.send_all(go_on)
        data = await self._transport.receive_some(max(max_bytes, READ_BYTES))
        if not data:
            raise Disconnected("the client left in the middle of its request")
        return data

    def _counted(self, data: bytes) -> bytes:
        left = self._left
        self._received += min(left, len(data))
        if not self._left:
            self._end(data[left:])
        return data[:left]

    @property
    def _left(self) -> int:
        """Bytes that are still to come, of a body of known length."""
        return (self.length or 0) - self._received

    async def _unchunked(self, chunks: Chunked, max_bytes: int) -> bytes:
        if self._tiny:
            await trio.lowlevel.checkpoint()  # what is here already makes nobody wait; others want their turn, too
        while not (data := chunks.take(max_bytes)):
            if chunks.done:
                self._end(chunks.rest)
                return b""
            chunks.feed(await self._some(max_bytes))
        self._tiny = len(data) < min(max_bytes, _TINY)
        self._received += len(data)
        if self._received > self._max_bytes:
            raise TooLarge(f"The body has more than {self._max_bytes} bytes")
        return data

    def _end(self, rest: bytes) -> None:
        self.complete = True
        self._on_end(rest)

    # The tap

    def tap(self) -> Tap | None:
        ready = self._received and not self._rest and not self._early and not self.complete and self._failure is None
        return self if ready and self._drawable is not None else None

    def take(self, buffer: memoryview, wait: float) -> int:
        """In a thread."""
        if self._failure is not None or self._drawable is None:
            return 0
        try:
            if self._chunks is not None:
                count = self._take_unchunked(self._chunks, self._drawable, buffer, wait)
            elif left := self._left - self._taken:
                count = self._drawable.receive_into(buffer[:left], wait)
            else:
                count = 0
        except (Disconnected, BadRequest) as error:
            self._failure = error
            return 0
        self._taken += count
        return count

    def _take_unchunked(self, chunks: Chunked, transport: Drawable, buffer: memoryview, wait: float) -> int:
        room = self._max_bytes - self._received - self._taken
        if not room:
            return 0  # one byte more is too many, and that is for `receive` to say
        if not (count := chunks.take_into(buffer[:room])) and not chunks.done:
            if self._scratch is None:
                self._scratch = memoryview(bytearray(_SCRATCH))
            if more := transport.receive_into(self._scratch, wait):
                chunks.feed(bytes(self._scratch[:more]))
                count = chunks.take_into(buffer[:room])
        return count

    def drawn(self, count: int) -> None:
        self._received += count
        self._taken = 0
        if self._chunks is None and not self._left:
            self._end(b"")

    # The end

    @property
    def skippable(self) -> bool:
        """Whether what has not been read is likely to come, and worth reading, to keep the connection."""
        if self.complete:
            return True
        if self._failure is not None or self._waits:
            # Whether a body follows a final answer to Expect is the client's secret: RFC 9110 section 10.1.1.
            return False
        return self.length is None or self._left <= _SKIP_BYTES

    async def skip(self, seconds: float | None = None) -> bool:
        """Read what is left and throw it away; False if that takes too much or too long. It can be gone on with."""
        left = _SKIP_BYTES
        with trio.move_on_after(self._skip_seconds if seconds is None else seconds):
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
