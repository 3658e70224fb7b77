"""What an HTTP/2 connection sends next. No I/O but pread(2) on files.

Theory of operation.  An answered stream goes through queues: `_heads` (its HEADERS are sent at
once, whatever the windows say), then `_bodies`, from which `fill` takes one stream after the other,
one DATA frame each, as long as the connection has window and the batch has room.  So every stream
with bytes and window gets the same share, and what is held in memory is one batch a connection.  A
stream without window of its own is `_starved` until it is credited; one whose source has no bytes
yet is out of the queues until `arrived`.  Where the end of a body turned out only later, an empty
frame in `_tails` says so; it needs no window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import time

from mxart.body import Body
from mxart.errors import BodyBroken
from mxart.proto.http2_events import Answer
from mxart.proto.http2_head import DateClock
from mxart.proto.http2_stream import Outgoing, Sending, Stream
from mxart.proto.http2_wire import Wire

BATCH = 32 << 10  # bytes that are read and framed before they are sent
_FRAME = 16 << 10  # the share of one turn, however large the peer lets frames be

_dates = DateClock()
_Queue = OrderedDict[int, Stream]


class Output:
    """The streams of one connection that have something to send.

    `on_wait`: a source has no bytes yet; wait for it and call `arrived`.  `on_broken`: a body cannot
    be finished.  `on_sent`: the last byte of a stream is in the batch.
    """

    def __init__(
        self,
        wire: Wire,
        on_wait: Callable[[Stream], None],
        on_broken: Callable[[Stream, str], None],
        on_sent: Callable[[Stream], None],
    ) -> None:
        self.begun: list[Stream] = []  # whose heads are in the batch
        self.stalled: float | None = None  # since when the connection has bodies and no window
        self._wire = wire
        self._date = ""
        self._body_bytes = 0  # in the batch
        self._on_wait = on_wait
        self._on_broken = on_broken
        self._on_sent = on_sent
        self._heads: _Queue = OrderedDict()
        self._tails: _Queue = OrderedDict()
        self._bodies: _Queue = OrderedDict()
        self._starved: _Queue = OrderedDict()

    def answer(self, stream: Stream) -> None:
        """A response is there."""
        stream.sending = Sending.QUEUED
        self._heads[stream.id] = stream

    def credited(self, stream: Stream) -> None:
        """The peer gave a stream window."""
        if stream.sending is Sending.STARVED and self._wire.window(stream.id) > 0:
            del self._starved[stream.id]
            self._queue(stream)

    def credited_all(self) -> None:
        """The peer changed the windows of all streams (RFC 9113 section 6.9.2)."""
        for stream in list(self._starved.values()):
            self.credited(stream)

    def arrived(self, stream: Stream) -> None:
        """The source of a stream has bytes again, or turned out to be at its end."""
        if stream.sending is Sending.WAITING:
            self._queue(stream)

    def drop(self, stream: Stream) -> None:
        """Forget a stream."""
        stream.sending = Sending.OVER
        for queue in (self._heads, self._tails, self._bodies, self._starved):
            queue.pop(stream.id, None)

    def stalled_before(self, moment: float) -> list[Stream]:
        """The streams that wait for window since a moment or longer."""
        return [stream for stream in self._starved.values() if stream.stalled <= moment]

    @property
    def starving(self) -> bool:
        """Whether the peer holds up any stream."""
        return bool(self._starved) or self.stalled is not None

    def fill(self, now: float) -> bytearray:
        """The next batch; empty when there is nothing to send now."""
        wire = self._wire
        self._date = _dates.at(time())
        while self._heads:
            self._head(self._heads.popitem(last=False)[1], now)
        while self._tails:
            stream = self._tails.popitem(last=False)[1]
            wire.send_body(stream.id, b"", ended=True)
            self._end(stream)
        while self._bodies and wire.pending < BATCH and wire.outbound_flow_control_window > 0:
            self._body(self._bodies.popitem(last=False)[1], now)
        if self._body_bytes:
            wire.meter.sent(self._body_bytes)
            self._body_bytes = 0
        if self._bodies and wire.outbound_flow_control_window <= 0:
            self.stalled = now if self.stalled is None else self.stalled
        else:
            self.stalled = None
        return wire.take()

    def _queue(self, stream: Stream) -> None:
        stream.sending = Sending.QUEUED
        done = stream.outgoing is None or stream.outgoing.done
        (self._tails if done else self._bodies)[stream.id] = stream

    def _head(self, stream: Stream, now: float) -> None:
        wire, response = self._wire, stream.response
        assert response is not None
        whole = None if stream.relay is not None else b"" if stream.silent else self._whole(stream.id, response.body)
        try:
            wire.answer(stream.id, Answer(response.status, response.headers, stream.length, self._date), whole)
        except ValueError as error:
            self._on_broken(stream, str(error))
            return
        stream.head_sent = True
        self.begun.append(stream)
        if whole is not None:
            stream.body_bytes = len(whole)
            self._body_bytes += len(whole)
            self._end(stream)
            return
        if stream.relay is not None:
            stream.outgoing = stream.relay
            stream.sending = Sending.WAITING
            if stream.relay.ready:
                self._queue(stream)
            return
        stream.outgoing = Outgoing(response.body)
        if wire.pending < BATCH and wire.outbound_flow_control_window > 0:
            self._body(stream, now)
        else:
            self._bodies[stream.id] = stream

    def _whole(self, stream_id: int, body: Body) -> bytes | None:
        """A body that can go out with its head: most answers are a few bytes in memory."""
        segments = body.segments
        if not segments:
            return b""
        wire, first = self._wire, segments[0]
        if (
            len(segments) == 1
            and isinstance(first, bytes)
            and (size := len(first)) <= _FRAME
            and size <= wire.outbound_flow_control_window
            and size <= wire.window(stream_id)
            and size <= wire.max_outbound_frame_size
            and wire.pending < BATCH
        ):
            return first
        return None

    def _body(self, stream: Stream, now: float) -> None:
        """One frame of a stream's body; the connection has window."""
        wire, outgoing = self._wire, stream.outgoing
        assert outgoing is not None
        room = min(wire.window(stream.id), wire.outbound_flow_control_window, wire.max_outbound_frame_size, _FRAME)
        if room <= 0:
            stream.sending = Sending.STARVED
            stream.stalled = now
            self._starved[stream.id] = stream
            return
        try:
            data = outgoing.take(room)
        except BodyBroken as error:
            self._on_broken(stream, str(error))
            return
        if not data:
            stream.sending = Sending.WAITING
            self._on_wait(stream)
            return
        stream.body_bytes += len(data)
        wire.send_body(stream.id, data, ended=outgoing.done)
        self._body_bytes += len(data)
        if outgoing.done:
            self._end(stream)
        else:
            self._bodies[stream.id] = stream

    def _end(self, stream: Stream) -> None:
        stream.sending = Sending.OVER
        self._on_sent(stream)
