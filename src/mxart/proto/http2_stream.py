"""One exchange on an HTTP/2 connection: the body that comes in, the body that goes out."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

from mxart.body import Body, Span
from mxart.errors import BodyBroken, Disconnected, TooLarge
from mxart.message import Request, Response

if TYPE_CHECKING:
    from mxart.proto.http2_relay import Relay


class Outgoing:
    """A cursor over a body."""

    __slots__ = ("_at", "_body", "_index", "done")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._index = 0
        self._at = 0  # within the segment
        self.done = False
        self._settle()

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes that are ready; b"" if there are none yet. Sets `done` with the last of them.

        Raises BodyBroken when a source will never be complete, or is shorter than was promised.
        """
        segment = self._body.segments[self._index]
        if isinstance(segment, bytes):
            data = segment if limit >= len(segment) and not self._at else segment[self._at : self._at + limit]
        else:
            source, at = segment.source, segment.offset + self._at
            ready = source.ready(at)
            end = _end(segment)
            count = min(limit, (ready if end is None else min(ready, end)) - at)
            if count <= 0:
                return b""
            try:
                data = os.pread(source.fileno(), count, at)
            except OSError as error:
                raise BodyBroken(f"the file cannot be read: {error.strerror}") from error
            if not data:
                raise BodyBroken("the file is shorter than it says")
        self._at += len(data)
        self._settle()
        return data

    async def wait(self) -> None:
        """Until `take` has something, or the body is done. Raises BodyBroken. Cancellation changes nothing."""
        segment = self._body.segments[self._index]
        if not isinstance(segment, bytes):
            at = segment.offset + self._at
            if await segment.source.available(at) <= at:
                if segment.length is not None:
                    raise BodyBroken("the file is shorter than was promised")
                self._next()
                self._settle()

    def _settle(self) -> None:
        """Step over segments that have no more bytes."""
        segments = self._body.segments
        while self._index < len(segments):
            segment = segments[self._index]
            end = len(segment) if isinstance(segment, bytes) else _length(segment)
            if end is None or self._at < end:
                return
            self._next()
        self.done = True

    def _next(self) -> None:
        self._index += 1
        self._at = 0


def _length(span: Span) -> int | None:
    if span.length is not None:
        return span.length
    total = span.source.total
    return None if total is None else max(0, total - span.offset)


def _end(span: Span) -> int | None:
    length = _length(span)
    return None if length is None else span.offset + length


def body_length(body: Body) -> int | None:
    """What Content-Length says; None while one of the sources cannot tell."""
    if body.length is not None:
        return body.length
    total = 0
    for segment in body.segments:
        length = len(segment) if isinstance(segment, bytes) else _length(segment)
        if length is None:
            return None
        total += length
    return total


class Upload(Protocol):
    """What a request's body needs of its connection."""

    def body_wanted(self, stream_id: int) -> None:
        """The handler reads for the first time."""
        ...

    def body_taken(self, stream_id: int, count: int) -> None:
        """The handler has taken bytes: the peer may send as many again."""
        ...

    def body_stalled(self, stream_id: int) -> None:
        """The peer sent nothing for too long."""
        ...


class Incoming:
    """The body of a request, as it arrives. What waits in it is bounded by the stream's window."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_error",
        "_limit",
        "_progress",
        "_stream_id",
        "_wake",
        "_wanted",
        "ended",
        "length",
        "received",
    )

    def __init__(self, connection: Upload, stream_id: int, length: int | None, limit: int, progress: float) -> None:
        self.length = length
        self.received = 0
        self.ended = False
        self._connection = connection
        self._stream_id = stream_id
        self._limit = limit
        self._progress = progress
        self._buffer = bytearray()  # one buffer: a million frames of one byte are a megabyte, not a million objects
        self._error: Exception | None = None
        self._wake: trio.Event | None = None
        self._wanted = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._wanted:
            self._wanted = True
            if self.length is not None and self.length > self._limit:
                self.fail(self._too_large())
            else:
                self._connection.body_wanted(self._stream_id)
        while not self._buffer and self._error is None and not self.ended:
            self._wake = trio.Event()
            with trio.move_on_after(self._progress) as patience:
                await self._wake.wait()
            if patience.cancelled_caught:
                self.fail(Disconnected(f"the client sent nothing for {self._progress:g} s"))
                self._connection.body_stalled(self._stream_id)
        if self._error is not None:
            raise self._error
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        if data:
            self._connection.body_taken(self._stream_id, len(data))
        return data

    def feed(self, data: bytes) -> bool:
        """Bytes arrived. False when nobody will read them."""
        self.received += len(data)
        if self._error is None and self.received > self._limit:
            self.fail(self._too_large())
        if self._error is not None:
            return False
        self._buffer += data
        self._notify()
        return True

    def end(self) -> bool:
        """The body is whole; False when it is not as long as was said (RFC 9113 section 8.1.1)."""
        if self.length is not None and self.received != self.length:
            return False
        self.ended = True
        self._notify()
        return True

    def fail(self, error: Exception) -> int:
        """Nothing more will be read. Returns how many bytes were waiting."""
        waiting = len(self._buffer)
        self._buffer.clear()
        if self._error is None:
            self._error = error
        self._notify()
        return waiting

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._limit} bytes, the most that is taken here")

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()


class Sending(Enum):
    """Where the answer of a stream is: in a queue of `http2_output`, or why it is in none."""

    UNANSWERED = "the handler has not answered"
    QUEUED = "in one of the queues"
    STARVED = "the peer gives the stream no window"
    WAITING = "the source has no bytes yet"
    OVER = "sent to its end, or given up"


class Stream:
    """Everything about one exchange. The connection and its output are the only ones to touch it."""

    __slots__ = (
        "body_bytes",
        "ended",
        "error",
        "expects",
        "first_byte",
        "head_sent",
        "id",
        "incoming",
        "length",
        "outgoing",
        "over",
        "relay",
        "request",
        "response",
        "scope",
        "sending",
        "silent",
        "stalled",
        "started",
        "taken",
    )

    def __init__(self, stream_id: int, started: float, ended: bool) -> None:
        self.id = stream_id
        self.started = started
        self.ended = ended  # the request is whole
        self.expects = False  # the client waits for a 100 before it sends the body
        self.scope: trio.CancelScope | None = None  # of the handler, while it runs
        self.request: Request | None = None
        self.incoming: Incoming | None = None
        self.response: Response | None = None
        self.taken = 0  # bytes of the request's body that the handler has read
        self.length: int | None = None  # what Content-Length says of the answer
        self.silent = False  # the answer is its head alone: to HEAD, 204, 304
        self.outgoing: Outgoing | Relay | None = None  # once the head is sent, if the body did not go with it
        self.sending = Sending.UNANSWERED
        self.relay: Relay | None = None  # what a CONNECT made of the stream
        self.head_sent = False
        self.first_byte: float | None = None
        self.body_bytes = 0
        self.stalled = 0.0  # since when the peer gives no window
        self.error: str | None = None
        self.over = False  # `finished` was told
