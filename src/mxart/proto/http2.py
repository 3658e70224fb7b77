"""HTTP/2 on one connection (RFC 9113).

Theory of operation.  One task reads at a time: the leader.  It takes the events of the frames one
by one, and runs the handler of a new stream itself; most answer from memory without one wait.  The
first time that a handler has to wait, the leader hands its office to a new task and becomes that
stream's own (`blocking.noticing` tells when).  So every stream that waits has a task, nothing waits
for a stream but that task, and a request that is answered at once costs none.

What the leader has to send it sends itself, as far as the kernel takes it at once; what is left, or
comes from other tasks, is the writer's: whatever was put into the output while a batch was being sent
goes out as the next batch, one send.

Bounds.  Request bodies wait in their streams, and the windows, given back only as handlers read,
bound them (`http2_wire`). Output is one batch in flight and one being filled; when acknowledgements
and resets pile up because the peer does not read, the leader stops reading until they are gone.
Frames that only cost are counted (`http2_flood`).

Time.  The leader carries one deadline, the next moment at which something may have to be looked at:
an idle connection, streams that get no window, a drain whose PING is not acknowledged.  It is set
sooner when need be and never later: looking in vain once in a while is cheaper than a deadline a receive.

The end.  `_close` drops the streams, and the writer sends what is left, a GOAWAY last, within a
bound.  `finished` is told of an exchange when its last byte was taken by the transport, or its
handler, cancelled, has come to its end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
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

from mxart.errors import Disconnected
from mxart.message import Handler
from mxart.proto.draining import Draining
from mxart.proto.http2_events import Left, Opened
from mxart.proto.http2_exchanges import Exchanges, Http2Limits
from mxart.proto.http2_output import BATCH
from mxart.proto.http2_stream import Stream
from mxart.proto.http2_wire import Wire
from mxart.proto.transport import Transport

__all__ = ["Http2Limits", "serve_http2"]

log = logging.getLogger(__name__)

_READ = 64 << 10
_BACKLOG = 64 << 10  # bytes of output above which nothing more is read
_CLOSE_SECONDS = 2.0  # for the last bytes, GOAWAY among them, of a connection that is given up
_LAST_CALL_SECONDS = 1.0  # for the PING between the two GOAWAY of a drain
_DRAIN_PING = b"draining"
_ALL_STREAMS = 2**31 - 1


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
        self._limits = limits
        self._draining = draining
        self._wire = Wire(limits.header_bytes, limits.streams, now)
        self._exchanges = Exchanges(
            self._wire,
            transport.peer,
            handler,
            limits,
            notify=self._notify,
            lead=self._start_leading,
            on_less=self._one_less,
        )
        self._output = self._exchanges.output
        self._events: Iterator[Event] = self._wire.receive(initial, now)
        self._wake: trio.Event | None = None  # of the writer
        self._rest: bytes | bytearray | memoryview = b""  # of a batch, when the kernel did not take it at once
        self._begun: list[Stream] = []  # whose heads are in the batch that is being sent
        self._ended: list[Stream] = []  # whose last byte is
        self._lost = False
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
            async with trio.open_nursery() as nursery:
                self._exchanges.nursery = nursery
                self._start_leading()
                self._draining.tell(self)
                with self._writing:
                    orderly = await self._write()
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("serving HTTP/2 failed")
            orderly = False
        finally:
            self._draining.forget(self)
            self._exchanges.drop_all("the connection ended")
            self._ended += self._exchanges.ended
            self._tell_ended("the connection was lost")
            if orderly:
                await self._transport.aclose()
            else:
                self._transport.abort()

    # Reading

    def _start_leading(self) -> None:
        """Let another task read; the one that did, if any, belongs to its stream alone."""
        if self._reading is not None:
            self._reading.deadline = math.inf
            self._reading = None
        self._exchanges.nursery.start_soon(self._lead)

    async def _lead(self) -> None:
        """Read, until the connection ends or a handler has to wait."""
        try:
            while not self._closing:
                with trio.CancelScope(deadline=self._look_at) as scope:
                    self._reading = scope
                    await self._read(scope)
                if self._reading is not scope:
                    return  # another task leads now
                if not self._closing:
                    self._look_around(trio.current_time())
        except ProtocolError as error:
            self._close(f"the client broke the protocol: {error}")
        except Disconnected as error:
            self._close(str(error))
        except Exception:
            log.exception("serving HTTP/2 failed")
            self._close("an internal error")

    async def _read(self, scope: trio.CancelScope) -> None:
        """Take events and bytes, until it is time to look around, or another task leads, or the connection closes.

        One scope for all of it, and not one for each receive: its deadline holds until it has passed, whatever arrives
        meanwhile, and it becomes the stream's when the task does.  No handler may begin in it once it is cancelled.
        """
        if scope.cancel_called:
            return
        now = trio.current_time()
        while not self._closing:
            for event in self._events:
                if isinstance(event, Opened):
                    if not await self._exchanges.open(event, scope):
                        return
                else:
                    self._take(event)
            self._flush(now)
            while self._wire.pending > _BACKLOG:
                self._drained = trio.Event()
                await self._drained.wait()
            if not self._closing:
                data = await self._transport.receive_some(_READ, math.inf)
                if not data:
                    self._close("the client left")
                now = trio.current_time()
                self._events = self._wire.receive(data, now)
                if now >= self._look_at:
                    self._quiet_since = now  # the bytes came in time: what they ask for is seen to first
                    return

    def _take(self, event: Event) -> None:
        """Everything but a new stream."""
        exchanges = self._exchanges
        match event:
            case DataReceived():
                exchanges.feed(event)
            case StreamEnded(stream_id=stream_id):
                exchanges.end_of_body(stream_id or 0)
            case StreamReset():
                exchanges.was_reset(event)
            case WindowUpdated(stream_id=stream_id):
                stream = exchanges.streams.get(stream_id or 0)
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

    # Writing

    async def _write(self) -> bool:
        """Send what is more than the kernel takes at once, until the connection is closing and all is sent.

        False when the client is gone.
        """
        while not self._lost:
            rest, self._rest = self._rest, b""
            batch = rest or self._next_batch(trio.current_time())
            if batch:
                try:
                    await self._transport.send_all(batch)
                except Disconnected as error:
                    self._lose(str(error))
                except BaseException:  # cancelled
                    self._tell_ended("the connection was cut")
                    raise
                else:
                    self._was_sent()
            elif self._closing:
                return True
            else:
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None
        return False

    def _flush(self, now: float) -> None:
        """Send one batch, if the writer is idle and the kernel takes it; otherwise the writer will."""
        if self._wake is None or self._wake.is_set():
            return
        batch = self._next_batch(now)
        if not batch:
            return
        try:
            self._rest = self._transport.send_nowait(batch)
        except Disconnected as error:
            self._lose(str(error))
            return
        if self._rest:
            self._wake.set()
            return
        if len(batch) >= BATCH:
            self._wake.set()  # there is more
        self._was_sent()

    def _next_batch(self, now: float) -> bytearray:
        batch = self._output.fill(now)
        if self._output.starving:
            self._look_by(now + self._limits.progress_seconds)
        if batch:
            self._begun, self._output.begun = self._output.begun, []
            self._ended, self._exchanges.ended = self._exchanges.ended, []
        return batch

    def _was_sent(self) -> None:
        """The batch is with the transport."""
        now = perf_counter()
        for stream in self._begun:
            stream.first_byte = now
        self._tell_ended(None)
        if self._drained is not None:
            self._drained.set()

    def _lose(self, error: str) -> None:
        """The client is gone, and the batch with it."""
        self._lost = True
        self._close(error)
        self._tell_ended(error)

    def _tell_ended(self, error: str | None) -> None:
        ended, self._ended = self._ended, []
        for stream in ended:
            self._exchanges.tell(stream, error)

    def _notify(self) -> None:
        """There may be something to send."""
        if self._wake is not None:
            self._wake.set()

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
        if not self._exchanges.streams:
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
                self._exchanges.drop(
                    stream, f"the client gave no window for {limits.progress_seconds:g} s", ErrorCodes.CANCEL
                )
            self._look_by(now + limits.progress_seconds / 4)

    def leave(self) -> None:
        """Tell the client to open no more streams, in two steps, so that none is lost (RFC 9113 section 6.8)."""
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

    def _one_less(self) -> None:
        if not self._exchanges.streams:
            self._quiet_since = trio.current_time()
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._no_more_streams and not self._exchanges.streams and not self._closing:
            self._closing = True  # what is written goes out first, without a bound but the transport's
            self._notify()

    def _close(self, reason: str) -> None:
        """Drop everything, and let the writer send what it has."""
        log.debug("HTTP/2 with %s ends: %s", self._transport.peer.address, reason)
        self._closing = True
        self._exchanges.drop_all(reason)
        self._writing.deadline = min(self._writing.deadline, trio.current_time() + _CLOSE_SECONDS)
        self._notify()
