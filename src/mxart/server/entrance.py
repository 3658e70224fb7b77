"""One connection from its first bytes to its end: looked at, judged (`passage`), and given to whoever serves it.

Theory of operation.  A connection is peeked at, never read, until the first bytes decide: so a tunnel is spliced from
its first byte, and OpenSSL reads the hello itself.  One deadline covers a PROXY header, the peeking and
the handshake.  The first request in clear text is peeked at whole when it decides: a CONNECT, and any at a transparent
listener, where only the first one of a connection counts.

After CONNECT to a name that is served here exactly its head is taken from the socket, the client is told to
go on, and the connection starts over on the same descriptor: whatever follows (sendfile, OpenSSL, splice) is as
cheap as without.  CONNECTs that come in another way, in TLS, over HTTP/2 or behind another request, are `connect`'s.

A transparent listener takes connections of protocols in which the server speaks first; so a short silence is an answer,
too: on to where the client wanted, if it may go there.
"""

from __future__ import annotations

import logging
import math
import socket
from functools import partial

import trio
from msgspec.structs import replace

from mxart.config import Limits
from mxart.errors import Disconnected, Forbidden, Problem
from mxart.listeners import Role
from mxart.message import Handler, Peer
from mxart.metrics import Metrics
from mxart.proto.client_hello import BadClientHello, ClientHello, Records, plain_alert
from mxart.proto.draining import Draining
from mxart.proto.first_head import FirstHead, first_head_reader
from mxart.proto.heads import ESTABLISHED, BadHead
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.http2 import Http2Limits, serve_http2
from mxart.proto.peek import consume, peek_until
from mxart.proto.plain import PlainTransport
from mxart.proto.proxy_header import MAX_BYTES as PROXY_BYTES
from mxart.proto.proxy_header import parse_proxy_header
from mxart.proto.sniff import SNIFF_BYTES, Http1, Http2Preface, Sniffed, TlsHello, Unknown, sniff, sniff_missing
from mxart.proto.tls import TlsServer
from mxart.proto.transport import Transport
from mxart.proto.tunnel import TunnelCounts, splice
from mxart.server import metrics as series
from mxart.server.addresses import original_destination, plain
from mxart.server.connect import Front, Saying, ToHttps, for_whom
from mxart.server.passage import Door, Pass, Passage, Refuse, Serve, TellPlain, Terminate, inside, split_authority
from mxart.server.tunnelling import Tunnelling, Wish
from mxart.server.tunnels import target_of

log = logging.getLogger(__name__)

SILENCE_SECONDS = 0.3
"""After which a client at a transparent listener is taken to wait for its server's first word."""
UNDECIDED_SECONDS = 3.0
"""After which first bytes that still decide nothing go on to where they were bound for."""
_HTTP = 80
_CONNECT = b"CONNECT "
_LAST_WORDS = 1.0  # seconds for a connection to say something when the server drains
_SPEAK_PLAIN = b"this port speaks plain HTTP: use http://\n"
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_SPEAK_PLAIN), _SPEAK_PLAIN)
)


class Entrance:
    """Serves the connections of one worker, each from its first byte."""

    def __init__(
        self,
        *,
        handler: Handler,
        tls: TlsServer,
        passage: Passage,
        tunnelling: Tunnelling,
        limits: Limits,
        metrics: Metrics,
        draining: Draining,
        slots: trio.Semaphore,
    ) -> None:
        self._handler = handler
        self._to_https = ToHttps(handler)
        self._tls = tls
        self._passage = passage
        self._tunnelling = tunnelling
        self._limits = limits
        self._metrics = metrics
        self._draining = draining
        self._silent: set[trio.CancelScope] = set()  # of connections that have not said what they want
        self._front = Front(handler, passage, tunnelling, metrics, self.start_over, limits.tunnel_idle_seconds, slots)
        self._inner_front = self._front.inside()
        self._doors: dict[Role, Door] = {}
        self._wishes: dict[str, Wish] = {}  # of ports of a tunnel
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

    def redirected(self) -> None:
        """Connections may come that a firewall's rule has sent here: circles are to be found by their ends, too."""
        self._tunnelling.redirected = True

    def drain(self) -> None:
        """Give those who have not said yet what they want a last moment to do so."""
        until = trio.current_time() + _LAST_WORDS
        for scope in self._silent:
            scope.deadline = min(scope.deadline, until)

    async def serve(self, sock: socket.socket, peer: Peer, role: Role) -> None:
        """Serve a connection that was just accepted. The caller closes `sock`, whatever comes.

        Raises Disconnected, and other MxartErrors, for what deserves a line in the log.
        """
        if role.tunnel_to:
            wish = self._wishes.get(role.tunnel_to)
            if wish is None:
                wish = self._wishes[role.tunnel_to] = Wish(target_of(role.tunnel_to), "port")
            await self._pass(sock, peer, wish)
            return
        deadline = trio.current_time() + self._limits.handshake_seconds
        door = self._doors.get(role)
        if door is None:
            door = Door(tls=role.tls or role.transparent, plain=not role.tls)
            self._doors[role] = door
        if role.transparent and (original := original_destination(sock)) is not None:
            door = replace(door, original=original)
        await self._enter(sock, peer, door, deadline, proxied=role.proxy_protocol)

    async def start_over(self, sock: socket.socket, peer: Peer, door: Door) -> None:
        """Serve what comes on a connection behind a CONNECT; otherwise as `serve`."""
        await self._enter(sock, peer, door, trio.current_time() + self._limits.handshake_seconds)

    async def _enter(
        self, sock: socket.socket, peer: Peer, door: Door, deadline: float, *, proxied: bool = False
    ) -> None:
        try:
            peer, found, head = await self._look(sock, peer, door, deadline, proxied=proxied)
        except Disconnected as error:
            refusal = self._passage.fallback(door, str(error))
            if door.original is not None and isinstance(refusal, Refuse):
                raise Forbidden(refusal.reason) from None
            raise
        except BadClientHello as error:
            await self._last_word(sock, peer, plain_alert(error.alert))
            raise
        match found:
            case TlsHello(hello):
                await self._hello(sock, peer, hello, door, deadline)
            case Http1(connect=True) if head is not None:
                await self._connect(sock, peer, head, door)
            case Http1() | Http2Preface() if door.original is not None:
                await self._plain_at_transparent(sock, peer, found, head, door)
            case Http1() | Http2Preface():
                await self._serve_plain(sock, peer, found, door)
            case Unknown():
                await self._fall_back(sock, peer, door, "neither TLS nor HTTP")

    # The first bytes

    async def _look(
        self, sock: socket.socket, peer: Peer, door: Door, deadline: float, *, proxied: bool
    ) -> tuple[Peer, Sniffed, FirstHead | None]:
        """Who it is, what he speaks, and the head of his first request where that decides. Raises Disconnected."""
        head: FirstHead | None = None
        last = trio.current_time() + _LAST_WORDS if self._draining.is_set() else deadline
        with trio.CancelScope(deadline=last) as silent:
            self._silent.add(silent)
            try:
                if proxied:
                    peer = await _proxied(sock, peer, deadline)
                found = await self._first_bytes(sock, door, deadline)
                if isinstance(found, Http1) and (found.connect or door.original is not None):
                    head = await self._first_head(sock, deadline)
            finally:
                self._silent.discard(silent)
        if silent.cancelled_caught:
            raise Disconnected("the client said too little for too long")
        return peer, found, head

    async def _first_bytes(self, sock: socket.socket, door: Door, deadline: float) -> Sniffed:
        if door.original is None or not isinstance(self._passage.fallback(door, ""), Pass):
            return await self._sniff(sock, deadline)
        # There is somewhere else to go with what is not understood here.
        with trio.move_on_after(SILENCE_SECONDS) as silence:
            await trio.lowlevel.wait_readable(sock)
        if silence.cancelled_caught:
            return Unknown()
        with trio.move_on_after(UNDECIDED_SECONDS):
            try:
                return await self._sniff(sock, deadline)
            except BadClientHello:
                pass
        return Unknown()

    async def _sniff(self, sock: socket.socket, deadline: float) -> Sniffed:
        records = Records()
        return await peek_until(
            sock,
            partial(sniff, records=records),
            deadline=deadline,
            max_bytes=SNIFF_BYTES,
            missing=partial(sniff_missing, records=records),
        )

    async def _first_head(self, sock: socket.socket, deadline: float) -> FirstHead | None:
        """None if it is none: the engine that serves the connection will say so."""
        limit = self._limits.header_bytes
        try:
            return await peek_until(sock, first_head_reader(limit), deadline=deadline, max_bytes=limit + SNIFF_BYTES)
        except BadHead:
            return None

    # What was judged

    async def _hello(self, sock: socket.socket, peer: Peer, hello: ClientHello, door: Door, deadline: float) -> None:
        match self._passage.hello(hello, door):
            case Pass(target, by, name):
                await self._pass(sock, peer, Wish(target, by, name, hello.random, door.original))
            case Terminate(name):
                # The hello itself may name nobody: after CONNECT it need not.
                wanted = hello if name == hello.sni else replace(hello, sni=name)
                await self._serve_tls(sock, peer, wanted, deadline, nested=door.through is not None)
            case TellPlain():
                self._metrics.add(series.REFUSED)
                log.info("%s: TLS on a plain port: use http://, or let the listener say tls = true", peer.address)
                await self._last_word(sock, peer, _PLAIN_ANSWER)
            case Refuse(reason, _, alert):
                await self._last_word(sock, peer, plain_alert(alert))
                raise Forbidden(f"tls refused: {reason}")

    async def _plain_at_transparent(
        self, sock: socket.socket, peer: Peer, found: Http1 | Http2Preface, head: FirstHead | None, door: Door
    ) -> None:
        split = split_authority(head.authority, _HTTP) if head is not None else None
        match self._passage.host(split[0] if split is not None else "", door):
            case Pass(target, by, name):
                await self._pass(sock, peer, Wish(target, by, name, original=door.original))
            case Refuse(reason) if head is not None:
                await self._say(sock, peer, Forbidden(reason))
            case (
                Serve() | Refuse()
            ):  # what is no request is told so, and HTTP/2 names its hosts later, each request its own
                await self._serve_plain(sock, peer, found, door)

    async def _fall_back(self, sock: socket.socket, peer: Peer, door: Door, why: str) -> None:
        match self._passage.fallback(door, why):
            case Pass(target, by, name):
                await self._pass(sock, peer, Wish(target, by, name, original=door.original))
            case Refuse(reason):
                raise Forbidden(reason) if door.original is not None else Disconnected(reason)

    async def _connect(self, sock: socket.socket, peer: Peer, head: FirstHead, door: Door) -> None:
        way = self._passage.connect(head.authority)
        if isinstance(way, Refuse) and door.original is not None:
            way = self._passage.fallback(door, way.reason)
            if isinstance(way, Pass):  # a client that talks to its own proxy there
                await self._pass(sock, peer, Wish(way.target, way.by, way.name, original=door.original))
                return
        if isinstance(way, Refuse) or door.through is not None:
            await self._serve_plain(sock, peer, Http1(connect=True), door)  # the engine reads it again, and says no
        elif isinstance(way, Serve):
            await self._established(sock, head)
            await self.start_over(sock, peer, inside(door, head.authority))
        else:
            try:
                tunnel = await self._tunnelling.open(peer, Wish(way.target, way.by, way.name))
            except Problem as problem:
                await self._say(sock, peer, for_whom(problem, peer))
            else:
                await tunnel.carry(partial(self._answer_and_splice, sock, head))

    # Serving

    async def _pass(self, sock: socket.socket, peer: Peer, wish: Wish) -> None:
        try:
            tunnel = await self._tunnelling.open(peer, wish)
        except Problem:
            return  # it is in the log
        await tunnel.carry(partial(self._splice, sock))

    async def _splice(self, sock: socket.socket, target: socket.socket, counts: TunnelCounts) -> None:
        await splice(sock, target, self._limits.tunnel_idle_seconds, counts)

    async def _answer_and_splice(
        self, sock: socket.socket, head: FirstHead, target: socket.socket, counts: TunnelCounts
    ) -> None:
        await self._established(sock, head)
        await self._splice(sock, target, counts)

    async def _established(self, sock: socket.socket, head: FirstHead) -> None:
        """Take the head of a CONNECT, and nothing behind it, and tell the client to go on."""
        await consume(sock, head.wire_bytes)
        try:
            sock.send(ESTABLISHED)  # the first bytes of the connection: there is room for them
        except OSError as error:
            raise Disconnected(f"the client left: {error.strerror}") from None

    async def _serve_plain(self, sock: socket.socket, peer: Peer, found: Http1 | Http2Preface, door: Door) -> None:
        transport = PlainTransport(sock, peer, self._limits.progress_seconds)
        nested = door.through is not None
        if not door.plain and found != Http1(connect=True):
            # A client that speaks HTTP/2 with prior knowledge meets HTTP/1.1 here, and shows that to its user.
            await serve_http1(transport, self._to_https, self._http1, self._draining)
        elif isinstance(found, Http2Preface):
            await serve_http2(transport, self._inner_front if nested else self._front, self._http2, self._draining)
        else:
            await serve_http1(transport, self._inner_front if nested else self._front, self._http1, self._draining)

    async def _serve_tls(
        self, sock: socket.socket, peer: Peer, hello: ClientHello, deadline: float, *, nested: bool
    ) -> None:
        transport: Transport = await self._tls.accept(
            sock, peer, hello, deadline=deadline, progress_seconds=self._limits.progress_seconds
        )
        front = self._inner_front if nested else self._front
        if transport.protocol != "h2":
            await serve_http1(transport, front, self._http1, self._draining)
            return
        first = await self._first_of_http2(transport)
        if first.startswith(_CONNECT):
            await serve_http1(transport, front, self._http1, self._draining, first)
        else:
            await serve_http2(transport, front, self._http2, self._draining, first)

    async def _first_of_http2(self, transport: Transport) -> bytes:
        """The first bytes of a client that agreed on HTTP/2, b"" if it left: enough to tell them from a CONNECT.

        Go's client offers HTTP/2 to a proxy, and then sends a CONNECT of HTTP/1.1 all the same, whatever was agreed on
        (golang/go#26479).  So the client has the first word; it loses no time, its preface comes unasked.
        """
        data = b""
        last = _LAST_WORDS if self._draining.is_set() else self._limits.idle_seconds
        try:
            with trio.move_on_after(last) as silent:
                self._silent.add(silent)
                try:
                    while _CONNECT.startswith(data):
                        more = await transport.receive_some(timeout=math.inf)
                        if not more:
                            break
                        data += more
                finally:
                    self._silent.discard(silent)
        except BaseException:
            transport.abort()
            raise
        if silent.cancelled_caught:
            transport.abort()
            raise Disconnected("the client said nothing over HTTP/2")
        return data

    async def _say(self, sock: socket.socket, peer: Peer, problem: Problem) -> None:
        """Let the engine read the first request, and answer it with a problem."""
        transport = PlainTransport(sock, peer, self._limits.progress_seconds)
        await serve_http1(transport, Saying(self._handler, problem), self._http1, self._draining)

    async def _last_word(self, sock: socket.socket, peer: Peer, words: bytes) -> None:
        """Send a few bytes in clear text, and close.

        To TLS where there is none: clients recognise "HTTP/" where a TLS record should be; they say so to their user,
        and containerd (core/remotes/docker/resolver.go: isTLSError) tries a localhost registry again without TLS,
        after this only.
        """
        transport = PlainTransport(sock, peer, self._limits.progress_seconds)
        try:
            await transport.send_all(words)
        except BaseException:
            transport.abort()
            raise
        await transport.aclose()


async def _proxied(sock: socket.socket, peer: Peer, deadline: float) -> Peer:
    """The peer that a PROXY header names; the header is taken from the socket."""
    header = await peek_until(sock, parse_proxy_header, deadline=deadline, max_bytes=PROXY_BYTES)
    await consume(sock, header.consumed)
    if header.source is None:
        return peer
    local = header.destination
    return Peer(
        plain(header.source.address),
        header.source.port,
        plain(local.address) if local is not None else peer.local_address,
        local.port if local is not None else peer.local_port,
    )
