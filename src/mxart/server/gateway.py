"""Accepts connections and decides, on their first bytes, what each of them is.

Theory of operation.  A connection is peeked at, never read, until the first bytes decide: a TLS hello
whose name a tunnel claims is spliced from its first byte; any other hello is answered on a TLS
listener, by a certificate for a name that is served or by an alert; HTTP/2's preface and HTTP/1 go to
their engines on a plain listener, and are redirected to https on a TLS one; all else is closed.  One
deadline covers a PROXY header, the peeking and the handshake.

Every connection is a task that ends in its own `except Exception`: what breaks one breaks no other.
"""

from __future__ import annotations

import errno
import logging
from time import perf_counter

import trio
from trio.socket import SocketType

from mxart.body import Body
from mxart.config import Limits
from mxart.errors import Disconnected, MxartError, Problem
from mxart.listeners import Role
from mxart.message import Handler, Headers, Peer, Request, Response, Sent
from mxart.metrics import Metrics
from mxart.proto.client_hello import ClientHello
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.http2 import Http2Limits, serve_http2
from mxart.proto.peek import consume, peek_until
from mxart.proto.plain import PlainTransport
from mxart.proto.proxy_header import parse_proxy_header
from mxart.proto.sniff import SNIFF_BYTES, Http1, Http2Preface, TlsHello, sniff, sniff_missing
from mxart.proto.tls import TlsServer
from mxart.proto.transport import Transport
from mxart.proto.tunnel import TunnelCounts, splice
from mxart.server import metrics as series
from mxart.server.tunnels import Target, TunnelTable, target_of
from mxart.upstream.dial import Dialer

log = logging.getLogger(__name__)
_tunnel_log = logging.getLogger("mxart.tunnel")

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PROXY_BYTES = 65536 + 16  # what version 2 can announce
_PAUSE = 0.1  # seconds before accepting again when the system has no room


class Gateway:
    """Serves the connections of one worker. `draining` is set when no more are to be accepted."""

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
        draining: trio.Event,
    ) -> None:
        self._handler = handler
        self._to_https = _ToHttps(handler)
        self._tls = tls
        self._tunnels = tunnels
        self._dialer = dialer
        self._limits = limits
        self._slots = trio.Semaphore(max_connections)
        self._metrics = metrics
        self._draining = draining
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

    async def accept(self, listener: SocketType, role: Role, nursery: trio.Nursery) -> None:
        """Accept until cancelled; each connection becomes a task of `nursery`."""
        full = False
        while True:
            await self._slots.acquire()
            try:
                sock, address = await listener.accept()
            except OSError as error:
                self._slots.release()
                if error.errno in _NO_ROOM:
                    if not full:
                        log.warning("cannot accept: %s; waiting for connections to end", error.strerror)
                    full = True
                    await trio.sleep(_PAUSE)
                continue
            except BaseException:
                self._slots.release()
                raise
            full = False
            nursery.start_soon(self._connection, sock, address, role)

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
        except Problem as problem:
            self._metrics.add(series.REFUSED)
            log.warning("%s: %s", peer.address, problem.message)
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
        if role.proxy_protocol:
            peer = await _proxied(sock, peer, deadline)
        found = await peek_until(sock, sniff, deadline=deadline, max_bytes=SNIFF_BYTES, missing=sniff_missing)
        if isinstance(found, TlsHello):
            target = self._tunnels.find(found.hello.sni)
            if target is not None:
                await self._tunnel(sock, peer, target, name=found.hello.sni or "")
            elif role.tls:
                await self._serve_tls(sock, peer, found.hello, deadline)
            else:
                raise Disconnected("TLS on a plain port: use http://, or let the listener say tls = true")
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
            upstream = await self._dialer.connect_tcp(target.host, target.port, explicit=target.explicit)
            with upstream:
                await splice(sock, upstream, self._limits.tunnel_idle_seconds, counts)
        except MxartError as error:
            fields["error"] = str(error)
        finally:
            self._metrics.add(series.TUNNELS, amount=-1)
            self._metrics.add(series.TUNNELLED, "up", amount=counts.up)
            self._metrics.add(series.TUNNELLED, "down", amount=counts.down)
            fields |= {"up": counts.up, "down": counts.down, "seconds": round(perf_counter() - started, 3)}
            _tunnel_log.info("tunnel %s", target, extra={"fields": fields})


class _ToHttps:
    """Answers plain HTTP on a TLS port: the same address by https."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def handle(self, request: Request) -> Response:
        if not request.authority:
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
    header = await peek_until(sock, parse_proxy_header, deadline=deadline, max_bytes=_PROXY_BYTES)
    await consume(sock, header.consumed)
    if header.source is None:
        return peer
    local = header.destination
    return Peer(
        header.source.address,
        header.source.port,
        local.address if local is not None else peer.local_address,
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
