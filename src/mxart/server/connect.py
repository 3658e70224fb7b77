"""Requests of clients that take us for their proxy: CONNECT, and targets in absolute form (RFC 9112 section 3.2).

`Front` stands before the handler of ordinary requests in every engine.  A CONNECT that it grants it answers with a
`Takeover`: the engine sends the head and hands its bytes over.  They go straight to the target of a
tunnel; or, for a name that is served here, to one end of a TCP connection over the loopback, whose other end is
served like any client's, from its first byte on: TLS wants a descriptor, and so does sendfile.
The first CONNECT of a connection in clear text has no need of all that: `entrance` knows a shorter way.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import trio
from msgspec.structs import replace
from trio.socket import SocketType

from mxart.body import Body
from mxart.errors import BadRequest, Disconnected, Forbidden, MxartError, Problem, UpstreamUnavailable
from mxart.message import Handler, Headers, Peer, Request, Response, Sent
from mxart.metrics import Metrics
from mxart.proto.bridge import bridge, raise_alone
from mxart.proto.tunnel import TunnelCounts
from mxart.server import metrics as series
from mxart.server.handler import plain_problem
from mxart.server.passage import Door, Pass, Passage, Refuse, Serve, inside
from mxart.server.tunnelling import OpenTunnel, Tunnelling, Wish
from mxart.takeover import Duplex, Takeover
from mxart.upstream.zones import Zone, zone_of

log = logging.getLogger(__name__)

_LINGER_SECONDS = 2.0  # how long the engines wait for a client's own end

StartOver = Callable[[socket.socket, Peer, Door], Awaitable[None]]


class Front:
    """The handler that engines are given (message.Handler)."""

    def __init__(
        self,
        handler: Handler,
        passage: Passage,
        tunnelling: Tunnelling,
        metrics: Metrics,
        start_over: StartOver,
        idle_seconds: float,
        slots: trio.Semaphore,
        *,
        nested: bool = False,
    ) -> None:
        """`start_over` serves a connection; `nested`: this one came by CONNECT, and none may be in it.

        `slots` are those of connections.  One of HTTP/1.1 that becomes a tunnel goes on to hold its own; of HTTP/2
        each stream that does so takes another.
        """
        self._handler = handler
        self._passage = passage
        self._tunnelling = tunnelling
        self._metrics = metrics
        self._start_over = start_over
        self._idle_seconds = idle_seconds
        self._slots = slots
        self._nested = nested

    def inside(self) -> Front:
        """The one for connections that came by CONNECT."""
        return Front(
            self._handler,
            self._passage,
            self._tunnelling,
            self._metrics,
            self._start_over,
            self._idle_seconds,
            self._slots,
            nested=True,
        )

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]:
        """As message.Handler has it. No task and no coroutine of its own for what is not for a proxy."""
        if request.method == "CONNECT":
            return self._connect(request)
        if request.absolute:
            return self._absolute(request)
        return self._handler.handle(request)

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        return self._handler.refuse(status, message, peer)

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        self._handler.finished(request, response, sent)

    async def _absolute(self, request: Request) -> Response:
        refusal = self._passage.absolute(request.authority, tls=request.absolute == "https")
        if refusal is not None:
            return self._refuse(refusal, request)
        # The URL alone says what is wanted: the name in TLS was that of the proxy.
        peer = replace(request.peer, sni=None) if request.peer.sni is not None else request.peer
        headers = request.headers.without("proxy-authorization", "proxy-connection")
        return await self._handler.handle(msgspec.structs.replace(request, peer=peer, headers=headers))

    async def _connect(self, request: Request) -> Response:
        request.trace.outcome = "none"
        if self._nested:
            return self._refuse(Refuse("CONNECT within CONNECT is not served"), request)
        way = self._passage.connect(request.authority)
        if isinstance(way, Refuse):
            return self._refuse(way, request)
        slots = self._slots if request.version == "2" else None
        if slots is not None:
            try:
                slots.acquire_nowait()
            except trio.WouldBlock:
                return _said(UpstreamUnavailable("no more connections are taken now", retry_after=1.0), request)
        try:
            return Response(200, body=await self._grant(way, request, _Slot(slots)))
        except BaseException as error:
            if slots is not None:
                slots.release()
            if isinstance(error, Problem):
                return _said(for_whom(error, request.peer), request)
            raise

    async def _grant(self, way: Serve | Pass, request: Request, slot: _Slot) -> Takeover:
        """Raises Problem."""
        peer = replace(request.peer, scheme="http", sni=None)
        if isinstance(way, Serve):
            return _Served(peer, inside(Door(tls=True, plain=True), request.authority), self._start_over, slot)
        tunnel = await self._tunnelling.open(peer, Wish(way.target, way.by, way.name))
        return _Tunnelled(tunnel, self._idle_seconds, slot)

    def _refuse(self, refusal: Refuse, request: Request) -> Response:
        self._metrics.add(series.REFUSED)
        reason = refusal.reason
        if refusal.allowed and not _is_stranger(request.peer):
            reason += f": {refusal.allowed}"
        return _said(BadRequest(reason) if refusal.status == 400 else Forbidden(reason), request)


def _is_stranger(peer: Peer) -> bool:
    return zone_of(peer.address) is Zone.PUBLIC


def for_whom(problem: Problem, peer: Peer) -> Problem:
    """Why there is no tunnel, as its client may know it: where it leads to, and what is there, is for those inside.

    The tunnel's own line in the log has all of it.
    """
    if not _is_stranger(peer):
        return problem
    return type(problem)("there is no way through this tunnel now", retry_after=problem.retry_after)


def _said(problem: Problem, request: Request) -> Response:
    """A problem as the answer to a proxy's client.

    Of the answer to CONNECT clients show their user no body, and those written in Go the words beside the status
    (net/http, transport.go: dialConn).
    """
    request.trace.notes.append(f"{problem.status}: {problem.message}")
    answer = plain_problem(problem)
    return replace(answer, reason=" ".join(problem.message.split())) if request.method == "CONNECT" else answer


class _Slot:
    """A place among the connections, or none."""

    def __init__(self, slots: trio.Semaphore | None) -> None:
        self._slots = slots

    def release(self) -> None:
        """Idempotent."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None


class _Tunnelled(Takeover):
    """CONNECT to somewhere else: the tunnel stands already."""

    __slots__ = ("_idle_seconds", "_slot", "_tunnel")

    def __init__(self, tunnel: OpenTunnel, idle_seconds: float, slot: _Slot) -> None:
        super().__init__()
        self._slot = slot
        self._tunnel = tunnel
        self._idle_seconds = idle_seconds

    async def run(self, duplex: Duplex) -> None:
        error = await self._tunnel.carry(partial(self._carry, duplex))
        if error is not None:
            raise error

    async def _carry(self, duplex: Duplex, target: socket.socket, counts: TunnelCounts) -> None:
        await bridge(duplex, trio.socket.from_stdlib_socket(target), self._idle_seconds, counts)

    @property
    def sent(self) -> int:
        return self._tunnel.counts.down

    def close(self) -> None:
        self._tunnel.close(Disconnected("the client left before the tunnel was used"))
        self._slot.release()


class _Served(Takeover):
    """CONNECT to ourselves: what comes is served like any other connection."""

    __slots__ = ("_counts", "_door", "_peer", "_slot", "_start_over")

    def __init__(self, peer: Peer, door: Door, start_over: StartOver, slot: _Slot) -> None:
        super().__init__()
        self._slot = slot
        self._peer = peer
        self._door = door
        self._start_over = start_over
        self._counts = TunnelCounts()

    async def run(self, duplex: Duplex) -> None:
        near, far = _pair()
        broken: Disconnected | None = None
        try:
            with near:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._serve, far)
                    try:
                        # The engine at the other end knows best how long it may be silent.
                        await bridge(duplex, near, None, self._counts, linger_seconds=_LINGER_SECONDS)
                    except Disconnected as error:
                        broken = error
        except BaseExceptionGroup as group:
            await raise_alone(group)
            raise
        if broken is not None:
            raise broken

    def close(self) -> None:
        self._slot.release()

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                await self._start_over(sock, self._peer, self._door)
            except MxartError as error:
                log.info("%s: closed: %s", self._peer.address, error)
            except Exception:
                log.exception("the connection of %s failed", self._peer.address)

    @property
    def sent(self) -> int:
        return self._counts.down


def _pair() -> tuple[SocketType, socket.socket]:
    """Both ends of a TCP connection over the loopback. Nothing waits: the kernel connects it in place."""
    with socket.socket() as listener, socket.socket() as near:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near.connect(listener.getsockname())
        while True:
            far, address = listener.accept()
            if address == near.getsockname():
                break
            far.close()  # somebody else of this machine, who guessed the port
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (
            trio.socket.from_stdlib_socket(socket.socket(fileno=near.detach())),
            far,
        )


class Saying:
    """Answers every request with one problem."""

    def __init__(self, handler: Handler, problem: Problem) -> None:
        self._handler = handler
        self._problem = problem

    async def handle(self, request: Request) -> Response:
        return _said(self._problem, request)

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        return self._handler.refuse(status, message, peer)

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        self._handler.finished(request, response, sent)


class ToHttps:
    """Answers plain HTTP on a TLS port: the same address by https."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def handle(self, request: Request) -> Response:
        if not request.authority or not request.target.startswith("/"):  # "*" and CONNECT's have no URL
            return self.refuse(400, "this port speaks TLS: use https://", request.peer)
        where = f"https://{request.authority}{request.target}"
        text = f"this port speaks TLS: {where}\n".encode()
        return Response(
            308, Headers([("location", where), ("content-type", "text/plain; charset=utf-8")]), Body([text])
        )

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        return self._handler.refuse(status, message, peer)

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        self._handler.finished(request, response, sent)
