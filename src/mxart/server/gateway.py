"""Accepts connections and decides, on their first bytes, what each of them is.

Theory of operation.  A connection is peeked at, never read, until the first bytes decide: a TLS hello
whose name a tunnel claims is spliced from its first byte; any other hello is answered on a TLS
listener, by a certificate for a name that is served or by an alert; HTTP/2's preface and HTTP/1 go to
their engines on a plain listener, and are redirected to https on a TLS one; TLS on a plain listener gets an answer
that TLS clients know for plain HTTP, and some then fall back to; all else is closed.  One
deadline covers a PROXY header, the peeking and the handshake.

A slot of the connection limit is taken only while a connection is at hand: were it held while waiting for one, each
listener would hold one for good, and a quiet listener could starve a busy one.

Every connection is a task that ends in its own `except Exception`: what breaks one breaks no other.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Mapping
from time import perf_counter

import trio
from trio.socket import SocketType

from mxart.body import Body
from mxart.config import Limits
from mxart.errors import Disconnected, MxartError
from mxart.listeners import Role
from mxart.message import Handler, Headers, Peer, Request, Response, Sent
from mxart.metrics import Metrics
from mxart.proto.client_hello import ClientHello
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.http2 import Http2Limits, serve_http2
from mxart.proto.peek import consume, peek_until
from mxart.proto.plain import PlainTransport
from mxart.proto.proxy_header import MAX_BYTES as PROXY_BYTES
from mxart.proto.proxy_header import parse_proxy_header
from mxart.proto.sniff import SNIFF_BYTES, Http1, Http2Preface, TlsHello, sniff, sniff_missing
from mxart.proto.tls import TlsServer
from mxart.proto.transport import Transport
from mxart.proto.tunnel import TunnelCounts, splice
from mxart.server import metrics as series
from mxart.server.tunnels import Target, TunnelTable, target_of
from mxart.upstream.dial import Dialer

log = logging.getLogger(__name__)

# What accept(2) reports of the connection that it would have returned; the next one may be sound.
_ITS_OWN = frozenset(
    (
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
    )
)
_PAUSE = 0.1  # seconds before accepting again when the system has no room
_IN_A_ROW = 16  # connections accepted before others have their turn
_LAST_WORDS = 1.0  # seconds for a connection to say something when the server drains
_SPEAK_PLAIN = b"this port speaks plain HTTP: use http://\n"
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_SPEAK_PLAIN), _SPEAK_PLAIN)
)


class Gateway:
    """Serves the connections of one worker."""

    def __init__(
        self,
        *,
        handler: Handler,
        tls: TlsServer,
        tunnels: TunnelTable,
        dialer: Dialer,
        limits: Limits,
        max_connections: int,
        metrics: Metrics,
        tunnel_log: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        """`tunnel_log` is given a line, and its fields, for each tunnel that has ended."""
        self._handler = handler
        self._to_https = _ToHttps(handler)
        self._tls = tls
        self._tunnels = tunnels
        self._dialer = dialer
        self._limits = limits
        self._slots = trio.Semaphore(max_connections)
        self._metrics = metrics
        self._tunnel_log = tunnel_log
        self._draining = trio.Event()
        self._silent: set[trio.CancelScope] = set()  # of connections that have not said what they want
        self._open = 0
        self._http1 = Http1Limits(
            header_bytes=limits.header_bytes,
            body_bytes=limits.max_body,
            idle_seconds=limits.idle_seconds,
            head_seconds=limits.progress_seconds,
        )
        self._http2 = Http2Limits(
            header_bytes=limits.header_bytes,
            body_bytes=limits.max_body,
            idle_seconds=limits.idle_seconds,
            progress_seconds=limits.progress_seconds,
        )

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Let every connection end: idle ones now, busy ones after the request under way. Cancel `accept` first."""
        self._draining.set()
        until = trio.current_time() + _LAST_WORDS
        for scope in self._silent:
            scope.deadline = min(scope.deadline, until)

    async def accept(self, listener: socket.socket, role: Role, nursery: trio.Nursery) -> None:
        """Accept until cancelled; each connection becomes a task of `nursery`. `listener` is non-blocking."""
        full = False
        in_a_row = 0
        while True:
            in_a_row += 1
            try:
                self._slots.acquire_nowait()
            except trio.WouldBlock:
                await self._slots.acquire()
            else:
                if in_a_row % _IN_A_ROW == 0:
                    await trio.lowlevel.checkpoint()
            try:
                sock, address = listener.accept()
                connection = trio.socket.from_stdlib_socket(sock)
            except BlockingIOError:
                self._slots.release()
                await trio.lowlevel.wait_readable(listener)
            except OSError as error:
                self._slots.release()
                if error.errno not in _ITS_OWN:  # EMFILE, most likely
                    if not full:
                        log.warning("cannot accept: %s; waiting for connections to end", error.strerror)
                    full = True
                    await trio.sleep(_PAUSE)
            else:
                full = False
                nursery.start_soon(self._connection, connection, address, role)

    async def _connection(self, sock: SocketType, address: tuple[str, int], role: Role) -> None:
        self._metrics.add(series.ACCEPTED)
        self._open += 1
        self._metrics.set(series.CONNECTIONS, value=self._open)
        peer = _peer(sock, address)
        try:
            await self._serve(sock, peer, role)
        except Disconnected as error:
            self._metrics.add(series.REFUSED)
            log.debug("%s: %s", peer.address, error)
        except MxartError as error:
            self._metrics.add(series.REFUSED)
            log.info("%s: closed: %s", peer.address, error)
        except Exception:
            log.exception("the connection of %s failed", peer.address)
        finally:
            sock.close()
            self._open -= 1
            self._metrics.set(series.CONNECTIONS, value=self._open)
            self._slots.release()

    async def _serve(self, sock: SocketType, peer: Peer, role: Role) -> None:
        deadline = trio.current_time() + self._limits.handshake_seconds
        if role.tunnel_to:
            await self._tunnel(sock, peer, target_of(role.tunnel_to), name="")
            return
        with trio.CancelScope(deadline=trio.current_time() + _LAST_WORDS if self.is_draining else deadline) as silent:
            self._silent.add(silent)
            try:
                if role.proxy_protocol:
                    peer = await _proxied(sock, peer, deadline)
                found = await peek_until(sock, sniff, deadline=deadline, max_bytes=SNIFF_BYTES, missing=sniff_missing)
            finally:
                self._silent.discard(silent)
        if silent.cancelled_caught:
            raise Disconnected("the client said too little for too long")
        if isinstance(found, TlsHello):
            target = self._tunnels.find(found.hello.sni)
            if target is not None:
                await self._tunnel(sock, peer, target, name=found.hello.sni or "")
            elif role.tls:
                await self._serve_tls(sock, peer, found.hello, deadline)
            else:
                await self._answer_plain(sock, peer)
        elif isinstance(found, Http1 | Http2Preface):
            transport = PlainTransport(sock, peer, self._limits.progress_seconds)
            if role.tls:
                # A client that speaks HTTP/2 with prior knowledge meets HTTP/1.1 here, and shows that to its user.
                await serve_http1(transport, self._to_https, self._http1, self._draining)
            elif isinstance(found, Http2Preface):
                await serve_http2(transport, self._handler, self._http2, self._draining)
            else:
                await serve_http1(transport, self._handler, self._http1, self._draining)
        else:
            raise Disconnected("neither TLS nor HTTP")

    async def _answer_plain(self, sock: SocketType, peer: Peer) -> None:
        """Tell a TLS client, in clear text, that there is none here.

        Clients recognise "HTTP/" where a TLS record should be: they say so to their user, and containerd
        (core/remotes/docker/resolver.go: isTLSError) tries a localhost registry again without TLS, after this only.
        """
        self._metrics.add(series.REFUSED)
        log.info("%s: TLS on a plain port: use http://, or let the listener say tls = true", peer.address)
        transport = PlainTransport(sock, peer, self._limits.progress_seconds)
        try:
            await transport.send_all(_PLAIN_ANSWER)
        except BaseException:
            transport.abort()
            raise
        await transport.aclose()

    async def _serve_tls(self, sock: SocketType, peer: Peer, hello: ClientHello, deadline: float) -> None:
        transport: Transport = await self._tls.accept(
            sock, peer, hello, deadline=deadline, progress_seconds=self._limits.progress_seconds
        )
        if transport.protocol == "h2":
            await serve_http2(transport, self._handler, self._http2, self._draining)
        else:
            await serve_http1(transport, self._handler, self._http1, self._draining)

    async def _tunnel(self, sock: SocketType, peer: Peer, target: Target, *, name: str) -> None:
        started = perf_counter()
        fields: dict[str, object] = {"client": peer.address, "sni": name, "to": str(target)}
        self._metrics.add(series.TUNNELS)
        counts = TunnelCounts()
        try:
            try:
                upstream = await self._dialer.connect_tcp(target.host, target.port, explicit=target.explicit)
            except MxartError:
                self._metrics.add(series.REFUSED)
                raise
            with upstream:
                await splice(sock, upstream, self._limits.tunnel_idle_seconds, counts)
        except MxartError as error:
            fields["error"] = str(error)
        except trio.Cancelled:
            fields["error"] = "cut: the server stops"
            raise
        except Exception as error:
            fields["error"] = repr(error)
            raise
        finally:
            self._metrics.add(series.TUNNELS, amount=-1)
            self._metrics.add(series.TUNNELLED, "up", amount=counts.up)
            self._metrics.add(series.TUNNELLED, "down", amount=counts.down)
            fields |= {"up": counts.up, "down": counts.down, "seconds": round(perf_counter() - started, 3)}
            self._tunnel_log(f"tunnel {target}", fields)


class _ToHttps:
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


async def _proxied(sock: SocketType, peer: Peer, deadline: float) -> Peer:
    """The peer that a PROXY header names; the header is taken from the socket."""
    header = await peek_until(sock, parse_proxy_header, deadline=deadline, max_bytes=PROXY_BYTES)
    await consume(sock, header.consumed)
    if header.source is None:
        return peer
    local = header.destination
    return Peer(
        _plain(header.source.address),
        header.source.port,
        _plain(local.address) if local is not None else peer.local_address,
        local.port if local is not None else peer.local_port,
    )


def _peer(sock: SocketType, address: tuple[str, int]) -> Peer:
    try:
        local = sock.getsockname()
    except OSError:
        local = ("", 0)
    return Peer(_plain(address[0]), address[1], _plain(local[0]), local[1])


def _plain(address: str) -> str:
    """An IPv4 address that came through a dual-stack socket is an IPv4 address."""
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address
