"""HTTP/1.1 on one connection: requests in, responses out, until one side has had enough.

Theory of operation.  The bytes that have arrived and are not used yet are `_buffer`.  Each round takes
a head from it: one whose exact bytes were seen before is recalled (see `heads`); any other one goes
through an h11 connection of its own, which afterwards also unframes the request's body.  A round has
one h11 connection because what follows a message on the wire is simply the next round's buffer.

One task does everything, and another stands beside it while a handler waits: it reads ahead into the
buffer to notice that the client has left, which cancels everything here, the handler included.  It is gone
before the main task touches the transport's receiving side again.  A client that closes only its
sending side looks the same as one that has left, and is treated so while the handler waits, as other servers do.
What ends the connection when no request is under way and the server drains, or the client has been idle for too
long, is the worker's (see `draining`), so that neither a connection nor a request pays for a task or a timer.
"""

from __future__ import annotations

import logging
import math
from time import perf_counter

import h11
import trio
from msgspec import Struct

from mxart.body import EMPTY
from mxart.errors import BodyBroken, Disconnected
from mxart.message import NO_BODY, Handler, Request, Response, Sent
from mxart.proto.blocking import noticing
from mxart.proto.draining import Draining
from mxart.proto.heads import (
    BODILESS,
    ESTABLISHED,
    BadHead,
    Framed,
    Head,
    bad_head,
    check_raw,
    read_head,
    recall,
    remember,
    render_head,
)
from mxart.proto.http1_body import READ_BYTES, Http1Body
from mxart.proto.transmit import Progress, transmit
from mxart.proto.transport import Transport
from mxart.takeover import Takeover

log = logging.getLogger(__name__)

_AHEAD = 65536  # how much is read ahead of a handler that waits
_BODY_FIRST = 0.5  # seconds that an answer waits for the rest of a small body that nobody wanted


class Http1Limits(Struct, frozen=True):
    """What a client may take. Bytes and seconds."""

    header_bytes: int = 65536  # of a request's head
    body_bytes: int = 10 << 30  # of a request's body
    idle_seconds: float = 75.0  # between requests
    head_seconds: float = 30.0  # from a head's first byte to its last


async def serve_http1(
    transport: Transport, handler: Handler, limits: Http1Limits, draining: Draining, initial: bytes = b""
) -> None:
    """Serve a connection to its end, and close it.

    `initial`: bytes that were read from it already.  Never raises but for cancellation, which
    aborts the connection; a handler under way is cancelled with it.
    """
    await _Connection(transport, handler, limits, draining, initial).run()


class _Connection:
    def __init__(
        self, transport: Transport, handler: Handler, limits: Http1Limits, draining: Draining, initial: bytes
    ) -> None:
        self.transport = transport
        self.limits = limits
        self.buffer = initial
        self._handler = handler
        self._draining = draining
        self._idle = False  # waiting for a request
        self._idle_since = 0.0
        self._idling = trio.CancelScope()  # cancelled to end a connection that is idle
        self._leaving = False  # this request is the last one
        # Of the request under way:
        self._gone = False  # its client has left
        self._waiting = False  # its handler has not answered at once
        self._body: Http1Body | None = None
        self._watch: _Watch | None = None

    async def run(self) -> None:
        polite = False
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._draining.look_after(self)
                polite = await self._serve()
                nursery.cancel_scope.cancel()
        finally:
            self._draining.forget(self)
            if polite:
                await self.transport.aclose()
            else:
                self.transport.abort()

    @property
    def due(self) -> float:
        """See draining.Idling."""
        return (self._idle_since if self._idle else trio.current_time()) + self.limits.idle_seconds

    def leave(self) -> None:
        """See draining.Idling."""
        self._leaving = True
        if self._idle:
            self._idling.cancel()

    async def _serve(self) -> bool:
        """Whether the connection ended in order."""
        try:
            try:
                with self._idling:
                    while await self._next() and not self._leaving:
                        if not await self._round():
                            return True
                if self.buffer:
                    # A request came in just when the connection was told to end: it is the last one.
                    await self._round()
            except BadHead as error:
                await self._refuse(error.status, str(error))
        except (Disconnected, BodyBroken):
            return False
        except Exception:
            log.exception("serving HTTP/1.1 failed")
            return False
        return True

    async def _next(self) -> bool:
        """Wait for the bytes of the next request, if need be; False if there will be none."""
        if self.buffer:
            return True
        self._idle_since = trio.current_time()
        self._idle = True
        try:
            self.buffer = await self.transport.receive_some(READ_BYTES, math.inf)
        except Disconnected:
            return False
        finally:
            self._idle = False
        return bool(self.buffer)

    async def _round(self) -> bool:
        """One request and its response; whether there may be another."""
        known = recall(self.buffer)
        if known is not None and known[1] <= self.limits.header_bytes:
            head, end = known
            self.buffer = self.buffer[end:]
            return await self._exchange(head, None)
        return await self._read_request()

    async def _read_request(self) -> bool:
        """The ordinary way of a request, through h11."""
        wire = h11.Connection(h11.SERVER, self.limits.header_bytes)
        with trio.move_on_after(self.limits.head_seconds) as deadline:
            head = await self._read_head(wire)
        if deadline.cancelled_caught:
            raise BadHead(408, f"The head of the request took longer than {self.limits.head_seconds:g} s")
        if head is None:
            return False
        if head.length == 0:
            return await self._exchange(head, None)
        body = Http1Body(
            self.transport,
            wire,
            head.length,
            max_bytes=self.limits.body_bytes,
            skip_seconds=self.limits.head_seconds,
            on_end=self._body_ended,
        )
        return await self._exchange(head, body)

    async def _read_head(self, wire: h11.Connection) -> Head | None:
        # RFC 9112 section 2.2: empty lines before a request are ignored.
        raw = bytearray(self.buffer.lstrip(b"\r\n"))
        self.buffer = b""
        if raw:
            wire.receive_data(bytes(raw))
        try:
            while type(event := wire.next_event()) is not h11.Request:
                data = await self.transport.receive_some(READ_BYTES, math.inf)  # the head has one deadline
                if not data:
                    return None
                if not raw:
                    data = data.lstrip(b"\r\n")
                if data:
                    raw += data
                    wire.receive_data(data)
            rest = wire.trailing_data[0]
            del raw[len(raw) - len(rest) :]
            check_raw(bytes(raw), self.limits.header_bytes)
            head = read_head(event)
            if head.length == 0:
                wire.next_event()  # EndOfMessage
                self.buffer = rest
                remember(bytes(raw), head)
        except h11.RemoteProtocolError as error:
            raise bad_head(error) from None
        return head

    async def _exchange(self, head: Head, body: Http1Body | None) -> bool:
        request = Request(
            head.method,
            head.target,
            head.authority,
            head.headers,
            self.transport.peer,
            head.version,
            NO_BODY if body is None else body,
            absolute=head.absolute,
        )
        started = perf_counter()
        progress = Progress()
        response: Response | None = None
        error: str | None = None
        keep = False
        try:
            self._body = body
            try:
                response = await noticing(self._handler.handle(request), self._handler_waits)
                keep = self._may_keep(head, body)
                if keep and body is not None and not body.complete:
                    # containerd 1.6 hangs for good where it is answered (that it has to log in) while it still
                    # writes a manifest.  No other server does that to it: Go's reads a small body before it answers.
                    await body.skip(_BODY_FIRST)
                framed = _render(response, head, keep)
            except Exception as bug:
                # The handler's promise is broken, or it made a field that h11 refuses. The client is told, not cut off.
                log.exception("%s %s: no response could be made", head.method, head.target)
                error = repr(bug)
                if response is not None:
                    response.body.close()
                response = self._handler.refuse(500, "The server could not make its answer", self.transport.peer)
                keep = False
                framed = _render(response, head, keep)
            self._waiting = False
            if self._watch is not None:
                self._watch.cancel()  # it ends while we send: the answer need not wait for that
            if isinstance(response.body, Takeover):
                await self._hand_over(response.body, progress)
            else:
                unsent = head.method == "HEAD" or response.status in BODILESS
                await transmit(
                    self.transport,
                    EMPTY if unsent else response.body,
                    head=framed.dated(),
                    chunked=framed.chunked,
                    progress=progress,
                )
            if self._watch is not None:
                await self._watch.ended()
                self._watch = None
        except (Disconnected, BodyBroken) as broken:
            error = str(broken)
            raise
        except trio.Cancelled:
            error = "the client left before the answer was there" if self._gone else "cancelled"
            raise
        except Exception as bug:
            error = repr(bug)
            raise
        finally:
            if response is not None:
                response.body.close()
            sent = Sent(started, progress.first_byte, perf_counter(), progress.body_bytes, error)
            self._handler.finished(request, response, sent)
        return keep and (body is None or body.complete or await body.skip())

    async def _hand_over(self, body: Takeover, progress: Progress) -> None:
        """After CONNECT: the connection is the handler's, with whatever has arrived already."""
        await self.transport.send_all(ESTABLISHED)
        progress.first_byte = perf_counter()
        if self._watch is not None:
            await self._watch.ended()
            self._watch = None
        rest, self.buffer = self.buffer, b""
        try:
            await body.run(_Raw(self.transport, rest))
        finally:
            progress.body_bytes = body.sent

    def _may_keep(self, head: Head, body: Http1Body | None) -> bool:
        """Whether a further request may follow, as far as can be told before the response."""
        return (
            head.keep_alive
            and head.method != "CONNECT"  # after one the client speaks another protocol, or nothing
            and (body is None or body.skippable)
            and not self._leaving
            and not self._draining.is_set()
        )

    def _handler_waits(self) -> None:
        self._waiting = True
        self._maybe_watch()

    def _body_ended(self, rest: bytes) -> None:
        self.buffer = rest
        self._maybe_watch()

    def _maybe_watch(self) -> None:
        """Look whether the client leaves, from when the handler waits and has all of the request."""
        if self._waiting and self._watch is None and (self._body is None or self._body.complete):
            self._watch = _Watch(self)
            self._nursery.start_soon(self._watch.run)

    def client_left(self) -> None:
        """Nobody is there to answer any more."""
        self._gone = True
        self._nursery.cancel_scope.cancel()

    async def _refuse(self, status: int, message: str) -> None:
        response = self._handler.refuse(status, message, self.transport.peer)
        try:
            framed = _render(response, None, keep=False)
            await transmit(self.transport, response.body, head=framed.dated(), chunked=framed.chunked)
        finally:
            response.body.close()


def _render(response: Response, head: Head | None, keep: bool) -> Framed:
    """The response's head, for the request with `head` if there was one. Raises ValueError."""
    return render_head(
        response.status,
        response.headers.items,
        response.body.length,
        head=head is not None and head.method == "HEAD",
        version="1.1" if head is None else head.version,
        keep_alive=keep,
        reason=response.reason,
    )


class _Raw:
    """What follows a CONNECT (takeover.Duplex)."""

    def __init__(self, transport: Transport, rest: bytes) -> None:
        self._transport = transport
        self._rest = rest

    async def receive_some(self) -> bytes:
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return await self._transport.receive_some(READ_BYTES, math.inf)

    async def send_all(self, data: bytes) -> None:
        await self._transport.send_all(data)

    async def send_eof(self) -> None:
        await self._transport.send_eof()


class _Watch:
    """Reads ahead while a handler waits, and cancels it when the client leaves."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        connection = self._connection
        try:
            with self._scope:
                while len(connection.buffer) < _AHEAD:
                    data = await connection.transport.receive_some(READ_BYTES, math.inf)
                    if not data:
                        raise Disconnected("the client finished sending")
                    connection.buffer += data
        except Disconnected:
            connection.client_left()
        finally:
            self._ended.set()

    def cancel(self) -> None:
        """Let it end soon. What it reads until then is in the buffer."""
        self._scope.cancel()

    async def ended(self) -> None:
        """Returns when the transport's receiving side is free."""
        await self._ended.wait()
