"""CONNECT where an engine has the connection already: in TLS, behind another request, over HTTP/2."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from h2.errors import ErrorCodes

from kit.gateways import AUTHORITY, PLAIN, TLS, Running, running, target
from kit.http2_peer import Http2Peer, PeerStream
from kit.tls import client_context, client_stream
from kit.wire import Client
from mxart.config import Limits, Tunnel
from mxart.listeners import Role
from mxart.server import metrics as series

CONTEXT = client_context(AUTHORITY, ["http/1.1"])
HTTP2 = client_context(AUTHORITY, ["h2"])
GET = b"GET /v2/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
RESET = struct.pack("ii", 1, 0)
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"

ways = pytest.mark.parametrize("way", ["keep-alive", "tls", "http2"])


def connect(authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


class Way:
    """A client's stream that an engine serves; its buffer, and its socket."""

    def __init__(self, stream: trio.abc.Stream, client: Client, peer: Http2Peer | None = None) -> None:
        self.stream = stream
        self.sock = client.sock
        self.peer = peer
        self.buffer = b""

    async def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.stream.receive_some()
            assert data, f"the server closed after {self.buffer!r}"
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    async def read_to_end(self) -> bytes:
        while data := await self.stream.receive_some():
            self.buffer += data
        return self.buffer

    async def connect(self, authority: str, early: bytes = b"") -> None:
        if self.peer is not None:
            assert await self.asked(authority) == 200
            await self.stream.send_all(early)
            return
        await self.stream.send_all(connect(authority) + early)
        assert await self.read_exactly(len(OK)) == OK

    async def asked(self, authority: str) -> int:
        """The status that a CONNECT gets."""
        if self.peer is None:
            await self.stream.send_all(connect(authority))
            return int((await self.read_exactly(12))[9:])
        stream = await self.peer.request_fields([(":method", "CONNECT"), (":authority", authority)], end=False)
        self.stream = tunnel = PeerStream(self.peer, stream)
        await self.peer.until(lambda: tunnel.answer.status > 0 or tunnel.answer.over)
        return tunnel.answer.status

    async def end(self) -> None:
        """Nothing more will be said."""
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        else:  # trio's TLS cannot
            self.sock.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        if isinstance(self.stream, PeerStream):
            await self.stream.reset()
        else:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.sock.close()


def role(way: str) -> Role:
    return TLS if way == "tls" else PLAIN


@asynccontextmanager
async def opened(server: Running, way: str) -> AsyncIterator[Way]:
    """A connection by which the next request does not come to the gateway's own eyes."""
    client = await server.connect()
    with client.sock:
        if way == "tls":
            yield Way(client_stream(client.sock, CONTEXT, "a.test"), client)
            return
        if way == "http2":
            peer = Http2Peer(client.sock)
            await peer.start()
            yield Way(peer.stream, client, peer)
            return
        await client.send(GET)
        assert (await client.response())[0] == 200
        yield Way(trio.SocketStream(client.sock), client)


async def echo(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 hello\r\n")
    async for data in stream:
        await stream.send_all(data)
    await stream.send_all(b"bye")


@ways
async def test_tls_to_a_name_of_ours_is_served_behind_it(way: str) -> None:
    async with running(role(way), names=["a.test", "b.test"]) as server, opened(server, way) as outer:
        await outer.connect("b.test:443")
        stream = trio.SSLStream(outer.stream, CONTEXT, server_hostname="b.test", https_compatible=True)
        await stream.send_all(GET * 2)
        said = b""
        while said.count(b"https b.test 1.1") < 2:
            said += await stream.receive_some()
        assert server.handler.requests[-1].peer.address == "127.0.0.1"
        assert server.number(series.CONNECTIONS) == 1


@ways
async def test_http2_and_plain_http_are_served_behind_it(way: str) -> None:
    async with running(role(way), names=["a.test"]) as server:
        async with opened(server, way) as outer:
            await outer.connect("a.test:80", early=GET)
            assert (await outer.read_exactly(12)) == b"HTTP/1.1 200"
        async with opened(server, way) as outer:
            await outer.connect("a.test:443")
            stream = trio.SSLStream(outer.stream, HTTP2, server_hostname="a.test", https_compatible=True)
            await stream.send_all(PREFACE)
            assert (await stream.receive_some())[3] == 4, "SETTINGS"


@ways
async def test_there_is_no_connect_within_it(way: str) -> None:
    async with running(role(way), names=["a.test"]) as server, opened(server, way) as outer:
        await outer.connect("a.test:80", early=connect("a.test:443"))
        assert (await outer.read_exactly(12)) == b"HTTP/1.1 403"


@ways
async def test_a_listed_name_is_passed_on_with_half_closes_and_counted(way: str) -> None:
    async with (
        target(echo) as port,
        running(role(way), tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("db.test:443", early=b"early ")
        assert await outer.read_exactly(11) == b"220 hello\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outer.stream.send_all, b"x" * 3_000_000)
            assert await outer.read_exactly(3_000_006) == b"early " + b"x" * 3_000_000
        await outer.end()
        assert await outer.read_to_end() == b"bye"
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["by"], line["name"], line["up"]) == ("connect", "db.test", 3_000_006)
        assert "error" not in line


@ways
async def test_everything_else_is_refused(way: str) -> None:
    async with running(role(way), names=["a.test"], tunnels=[Tunnel(sni=("gone.test",), to="127.0.0.1:1")]) as server:
        for authority, status in (("evil.test:443", 403), ("127.0.0.1:22", 403), ("gone.test:443", 503)):
            async with opened(server, way) as outer:
                assert await outer.asked(authority) == status


@ways
async def test_a_target_that_resets_shows_as_a_cut_and_never_as_an_end(way: str) -> None:
    async def breaks(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with (
        target(breaks) as port,
        running(role(way), tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("db.test:443", early=b"x")
        with pytest.raises(trio.BrokenResourceError):
            await outer.read_to_end()
        assert "broke" in str(server.lines.fields(await server.lines.wait_for("tunnel"))["error"])


@ways
async def test_a_client_that_resets_is_passed_on_as_a_reset(way: str) -> None:
    broken = trio.Event()

    async def listens(stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            broken.set()

    async with (
        target(listens) as port,
        running(role(way), tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("db.test:443", early=b"x")
        await outer.reset()
        await broken.wait()


@ways
async def test_a_target_that_does_not_read_stops_its_client(way: str) -> None:
    enough = trio.Event()

    async def deaf(_: trio.SocketStream) -> None:
        await enough.wait()

    async with (
        target(deaf) as port,
        running(role(way), tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("db.test:443")
        sent = 0
        with trio.move_on_after(0.5) as stuck:
            while sent < 100 << 20:
                await outer.stream.send_all(b"x" * 65536)
                sent += 65536
        enough.set()
        assert stuck.cancelled_caught, "it took 100 MB for a target that read nothing"


@ways
async def test_a_tunnel_in_which_nothing_moves_ends(way: str) -> None:
    async with (
        target(echo) as port,
        running(
            role(way),
            limits=Limits(tunnel_idle_seconds=0.2),
            tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")],
        ) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("db.test:443")
        with pytest.raises(trio.BrokenResourceError):
            await outer.read_to_end()
        assert "nothing moved" in str(server.lines.fields(await server.lines.wait_for("tunnel"))["error"])


@ways
async def test_who_is_silent_behind_it_is_closed_after_a_while(way: str) -> None:
    async with (
        running(role(way), names=["a.test"], limits=Limits(handshake_seconds=0.2)) as server,
        opened(server, way) as outer,
    ):
        await outer.connect("a.test:443")
        assert await outer.read_to_end() == b""


@ways
async def test_draining_ends_what_is_idle_behind_it_and_a_deadline_the_tunnels(way: str) -> None:
    async with (
        target(echo) as port,
        running(role(way), names=["a.test"], tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        opened(server, way) as served,
        opened(server, way) as tunnelled,
    ):
        await served.connect("a.test:80", early=GET)
        assert await served.read_exactly(12) == b"HTTP/1.1 200"
        await tunnelled.connect("db.test:443")
        server.drain()
        await served.read_to_end()
        await tunnelled.stream.send_all(b"still there")
        assert await tunnelled.read_exactly(22) == b"220 hello\r\nstill there"
        server.connections.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await tunnelled.read_to_end()
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert "the server stops" in str(line["error"])


@ways
async def test_who_leaves_while_the_target_is_dialled_leaves_nothing_behind(way: str) -> None:
    dialling, left = trio.Event(), trio.Event()
    async with running(role(way), tunnels=[Tunnel(sni=("db.test",), to="127.0.0.1:1")]) as server:

        async def dial(*_: object, **__: object) -> None:
            dialling.set()
            try:
                await trio.sleep_forever()
            finally:
                left.set()

        server.dialer.connect_tcp = dial  # type: ignore[method-assign, assignment]
        async with opened(server, way) as outer, trio.open_nursery() as nursery:
            nursery.start_soon(outer.asked, "db.test:443")
            await dialling.wait()
            nursery.cancel_scope.cancel()
        await left.wait()
        await server.lines.wait_for("tunnel")
        assert server.number(series.TUNNELS) == 0


@pytest.mark.parametrize("step", [1, 100])
async def test_who_agrees_on_http2_and_sends_a_connect_of_http1_is_understood(step: int) -> None:
    """As Go's client does to a proxy."""
    async with running(TLS, names=["a.test"]) as server:
        client = await server.connect()
        with client.sock:
            way = Way(client_stream(client.sock, HTTP2, "a.test"), client)
            for start in range(0, len(connect("a.test:443")), step):
                await way.stream.send_all(connect("a.test:443")[start : start + step])
            assert await way.read_exactly(len(OK)) == OK
            stream = trio.SSLStream(way.stream, CONTEXT, server_hostname="a.test", https_compatible=True)
            await stream.send_all(GET)
            assert b"https a.test 1.1" in await stream.receive_some()


async def test_who_agrees_on_http2_and_says_nothing_is_closed_by_a_drain_or_after_a_while() -> None:
    for limits in (Limits(), Limits(idle_seconds=0.1)):
        async with running(TLS, limits=limits) as server:
            client = await server.connect()
            with client.sock:
                stream = client_stream(client.sock, HTTP2, "a.test")
                await stream.do_handshake()
                if limits == Limits():
                    server.drain()
                with suppress(trio.BrokenResourceError):
                    await stream.receive_some()


# --- HTTP/2 alone -------------------------------------------------------------------------------------------


@asynccontextmanager
async def http2(port: int, *, window: int | None = None) -> AsyncIterator[tuple[Running, Http2Peer]]:
    """A client of a gateway from which db.test leads to a port."""
    async with running(names=["a.test"], tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server:
        client = await server.connect()
        with client.sock:
            peer = Http2Peer(client.sock, credit=window is None, window=window)
            await peer.start()
            yield server, peer


async def tunnel(peer: Http2Peer, *, end: bool = False) -> PeerStream:
    stream = await peer.request_fields([(":method", "CONNECT"), (":authority", "db.test:443")], end=end)
    return PeerStream(peer, stream)


async def exactly(stream: PeerStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive_some(count - len(data))
    return data


async def test_tunnels_and_requests_share_a_connection() -> None:
    async with target(echo) as port, http2(port) as (server, peer):
        tunnels = [await tunnel(peer) for _ in range(20)]
        for number, one in enumerate(tunnels):
            await one.send_all(b"%02d" % number)
        assert (await peer.get("/v2/")).status == 200
        for number, one in enumerate(tunnels):
            assert await exactly(one, 13) == b"220 hello\r\n%02d" % number
        assert server.number(series.TUNNELS) == 20
        for one in tunnels:
            await one.send_eof()
            assert await one.receive_some() == b"bye"
            assert await one.receive_some() == b""
            assert one.answer.reset is None


async def test_each_tunnel_of_a_connection_takes_a_place_of_its_own() -> None:
    tunnels = [Tunnel(networks=("0.0.0.0/0",))]
    async with running(names=["a.test"], tunnels=tunnels, max_connections=3) as server:
        client = await server.connect()
        with client.sock:
            peer = Http2Peer(client.sock)
            await peer.start()

            async def ask(authority: str = "a.test:80") -> PeerStream:
                fields = [(":method", "CONNECT"), (":authority", authority)]
                one = PeerStream(peer, await peer.request_fields(fields, end=False))
                await peer.until(lambda: one.answer.status > 0)
                return one

            for _ in range(3):  # a refusal keeps none
                assert (await ask("127.0.0.1:1")).answer.status == 403
            first, second, third = await ask(), await ask(), await ask()
            assert [one.answer.status for one in (first, second, third)] == [200, 200, 503]
            await first.reset()
            assert (await peer.get("/v2/")).status == 200
            while (await ask()).answer.status != 200:  # as soon as the other has come to its end
                await trio.lowlevel.checkpoint()
            assert (await peer.get("/v2/")).status == 200


async def test_a_client_that_ends_at_once_still_hears_the_target() -> None:
    async with target(echo) as port, http2(port) as (_, peer):
        one = await tunnel(peer, end=True)
        assert await exactly(one, 14) == b"220 hello\r\nbye"
        assert await one.receive_some() == b""


async def test_a_target_that_ends_may_still_be_sent_to() -> None:
    heard = trio.Event()

    async def listens(stream: trio.SocketStream) -> None:
        await stream.send_eof()
        assert b"".join([data async for data in stream]) == b"much to say" * 10_000
        heard.set()

    async with target(listens) as port, http2(port) as (server, peer):
        one = await tunnel(peer)
        assert await one.receive_some() == b""
        await one.send_all(b"much to say" * 10_000)
        await one.send_eof()
        await heard.wait()
        await server.lines.wait_for("tunnel")
        assert one.answer.reset is None
        assert (await peer.get("/v2/")).status == 200


async def test_a_reset_of_the_target_is_the_streams_own_error() -> None:
    async def breaks(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with target(breaks) as port, http2(port) as (_, peer):
        one = await tunnel(peer)
        await peer.until(lambda: one.answer.over)
        assert one.answer.reset == ErrorCodes.CONNECT_ERROR
        assert (await peer.get("/v2/")).status == 200


async def test_one_stream_without_window_holds_up_no_other() -> None:
    """And no more than a little waits for it here."""
    sent = 0

    async def pours(stream: trio.SocketStream) -> None:
        nonlocal sent
        try:
            while True:
                await stream.send_all(b"x" * 65536)
                sent += 65536
        except trio.BrokenResourceError:
            pass

    async with target(pours) as port, http2(port, window=1000) as (server, peer):
        one = await tunnel(peer)
        await peer.until(lambda: len(one.answer.body) == 1000)
        assert (await peer.get("/v2/")).status == 200
        before = -1
        while before != sent:
            before = sent
            await trio.sleep(0.05)
        assert sent < 16 << 20, "what the kernel's buffers take, and a little"
        await one.reset()
        await server.lines.wait_for("tunnel")


async def test_streams_that_are_opened_and_reset_leave_no_tunnel_behind() -> None:
    async with target(echo) as port, http2(port) as (server, peer):
        for _ in range(60):
            await (await tunnel(peer)).reset()
        assert (await peer.get("/v2/")).status == 200
        while server.number(series.TUNNELS):
            await trio.lowlevel.checkpoint()


async def test_a_connection_that_is_lost_takes_its_tunnels_along() -> None:
    async with target(echo) as port, http2(port) as (server, peer):
        for one in [await tunnel(peer) for _ in range(5)]:
            assert await exactly(one, 11) == b"220 hello\r\n"
        await peer.aclose()
        while server.number(series.TUNNELS):
            await trio.lowlevel.checkpoint()
