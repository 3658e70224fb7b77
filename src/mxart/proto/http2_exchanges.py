"""The streams of one HTTP/2 connection, from request to answer: handlers, bodies, and what becomes of them.

Every way a stream can end comes by `_tell`, once: answered and sent, dropped because the client
cancelled, broke the protocol, or is gone, or because the body of the answer cannot be finished.  A
stream whose handler still runs is cancelled, and told of by its own task.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamReset
from msgspec import Struct

from mxart.errors import BodyBroken, Disconnected
from mxart.message import NO_BODY, Handler, Peer, Request, Response, Sent
from mxart.proto.blocking import noticing
from mxart.proto.http2_events import Opened
from mxart.proto.http2_head import Head, Refused
from mxart.proto.http2_output import Output
from mxart.proto.http2_relay import Relay
from mxart.proto.http2_stream import Incoming, Outgoing, Stream, body_length
from mxart.proto.http2_wire import Wire
from mxart.takeover import Takeover

log = logging.getLogger(__name__)

_KEEPS_UP = 256 << 10  # bytes of a body that were read: its handler is one that reads
_SWALLOWED = 64 << 20  # bytes of a body that nobody wants: more is not waited for


class Http2Limits(Struct, frozen=True):
    """What a client may take. Bytes and seconds."""

    header_bytes: int = 65536  # of a request's fields, counted as RFC 9113 section 6.5.2 does
    body_bytes: int = 10 << 30  # of a request's body
    idle_seconds: float = 75.0  # without a stream
    progress_seconds: float = 60.0  # without a byte of a request's body, or window for an answer's
    streams: int = 128  # at once


class Exchanges:
    """The live streams of a connection, by their numbers in `streams`.

    `notify`: there is something to send; `lead`: the task that runs a handler leads no more, start
    one that does; `on_less`: a stream is gone.  `nursery` is the connection's.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        wire: Wire,
        peer: Peer,
        handler: Handler,
        limits: Http2Limits,
        *,
        notify: Callable[[], None],
        lead: Callable[[], None],
        on_less: Callable[[], None],
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self.ended: list[Stream] = []  # whose last byte is in the batch that is being filled
        self.output = Output(wire, self._wait_for_source, self._broken, self._sent)
        self._wire = wire
        self._peer = peer
        self._handler = handler
        self._limits = limits
        self._notify = notify
        self._lead = lead
        self._on_less = on_less
        self._handlers = 0  # under way, of dropped streams too
        self._rests: set[int] = set()  # streams that are answered, and may still send what they announced

    async def open(self, event: Opened, scope: trio.CancelScope) -> bool:
        """Run a new stream's handler. False when this task, and its scope, became the stream's and no longer leads."""
        stream = Stream(event.stream_id, perf_counter(), event.ended)
        if isinstance(event.head, Refused):
            self.streams[stream.id] = stream
            refusal = self._handler.refuse(event.head.status, event.head.message, self._peer)
            self._answer(stream, refusal)
            return True
        # Handlers of streams that were reset may still be on their way out; they count.
        if self._handlers >= 2 * self._limits.streams:
            self._wire.refuse(stream.id)
            return True
        self.streams[stream.id] = stream
        stream.request = self._request(stream, event.head)
        leading = True

        def hand_over() -> None:
            nonlocal leading
            leading = False
            stream.scope = scope
            self._notify()
            self._lead()

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
                self.tell(stream, stream.error)
            elif response is None:
                self.drop(stream, "the handler did not answer", ErrorCodes.INTERNAL_ERROR)
            else:
                self._answer(stream, response)
            if not leading:
                self._notify()
        return leading

    def feed(self, event: DataReceived) -> None:
        data, size = event.data or b"", event.flow_controlled_length or 0
        stream = self.streams.get(event.stream_id or 0)
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

    def end_of_body(self, stream_id: int) -> None:
        """The request is whole."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.ended = True
            if stream.incoming is not None and not stream.incoming.end():
                self._blame(stream, "the body is not as long as its content-length")
        elif stream_id in self._rests:
            self._rests.remove(stream_id)
            self._wire.forget(stream_id)

    def was_reset(self, event: StreamReset) -> None:
        """By the client, or by h2 for an error of the client."""
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self._rests.discard(event.stream_id)
            self._wire.forget(event.stream_id)
        else:
            why = "the client cancelled" if event.remote_reset else "the client broke the protocol"
            self.drop(stream, f"{why} ({event.error_code!r})")

    def drop_all(self, reason: str) -> None:
        """The connection is over."""
        for stream in [*self.streams.values()]:
            self.drop(stream, reason)

    def _request(self, stream: Stream, head: Head) -> Request:
        limits = self._limits
        if not stream.ended:
            stream.expects = head.expects
            # Through a tunnel comes as much as will, and when it will.
            most, patience = (
                (sys.maxsize, math.inf) if head.method == "CONNECT" else (limits.body_bytes, limits.progress_seconds)
            )
            stream.incoming = Incoming(self, stream.id, head.length, most, patience)
        return Request(
            head.method,
            head.target,
            head.authority,
            head.headers,
            self._peer,
            "2",
            NO_BODY if stream.incoming is None else stream.incoming,
        )

    def _answer(self, stream: Stream, response: Response) -> None:
        stream.response = response
        if isinstance(response.body, Takeover):
            stream.relay = Relay(stream.incoming, partial(self._arrived, stream))
            self.output.answer(stream)
            self.nursery.start_soon(self._take_over, stream, stream.relay, response.body)
            return
        if stream.incoming is not None:
            self._wire.give_back(stream.incoming.fail(Disconnected("the request was answered already")))
        if response.status in {204, 304}:
            stream.silent = True
        else:
            stream.length = body_length(response.body)
            stream.silent = stream.request is not None and stream.request.method == "HEAD"
        self.output.answer(stream)

    def _sent(self, stream: Stream) -> None:
        """The answer is in the batch, whole."""
        if stream.relay is not None:
            stream.relay.sent = True
            if not stream.relay.finished:
                return  # the client's way may still be open
        self._complete(stream)
        self.ended.append(stream)

    def _complete(self, stream: Stream) -> None:
        """There is nothing more to do for a stream."""
        self._remove(stream)
        self._wire.meter.answered()
        if not stream.ended:
            rest = self._rest(stream)
            if 0 < rest <= _SWALLOWED:
                self._rests.add(stream.id)
                self._wire.sip(stream.id, rest)
                return
            self._wire.reset(stream.id, ErrorCodes.NO_ERROR)  # RFC 9113 section 8.1: send no more of the request
        self._wire.forget(stream.id)

    def _rest(self, stream: Stream) -> int:
        """Bytes of the body that the client is going to send though it has its answer; 0 where that is not known.

        Java's client, before JDK 21, waits for the window of a request that was answered early, whatever else it is
        told (JDK-8293786): Maven 4 puts the first file of a deploy without a login, and would hang.
        """
        incoming = stream.incoming
        if incoming is None or incoming.length is None or stream.expects:
            return 0  # whoever waits for a 100 sends nothing
        return incoming.length - incoming.received

    def _broken(self, stream: Stream, reason: str) -> None:
        self.drop(stream, reason, ErrorCodes.INTERNAL_ERROR)

    def _blame(self, stream: Stream, reason: str) -> None:
        """The client's own error. Raises Flooded when there are many."""
        self.drop(stream, reason)
        self._wire.blame(stream.id)

    def drop(self, stream: Stream, reason: str, code: ErrorCodes | None = None, *, cancel: bool = True) -> None:
        """Give up a stream; with a code, reset it."""
        stream.error = reason
        self._remove(stream)
        self.output.drop(stream)
        if code is not None:
            self._wire.reset(stream.id, code)
        elif not self._wire.is_open(stream.id):
            self._wire.forget(stream.id)
        if stream.incoming is not None:
            self._wire.give_back(stream.incoming.fail(Disconnected(reason)))
        if stream.scope is None:
            self.tell(stream, reason)
        elif cancel:
            stream.scope.cancel()  # and its task tells
        self._notify()

    def _remove(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self._on_less()

    def tell(self, stream: Stream, error: str | None) -> None:
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
        stream = self.streams.get(stream_id)
        if stream is not None and stream.expects and not stream.ended and stream.incoming is not None:
            stream.expects = False
            if not stream.incoming.received:
                self._wire.go_on(stream_id)
                self._notify()

    def body_taken(self, stream_id: int, count: int) -> None:
        self._wire.give_back(count, stream_id)
        stream = self.streams.get(stream_id)
        if stream is not None:
            if stream.taken < _KEEPS_UP <= stream.taken + count and not stream.ended:
                self._wire.widen(stream_id)
            stream.taken += count
        if self._wire.pending:
            self._notify()

    def body_stalled(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.drop(stream, "the client stopped sending its body", ErrorCodes.CANCEL, cancel=False)

    # Tunnels

    async def _take_over(self, stream: Stream, relay: Relay, body: Takeover) -> None:
        """Let a stream that a CONNECT was granted for be used, until both its ways have ended."""
        if stream.over:
            return  # dropped, and told of
        broken: tuple[str, ErrorCodes] | None = None
        self._handlers += 1
        try:
            with trio.CancelScope() as stream.scope:
                await body.run(relay)
        except Disconnected as error:
            broken = str(error), ErrorCodes.CONNECT_ERROR  # RFC 9113 section 8.5
        except Exception:
            log.exception("a tunnel failed")
            broken = "an internal error", ErrorCodes.INTERNAL_ERROR
        finally:
            self._handlers -= 1
            stream.scope = None
            if stream.error is not None:  # dropped meanwhile
                self.tell(stream, stream.error)
        relay.finished = True
        if self.streams.get(stream.id) is not stream:
            return
        if broken is not None:
            self.drop(stream, *broken)
        elif relay.sent:
            self._complete(stream)
            self.tell(stream, None)
            self._notify()

    def _arrived(self, stream: Stream) -> None:
        """A tunnel has something to send."""
        self.output.arrived(stream)
        self._notify()

    def _wait_for_source(self, stream: Stream) -> None:
        if stream.relay is None:  # which tells by itself
            self.nursery.start_soon(self._wait_for_bytes, stream)

    async def _wait_for_bytes(self, stream: Stream) -> None:
        """Until a growing source has more."""
        assert isinstance(stream.outgoing, Outgoing)
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
                self.tell(stream, stream.error)
        if stream.error is None:
            self.output.arrived(stream)
            self._notify()
