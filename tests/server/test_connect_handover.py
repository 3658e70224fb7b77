"""CONNECT where the engine has the connection already: in TLS, or behind another request. The bytes are handed over."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from kit.gateways import AUTHORITY, PLAIN, TLS, Running, running, target
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

ways = pytest.mark.parametrize("way", ["keep-alive", "tls"])


def connect(authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


class Way:
    """A client's stream that an engine serves; its buffer, and its socket."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream | trio.SSLStream[trio.SocketStream], client: Client
    ) -> None:
        self.stream = stream
        self.sock = client.sock
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
        await self.stream.send_all(connect(authority) + early)
        assert await self.read_exactly(len(OK)) == OK


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
        if isinstance(outer.stream, trio.SSLStream):  # it cannot half-close
            outer.sock.shutdown(socket.SHUT_WR)
        else:
            await outer.stream.send_eof()
        assert await outer.read_to_end() == b"bye"
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["by"], line["name"], line["up"]) == ("connect", "db.test", 3_000_006)
        assert "error" not in line


@ways
async def test_everything_else_is_refused(way: str) -> None:
    async with running(role(way), names=["a.test"], tunnels=[Tunnel(sni=("gone.test",), to="127.0.0.1:1")]) as server:
        for authority, status in (("evil.test:443", b"403"), ("127.0.0.1:22", b"403"), ("gone.test:443", b"503")):
            async with opened(server, way) as outer:
                await outer.stream.send_all(connect(authority))
                assert (await outer.read_exactly(12))[9:] == status


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
    ):
        async with opened(server, way) as outer:
            await outer.connect("db.test:443", early=b"x")
            outer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
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
        async with opened(server, way) as outer:
            await outer.stream.send_all(connect("db.test:443"))
            await dialling.wait()
        await left.wait()
        await server.lines.wait_for("tunnel")
        assert server.number(series.TUNNELS) == 0
