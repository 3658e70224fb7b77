"""HTTP/2 on one connection (RFC 9113).

Theory of operation.  One task reads at a time: the leader.  It takes the events of the frames one
by one, and runs the handler of a new stream itself; most answer from memory without one wait.  The
first time that a handler has to wait, the leader hands its office to a new task and becomes that
stream's own (`blocking.noticing` tells when).  So every stream that waits has a task, nothing waits
for a stream but that task, and a request that is answered at once costs none.

One task writes: whatever was put into the output while a batch was being sent goes out as the next
batch, one send.

Bounds.  Request bodies wait in their streams, and the windows, given back only as handlers read,
bound them (`http2_wire`). Output is one batch in flight and one being filled; when acknowledgements
and resets pile up because the peer does not read, the leader stops reading until they are gone.
Frames that only cost are counted (`http2_flood`).

Time.  The leader's receive carries one deadline, the next moment at which something may have to be
looked at: an idle connection, streams that get no window, a drain whose PING is not acknowledged.

The end.  `_close` drops the streams, and the writer sends what is left, a GOAWAY last, within a
bound.  `finished` is told of an exchange when its last byte was taken by the transport, or its
handler, cancelled, has come to its end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import trio
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from mxart.errors import BodyBroken, Disconnected
from mxart.message import NO_BODY, Handler, Request, Response, Sent
from mxart.proto.blocking import noticing
from mxart.proto.http1 import Draining
from mxart.proto.http2_head import Head, Refused
from mxart.proto.http2_output import Output
from mxart.proto.http2_stream import Incoming, Stream, body_length
from mxart.proto.http2_wire import Left, Opened, Wire
from mxart.proto.transport import Transport

log = logging.getLogger(__name__)

_READ = 64 << 10
_BACKLOG = 64 << 10  # bytes of output above which nothing more is read
_KEEPS_UP = 256 << 10  # bytes of a body that were read: its handler is one that reads
_CLOSE_SECONDS = 2.0  # for the last bytes, GOAWAY among them, of a connection that is given up
_LAST_CALL_SECONDS = 1.0  # for the PING between the two GOAWAY of a drain
_DRAIN_PING = b"draining"
_ALL_STREAMS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """What a client may take. Bytes and seconds."""

    header_bytes: int = 65536  # of a request's fields, counted as RFC 9113 section 6.5.2 does
    body_bytes: int = 10 << 30  # of a request's body
    idle_seconds: float = 75.0  # without a stream
    progress_seconds: float = 60.0  # without a byte of a request's body, or window for an answer's
    streams: int = 128  # at once


async def serve_http2(
    transport: Transport, handler: Handler, limits: Http2Limits, draining: Draining, initial: bytes = b""
) -> None:
    """Serve a connection, whose client speaks first the preface, to its end, and close it.

    `initial`: bytes that were read from it already.  Never raises but for cancellation, which aborts
    the connection; the handlers under way are cancelled with it, and told of as `finished` before
    this returns.
    """
    await _Connection(transport, handler, limits, draining, initial).run()


class _Connection:
    def __init__(
        self, transport: Transport, handler: Handler, limits: Http2Limits, draining: Draining, initial: bytes
    ) -> None:
        now = trio.current_time()
        self._transport = transport
        self._handler = handler
        self._limits = limits
        self._draining = draining
        self._wire = Wire(limits.header_bytes, limits.streams, now)
        self._output = Output(self._wire, self._wait_for_source, self._broken, self._sent)
        self._events: Iterator[Event] = self._wire.receive(initial, now)
        self._streams: dict[int, Stream] = {}
        self._handlers = 0  # under way, of dropped streams too
        self._ended: list[Stream] = []  # whose last byte is in the batch that is being sent
        self._wake: trio.Event | None = None  # of the writer
        self._drained: trio.Event | None = None  # of the leader, while the output is too long
        self._writing = trio.CancelScope()
        self._reading: trio.CancelScope | None = None
        self._quiet_since = now
        self._look_at = now + limits.idle_seconds
        self._last_call_at: float | None = None  # when the PING of the drain has been waited for long enough
        self._no_more_streams = False
        self._closing = False

    async def run(self) -> None:
        orderly = False
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._lead)
                self._nursery.start_soon(self._drain)
                with self._writing:
                    orderly = await self._write()
                self._nursery.cancel_scope.cancel()
        finally:
            for stream in [*self._streams.values()]:
                self._drop(stream, "the connection ended")
            for stream in self._ended:
                self._tell(stream, "the connection was lost")
            if orderly:
                await self._transport.aclose()
            else:
                self._transport.abort()

    # Reading

    async def _lead(self) -> None:
        """Read, until the connection ends or a handler has to wait."""
        try:
            # One scope a task, not one a stream: it becomes the stream's when the task does.
            with trio.CancelScope() as scope:
                while not self._closing:
                    for event in self._events:
                        if isinstance(event, Opened):
                            if not await self._open(event, scope):
                                return  # another task leads now
                        else:
                            self._take(event)
                    self._notify()
                    await self._receive()
        except ProtocolError as error:
            self._close(f"the client broke the protocol: {error}")
        except Disconnected as error:
            self._close(str(error))
        except Exception:
            log.exception("serving HTTP/2 failed")
            self._close("an internal error")

    async def _receive(self) -> None:
        while self._wire.pending > _BACKLOG:
            self._drained = trio.Event()
            await self._drained.wait()
        while not self._closing:
            with trio.CancelScope(deadline=self._look_at) as self._reading:
                data = await self._transport.receive_some(_READ, math.inf)
                if not data:
                    self._close("the client left")
                self._events = self._wire.receive(data, trio.current_time())
                return
            self._look_around(trio.current_time())

    def _take(self, event: Event) -> None:
        """Everything but a new stream."""
        match event:
            case DataReceived():
                self._feed(event)
            case StreamEnded():
                stream = self._streams.get(event.stream_id or 0)
                if stream is not None:
                    stream.ended = True
                    if stream.incoming is not None and not stream.incoming.end():
                        self._blame(stream, "the body is not as long as its content-length")
            case StreamReset():
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self._wire.forget(event.stream_id)
                else:
                    why = "the client cancelled" if event.remote_reset else "the client broke the protocol"
                    self._drop(stream, f"{why} ({event.error_code!r})")
            case WindowUpdated(stream_id=stream_id):
                stream = self._streams.get(stream_id or 0)
                if stream is not None:
                    self._output.credited(stream)
            case RemoteSettingsChanged():
                self._output.credited_all()
            case PingAckReceived(ping_data=data):
                if data == _DRAIN_PING and self._last_call_at is not None:
                    self._last_call()
            case Left(error_code=code):
                self._no_more_streams = True
                if code != ErrorCodes.NO_ERROR:
                    self._close("the client gave up the connection")
                self._close_if_done()
            case _:
                pass  # acknowledgements, priorities, extensions: nothing to do

    def _feed(self, event: DataReceived) -> None:
        data, size = event.data or b"", event.flow_controlled_length or 0
        stream = self._streams.get(event.stream_id or 0)
        incoming = None if stream is None else stream.incoming
        if stream is None or incoming is None:
            self._wire.give_back(size)
            return
        if not incoming.feed(data):
            # Nobody reads: the connection gets its window back, the stream does not, and the client stops.
            self._wire.give_back(size)
        elif size > len(data):
            self._wire.give_back(size - len(data), stream.id)  # padding
        if incoming.length is not None and incoming.received > incoming.length:
            self._blame(stream, "the body is longer than its content-length")

    # Exchanges

    async def _open(self, event: Opened, scope: trio.CancelScope) -> bool:
        """Run a new stream's handler. False when this task, and its scope, became the stream's and no longer leads."""
        stream = Stream(event.stream_id, perf_counter(), event.ended)
        if isinstance(event.head, Refused):
            self._streams[stream.id] = stream
            refusal = self._handler.refuse(event.head.status, event.head.message, self._transport.peer)
            self._answer(stream, refusal)
            return True
        # Handlers of streams that were reset may still be on their way out; they count.
        if self._handlers >= 2 * self._limits.streams:
            self._wire.refuse(stream.id)
            return True
        self._streams[stream.id] = stream
        stream.request = self._request(stream, event.head)
        leading = True

        def hand_over() -> None:
            nonlocal leading
            leading = False
            stream.scope = scope
            self._notify()
            self._nursery.start_soon(self._lead)

        response: Response | None = None
        self._handlers += 1
        try:
            response = await noticing(self._handler.handle(stream.request), hand_over)
        except Disconnected:
            pass  # of the request's body: the stream is dropped already
        except Exception:
            log.exception("a handler failed")
        finally:
            self._handlers -= 1
            stream.scope = None
            if stream.error is not None:  # dropped meanwhile
                if response is not None:
                    response.body.close()
                self._tell(stream, stream.error)
            elif response is None:
                self._drop(stream, "the handler did not answer", ErrorCodes.INTERNAL_ERROR)
            else:
                self._answer(stream, response)
            if not leading:
                self._notify()
        return leading

    def _request(self, stream: Stream, head: Head) -> Request:
        limits = self._limits
        if not stream.ended:
            stream.expects = head.expects
            stream.incoming = Incoming(self, stream.id, head.length, limits.body_bytes, limits.progress_seconds)
        return Request(
            head.method,
            head.target,
            head.authority,
            head.headers,
            self._transport.peer,
            "2",
            NO_BODY if stream.incoming is None else stream.incoming,
        )

    def _answer(self, stream: Stream, response: Response) -> None:
        stream.response = response
        if stream.incoming is not None:
            self._wire.give_back(stream.incoming.fail(Disconnected("the request was answered already")))
        if response.status in {204, 304}:
            stream.silent = True
        else:
            stream.length = body_length(response.body)
            stream.silent = stream.request is not None and stream.request.method == "HEAD"
        self._output.answer(stream)

    def _sent(self, stream: Stream) -> None:
        """The answer is in the batch, whole."""
        self._remove(stream)
        if not stream.ended:
            self._wire.reset(stream.id, ErrorCodes.NO_ERROR)  # RFC 9113 section 8.1: send no more of the request
        self._wire.forget(stream.id)
        self._wire.meter.answered()
        self._ended.append(stream)

    def _broken(self, stream: Stream, reason: str) -> None:
        self._drop(stream, reason, ErrorCodes.INTERNAL_ERROR)

    def _blame(self, stream: Stream, reason: str) -> None:
        """The client's own error. Raises Flooded when there are many."""
        self._drop(stream, reason)
        self._wire.blame(stream.id)

    def _drop(self, stream: Stream, reason: str, code: ErrorCodes | None = None, *, cancel: bool = True) -> None:
        """Give up a stream; with a code, reset it."""
        stream.error = reason
        self._remove(stream)
        self._output.drop(stream)
        if code is not None:
            self._wire.reset(stream.id, code)
        elif not self._wire.is_open(stream.id):
            self._wire.forget(stream.id)
        if stream.incoming is not None:
            self._wire.give_back(stream.incoming.fail(Disconnected(reason)))
        if stream.scope is None:
            self._tell(stream, reason)
        elif cancel:
            stream.scope.cancel()  # and its task tells
        self._notify()

    def _remove(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        if not self._streams:
            self._quiet_since = trio.current_time()
        self._close_if_done()

    def _tell(self, stream: Stream, error: str | None) -> None:
        """Close the body, and tell the handler, once."""
        if stream.over:
            return
        stream.over = True
        if stream.response is not None:
            stream.response.body.close()
        if stream.request is not None:
            sent = Sent(stream.started, stream.first_byte, perf_counter(), stream.body_bytes, error)
            self._handler.finished(stream.request, stream.response, sent)

    # What the bodies of requests ask for

    def body_wanted(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.expects and not stream.ended and stream.incoming is not None:
            stream.expects = False
            if not stream.incoming.received:
                self._wire.go_on(stream_id)
                self._notify()

    def body_taken(self, stream_id: int, count: int) -> None:
        self._wire.give_back(count, stream_id)
        stream = self._streams.get(stream_id)
        if stream is not None:
            if stream.taken < _KEEPS_UP <= stream.taken + count and not stream.ended:
                self._wire.widen(stream_id)
            stream.taken += count
        if self._wire.pending:
            self._notify()

    def body_stalled(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._drop(stream, "the client stopped sending its body", ErrorCodes.CANCEL, cancel=False)

    # Writing

    async def _write(self) -> bool:
        """Send until the connection is closing and all is sent. False when the client is gone."""
        while True:
            batch = self._output.fill(trio.current_time())
            if self._output.starving:
                self._look_by(trio.current_time() + self._limits.progress_seconds)
            if batch:
                begun, self._output.begun = self._output.begun, []
                ended, self._ended = self._ended, []
                try:
                    await self._transport.send_all(batch)
                except Disconnected as error:
                    self._close(str(error))
                    for stream in ended:
                        self._tell(stream, str(error))
                    return False
                except BaseException:
                    for stream in ended:
                        self._tell(stream, "the connection was cut")
                    raise
                now = perf_counter()
                for stream in begun:
                    stream.first_byte = now
                for stream in ended:
                    self._tell(stream, None)
                if self._drained is not None:
                    self._drained.set()
            elif self._closing:
                return True
            else:
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None

    def _notify(self) -> None:
        """There may be something to send."""
        if self._wake is not None:
            self._wake.set()

    def _wait_for_source(self, stream: Stream) -> None:
        self._nursery.start_soon(self._wait_for_bytes, stream)

    async def _wait_for_bytes(self, stream: Stream) -> None:
        """Until a growing source has more."""
        assert stream.outgoing is not None
        try:
            with trio.CancelScope() as stream.scope:
                await stream.outgoing.wait()
        except BodyBroken as error:
            stream.scope = None
            if stream.error is None:
                self._broken(stream, str(error))
        except Exception:
            log.exception("a source failed")
            stream.scope = None
            if stream.error is None:
                self._broken(stream, "an internal error")
        finally:
            stream.scope = None
            if stream.error is not None:
                self._tell(stream, stream.error)
        if stream.error is None:
            self._output.arrived(stream)
            self._notify()

    # Time and the end

    def _look_by(self, moment: float) -> None:
        """Look around no later than this."""
        if moment < self._look_at:
            self._look_at = moment
            if self._reading is not None:
                self._reading.deadline = moment

    def _look_around(self, now: float) -> None:
        """Give up what has waited for too long."""
        limits = self._limits
        self._look_at = now + limits.idle_seconds
        if not self._streams:
            if now - self._quiet_since >= limits.idle_seconds:
                self._wire.goaway(self._wire.highest_inbound_stream_id)
                self._close("idle")
                return
            self._look_at = self._quiet_since + limits.idle_seconds
        if self._last_call_at is not None:
            if now >= self._last_call_at:
                self._last_call()
            else:
                self._look_by(self._last_call_at)
        if self._output.starving:
            oldest = now - limits.progress_seconds
            if self._output.stalled is not None and self._output.stalled <= oldest:
                self._wire.goaway(self._wire.highest_inbound_stream_id)
                self._close(f"the client took nothing for {limits.progress_seconds:g} s")
                return
            for stream in self._output.stalled_before(oldest):
                self._drop(stream, f"the client gave no window for {limits.progress_seconds:g} s", ErrorCodes.CANCEL)
            self._look_by(now + limits.progress_seconds / 4)

    async def _drain(self) -> None:
        """Tell the client to open no more streams, in two steps, so that none is lost (RFC 9113 section 6.8)."""
        await self._draining.wait()
        if not self._closing:
            self._wire.goaway(_ALL_STREAMS)
            self._wire.ping(_DRAIN_PING)
            self._last_call_at = trio.current_time() + _LAST_CALL_SECONDS
            self._look_by(self._last_call_at)
            self._notify()

    def _last_call(self) -> None:
        """Whatever the client sent before it heard of the drain has arrived."""
        self._last_call_at = None
        self._no_more_streams = True
        self._wire.highest_answered = self._wire.highest_inbound_stream_id
        self._wire.goaway(self._wire.highest_answered)
        self._close_if_done()
        self._notify()

    def _close_if_done(self) -> None:
        if self._no_more_streams and not self._streams and not self._closing:
            self._closing = True  # what is written goes out first, without a bound but the transport's
            self._notify()

    def _close(self, reason: str) -> None:
        """Drop everything, and let the writer send what it has."""
        log.debug("HTTP/2 with %s ends: %s", self._transport.peer.address, reason)
        self._closing = True
        for stream in [*self._streams.values()]:
            self._drop(stream, reason)
        self._writing.deadline = min(self._writing.deadline, trio.current_time() + _CLOSE_SECONDS)
        self._notify()
