"""A client that takes us for its proxy: what is served here is served, what is listed passed on, the rest refused."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from kit.gateways import AUTHORITY, PLAIN, TLS, Running, ended, running, target
from kit.tls import client_context, client_stream, hello_bytes
from kit.wire import Client
from mxart.config import Limits, Tunnel, Upstreams
from mxart.listeners import Role
from mxart.server import metrics as series

CONTEXT = client_context(AUTHORITY, ["http/1.1"])
HTTP2 = client_context(AUTHORITY, ["h2"])
GET = b"GET /v2/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
RESET = struct.pack("ii", 1, 0)
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"

roles = pytest.mark.parametrize("role", [PLAIN, TLS], ids=["plain", "tls"])


def connect(authority: str, *fields: str) -> bytes:
    return "\r\n".join((f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", "")).encode()


@asynccontextmanager
async def through(server: Running, authority: str, *fields: str, step: int = 0) -> AsyncIterator[Client]:
    """A connection by a CONNECT that was granted."""
    client = await server.connect()
    with client.sock:
        await client.send(connect(authority, *fields), step)
        assert await client.read_until(b"\r\n\r\n") == OK
        yield client


async def echo(stream: trio.SocketStream) -> None:
    """Says first, then says everything back, and ends after the client's FIN."""
    await stream.send_all(b"220 hello\r\n")
    async for data in stream:
        await stream.send_all(data)
    await stream.send_all(b"bye")


async def refused(server: Running, data: bytes) -> tuple[int, bytes]:
    """The answer to a first request, after which the server closes."""
    client = await server.connect()
    with client.sock:
        await client.send(data)
        status, _, body = await client.response()
        assert await ended(client) == b""
    return status, body


# --- names that are served here ---------------------------------------------------------------------


@roles
@pytest.mark.parametrize("step", [0, 1])
async def test_tls_to_a_name_that_is_ours_is_served_by_us(role: Role, step: int) -> None:
    async with running(role, names=["a.test"]) as server, through(server, "a.test:443", step=step) as client:
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.send_all(GET)
            assert b"127.0.0.1 https a.test 1.1" in await stream.receive_some()
        (request,) = server.handler.requests
        assert request.peer.port > 0


async def test_http2_is_agreed_upon_behind_connect() -> None:
    async with (
        running(PLAIN, names=["a.test"]) as server,
        through(server, "a.test:443") as client,
        client_stream(client.sock, HTTP2, "a.test") as stream,
    ):
        await stream.send_all(PREFACE)
        assert (await stream.receive_some())[3] == 4, "SETTINGS"


async def test_a_hello_without_a_name_is_answered_as_the_name_that_was_connected_to() -> None:
    async with running(PLAIN, names=["a.test"]) as server, through(server, "a.test:443") as client:
        context = client_context(AUTHORITY, ["http/1.1"])
        context.check_hostname = False
        async with client_stream(client.sock, context, None) as stream:
            await stream.send_all(GET)
            assert b"https a.test 1.1" in await stream.receive_some()
            assert stream.getpeercert()["subjectAltName"] == (("DNS", "a.test"),)


async def test_the_name_in_tls_is_judged_behind_connect_as_anywhere() -> None:
    async with running(PLAIN, names=["a.test"]) as server, through(server, "a.test:443") as client:
        await client.send(hello_bytes(CONTEXT, "a.example"))
        assert await ended(client) == b"\x15\x03\x03\0\x02\x02\x70", "unrecognized_name"
        await server.lines.wait_for("a.example is not served here")


async def test_plain_http_behind_connect_is_served_and_early_bytes_are_not_lost() -> None:
    async with running(PLAIN, names=["a.test"]) as server:
        client = await server.connect()
        with client.sock:
            await client.send(connect("a.test:80", "Proxy-Authorization: Basic eDp5") + GET + GET)
            assert await client.read_until(b"\r\n\r\n") == OK
            for _ in range(2):
                assert (await client.response())[0] == 200
        assert all("proxy-authorization" not in request.headers for request in server.handler.requests)


async def test_http2_with_prior_knowledge_is_served_behind_connect() -> None:
    async with running(PLAIN, names=["a.test"]) as server, through(server, "a.test:80") as client:
        await client.send(PREFACE)
        assert (await client.read_exactly(9))[3] == 4, "SETTINGS"


async def test_our_own_address_is_ours() -> None:
    async with running(PLAIN) as server, through(server, f"127.0.0.1:{server.ports[0]}") as client:
        await client.send(GET)
        assert (await client.response())[0] == 200


async def test_behind_a_connect_there_is_no_other_one() -> None:
    async with running(PLAIN, names=["a.test"]) as server, through(server, "a.test:80") as client:
        await client.send(connect("a.test:443"))
        status, _, body = await client.response()
        assert status == 403
        assert b"within CONNECT" in body


@pytest.mark.parametrize("data", [b"", b"GE", b"\x16\x03\x01\0"])
async def test_who_is_silent_behind_connect_is_closed_after_a_while(data: bytes) -> None:
    async with (
        running(PLAIN, names=["a.test"], limits=Limits(handshake_seconds=0.1)) as server,
        through(server, "a.test:443") as client,
    ):
        await client.send(data)
        assert await ended(client) == b""


async def test_who_does_not_finish_his_connect_is_closed_after_a_while() -> None:
    async with running(PLAIN, limits=Limits(handshake_seconds=0.1)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(connect("a.test:443")[:-2])
            assert await ended(client) == b""


async def test_a_connection_by_connect_holds_one_slot() -> None:
    async with running(PLAIN, names=["a.test"], max_connections=1) as server:
        for _ in range(3):
            async with through(server, "a.test:80") as client:
                await client.send(GET)
                assert (await client.response())[0] == 200
                assert server.number(series.CONNECTIONS) == 1


# --- names that are passed on -----------------------------------------------------------------------


@roles
async def test_a_name_that_is_listed_is_passed_on_with_half_closes(role: Role) -> None:
    async with (
        target(echo) as port,
        running(role, tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(connect("db.test:443") + b"early ")
            assert await client.read_until(b"\r\n\r\n") == OK
            assert await client.read_until(b"\n") == b"220 hello\r\n"
            await client.send(b"x" * 300_000)
            client.sock.shutdown(socket.SHUT_WR)
            assert (await client.read_to_end()) == b"early " + b"x" * 300_000 + b"bye"
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["by"], line["name"], line["to"]) == ("connect", "db.test", f"127.0.0.1:{port}")
        assert line["up"] == 300_006
        assert server.number(series.TUNNELS) == 0


async def test_a_target_that_refuses_is_told_with_its_reason() -> None:
    tunnel = Tunnel(sni=("db.test",), to="127.0.0.1:1")
    async with running(PLAIN, tunnels=[tunnel]) as server:
        status, body = await refused(server, connect("db.test:443"))
        assert status == 503
        assert b"refused" in body
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert "refused" in str(line["error"])


async def test_a_target_that_does_not_answer_is_told_as_a_timeout() -> None:
    # A full backlog: the kernel drops further attempts, so that nobody answers them.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(address)
        tunnel = Tunnel(sni=("db.test",), to=f"127.0.0.1:{address[1]}")
        async with running(PLAIN, tunnels=[tunnel], connect_seconds=0.1) as server:
            status, body = await refused(server, connect("db.test:443"))
            assert status == 504
            assert b"took longer" in body
        for filler in fillers:
            filler.close()


async def test_a_target_that_resets_resets_the_client() -> None:
    async def breaks(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with (
        target(breaks) as port,
        running(PLAIN, tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        through(server, "db.test:443") as client,
    ):
        await client.send(b"x")
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()


async def test_a_tunnel_in_which_nothing_moves_ends() -> None:
    limits = Limits(tunnel_idle_seconds=0.1)
    async with (
        target(echo) as port,
        running(PLAIN, limits=limits, tunnels=[Tunnel(sni=("db.test",), to=f"127.0.0.1:{port}")]) as server,
        through(server, "db.test:443") as client,
    ):
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert "nothing moved" in str(line["error"])


@pytest.mark.parametrize("name", ["inside.test", "127.0.0.1", "169.254.169.254"])
async def test_no_connect_leads_to_loopback_or_link_local(name: str) -> None:
    tunnels = [Tunnel(sni=("inside.test",)), Tunnel(networks=("127.0.0.0/8", "169.254.0.0/16"))]
    upstreams = Upstreams(resolve={"inside.test": "127.0.0.1"})
    async with running(PLAIN, tunnels=tunnels, upstreams=upstreams) as server:
        status, body = await refused(server, connect(f"{name}:443"))
        assert status == 403
        assert b"address" in body
        assert server.number(series.REFUSED) == 1


# --- everything else ----------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (connect("evil.test:443"), 403),
        (connect("a.test:22"), 403),
        (connect("127.0.0.1:22"), 403),
        (connect("10.0.0.1:443"), 403),
        (connect("a.test"), 400),
        (connect("a.test:443", "Content-Length: 5"), 400),
        (connect("a.test:443", "Transfer-Encoding: chunked"), 400),
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT http://a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nX: " + b"x" * 70000 + b"\r\n\r\n", 431),
    ],
)
async def test_any_other_connect_is_refused_with_an_answer(role: Role, data: bytes, status: int) -> None:
    async with running(role, names=["a.test"], tunnels=[Tunnel(sni=("*.db.test",))]) as server:
        found, body = await refused(server, data)
        assert found == status, body


async def test_a_refusal_says_what_is_allowed_and_is_counted() -> None:
    async with running(PLAIN, names=["a.test"], tunnels=[Tunnel(sni=("*.db.test",))]) as server:
        _, body = await refused(server, connect("evil.test:443"))
        assert b"evil.test:443 is not allowed here: served are a.test; passed on are *.db.test" in body
        assert server.number(series.REFUSED) == 1
        (request, response, _) = server.handler.ends[0]
        assert response is not None
        assert request.target == "evil.test:443"
        assert any("403" in note for note in request.trace.notes)


@pytest.mark.parametrize(
    "data",
    [
        connect("evil.test:443"),
        connect("db.test:443"),
        b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
async def test_a_stranger_learns_nothing_of_what_is_inside(data: bytes) -> None:
    """His address is one of the Internet: a load balancer says so."""
    tunnels = [Tunnel(sni=("db.test",), to="127.0.0.1:1"), Tunnel(networks=("10.0.0.0/8",))]
    inside = ("a.test", "10.0.0.0", "127.0.0.1")
    async with running(Role(proxy_protocol=True), names=["a.test"], tunnels=tunnels) as server:
        answers = []
        for source in ("10.0.0.7", "8.8.8.8"):
            client = await server.connect()
            with client.sock:
                await client.send(f"PROXY TCP4 {source} 192.0.2.1 5000 80\r\n".encode() + data)
                answers.append(await ended(client))
        own, stranger = (answer.decode() for answer in answers)
        assert own[:12] == stranger[:12]
        assert any(word in own for word in inside)
        assert not any(word in stranger for word in inside)


# --- URLs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
async def test_a_url_of_ours_is_served_and_its_host_is_the_one_that_counts(scheme: str) -> None:
    async with running(PLAIN, names=["a.test"]) as server:
        client = await server.connect()
        with client.sock:
            await client.send(f"GET {scheme}://a.test/v2/?n=1 HTTP/1.1\r\nHost: b.test\r\n\r\n".encode())
            assert (await client.response())[0] == 200
        (request,) = server.handler.requests
        assert (request.authority, request.target) == ("a.test", "/v2/?n=1")


async def test_a_url_over_tls_counts_more_than_the_proxys_own_name_there() -> None:
    async with running(TLS, names=["a.test", "b.test"]) as server:
        client = await server.connect()
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.send_all(
                b"GET http://b.test/v2/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
            )
            assert b"https None 1.1" in await stream.receive_some()
        (request,) = server.handler.requests
        assert "proxy-authorization" not in request.headers


async def test_a_url_of_anybody_else_is_refused() -> None:
    async with running(PLAIN, names=["a.test"], tunnels=[Tunnel(sni=("db.test",))]) as server:
        client = await server.connect()
        with client.sock:
            for url, word in (("http://evil.test/", b"not served"), ("http://db.test/", b"CONNECT")):
                await client.send(f"GET {url} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
                status, _, body = await client.response()
                assert status == 403
                assert word in body
            await client.send(f"GET http://127.0.0.1:{server.ports[0]}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await client.response())[0] == 200
