"""Connections that are passed on as raw TCP, end to end through a gateway, and those that must not be."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from kit.gateways import AUTHORITY, PLAIN, TLS, ended, running
from kit.tls import client_context, client_stream, hello_bytes
from mxart.config import Tunnel, Upstreams
from mxart.listeners import Role
from mxart.server import metrics as series

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
CONTEXT = client_context(AUTHORITY, ["http/1.1"])

Talk = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def target(talk: Talk) -> AsyncIterator[int]:
    """A server that talks to each connection in its way; its port."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await talk(stream)

        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def echo_to_the_end(stream: trio.SocketStream) -> None:
    """Says first, hears everything, and answers after the client's FIN: half-close both ways."""
    await stream.send_all(b"220 hello\r\n")
    heard = b"".join([data async for data in stream])
    await stream.send_all(heard[::-1])


async def test_a_port_of_its_own_is_passed_through_with_half_closes_and_counted() -> None:
    async with target(echo_to_the_end) as port, running(Role(tunnel_to=f"127.0.0.1:{port}")) as server:
        client = await server.connect()
        with client.sock:
            assert await client.read_until(b"\n") == b"220 hello\r\n"
            await client.send(b"x" * 300_000 + b"end")
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.read_to_end() == b"dne" + b"x" * 300_000
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["client"], line["sni"], line["to"]) == ("127.0.0.1", "", f"127.0.0.1:{port}")
        assert (line["up"], line["down"]) == (300_003, 300_014)
        assert "error" not in line
        assert server.number(series.TUNNELLED, "up") == 300_003
        assert server.number(series.TUNNELS) == 0


@pytest.mark.parametrize("role", [TLS, PLAIN])
async def test_a_listed_name_is_passed_on_from_its_first_byte(role: Role) -> None:
    hello = hello_bytes(CONTEXT, "deep.passed.test")
    async with (
        target(echo_to_the_end) as port,
        running(role, tunnels=[Tunnel(sni=("*.passed.test",), to=f"127.0.0.1:{port}")]) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(hello, 50)
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.read_to_end() == b"220 hello\r\n" + hello[::-1]
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["sni"], line["up"]) == ("deep.passed.test", len(hello))


async def test_a_whole_tls_connection_runs_through_to_another_gateway() -> None:
    async with running(Role(tls=True, proxy_protocol=False)) as inner:
        passed = Tunnel(sni=("a.test",), to=f"127.0.0.1:{inner.ports[0]}")
        async with running(TLS, tunnels=[passed]) as server:
            client = await server.connect()
            stream: trio.SSLStream[trio.SocketStream]
            async with client_stream(client.sock, CONTEXT, "a.test") as stream:
                await stream.send_all(GET)
                assert b"https a.test 1.1" in await stream.receive_some()
            assert server.handler.requests == []


@pytest.mark.parametrize(
    ("own", "why"), [([], "is a loopback address"), ([("127.0.0.1", 443)], "resolves to this server")]
)
async def test_a_name_never_leads_to_loopback_or_back_to_us(own: list[tuple[str, int]], why: str) -> None:
    upstreams = Upstreams(resolve={"inside.test": "127.0.0.1"})
    async with running(TLS, tunnels=[Tunnel(sni=("inside.test",))], upstreams=upstreams, own=own) as server:
        client = await server.connect()
        with client.sock:
            await client.send(hello_bytes(CONTEXT, "inside.test"))
            assert await ended(client) == b""
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert why in str(line["error"])
        assert (line["up"], line["down"]) == (0, 0)
        assert server.number(series.REFUSED) == 1


async def test_a_target_that_breaks_is_told_by_a_reset_and_in_the_log() -> None:
    async def breaks(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with target(breaks) as port, running(Role(tunnel_to=f"127.0.0.1:{port}")) as server:
        client = await server.connect()
        with client.sock, pytest.raises(ConnectionResetError):
            await client.read_to_end()
        assert "broke" in str(server.lines.fields(await server.lines.wait_for("tunnel"))["error"])


async def test_a_tunnel_that_is_cut_by_a_stop_says_so() -> None:
    async with target(echo_to_the_end) as port, running(Role(tunnel_to=f"127.0.0.1:{port}")) as server:
        client = await server.connect()
        with client.sock:
            await client.read_until(b"\n")
            assert server.number(series.TUNNELS) == 1
            server.connections.cancel()
            with pytest.raises(ConnectionResetError):
                await client.read_to_end()
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert "the server stops" in str(line["error"])
