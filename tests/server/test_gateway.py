"""What a connection's first bytes make of it, on real sockets: served, redirected, passed through or closed."""

from __future__ import annotations

import os
import resource
import socket
import struct
from contextlib import suppress

import pytest
import trio

from kit.gateways import AUTHORITY, PLAIN, TLS, Running, ended, running
from kit.tls import client_context, client_stream, hello_bytes
from kit.wire import Client, text
from mxart.config import Limits, Tunnel
from mxart.listeners import Role
from mxart.message import Request, Response
from mxart.proto.client_hello import DECODE_ERROR, PROTOCOL_VERSION, UNEXPECTED_MESSAGE, plain_alert
from mxart.server import metrics as series

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
RESET = struct.pack("ii", 1, 0)
CONTEXT = client_context(AUTHORITY, ["http/1.1"])
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + bytes((192, 0, 2, 7, 198, 51, 100, 1))
    + (1234).to_bytes(2, "big")
    + (443).to_bytes(2, "big")
)
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


async def body(client: Client) -> list[str]:
    status, _, data = await client.response()
    assert status == 200
    return data.decode().split()


# --- what is spoken -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1])
async def test_plain_http_on_a_plain_port_is_served(step: int) -> None:
    async with running(PLAIN) as server:
        client = await server.connect()
        with client.sock:
            port = client.sock.getsockname()[1]
            await client.send(GET, step)
            assert await body(client) == ["127.0.0.1", str(port), "127.0.0.1", "http", "None", "1.1"]


async def test_http2_with_prior_knowledge_is_served_on_a_plain_port() -> None:
    async with running(PLAIN) as server:
        client = await server.connect()
        with client.sock:
            await client.send(PREFACE, 1)
            assert (await client.read_exactly(9))[3] == 4, "SETTINGS"


async def test_tls_on_a_tls_port_is_served_by_our_own_certificate() -> None:
    async with running(TLS) as server:
        client = await server.connect()
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.send_all(GET)
            assert b"127.0.0.1 https a.test 1.1" in await stream.receive_some()


async def test_http2_is_agreed_upon_in_tls() -> None:
    async with running(TLS) as server:
        client = await server.connect()
        async with client_stream(client.sock, client_context(AUTHORITY, ["h2"]), "a.test") as stream:
            await stream.send_all(PREFACE)
            assert (await stream.receive_some())[3] == 4, "SETTINGS"


async def test_a_tls_client_on_a_plain_port_gets_an_answer_that_it_knows_for_plain_http() -> None:
    async with running(PLAIN) as server:
        client = await server.connect()
        with client.sock:
            await client.send(hello_bytes(CONTEXT, "a.test"))
            answer = await client.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"plain HTTP" in answer
        assert server.number(series.REFUSED) == 1


async def test_plain_http_on_a_tls_port_is_sent_to_https() -> None:
    async with running(TLS) as server:
        client = await server.connect()
        with client.sock:
            await client.send(b"GET /v2/?n=1 HTTP/1.1\r\nHost: a.test:8443\r\n\r\n")
            status, fields, _ = await client.response()
            assert (status, fields["location"]) == (308, "https://a.test:8443/v2/?n=1")
            assert server.handler.requests == []
            await client.send(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert (await client.response())[0] == 400
        server.handler.requests.extend(request for request, _, _ in server.handler.ends)  # these, too, are told of
        assert len(server.handler.ends) == 2


async def test_http2_in_clear_text_on_a_tls_port_is_refused_with_an_answer() -> None:
    async with running(TLS) as server:
        client = await server.connect()
        with client.sock:
            await client.send(PREFACE)
            assert (await ended(client)).startswith(b"HTTP/1.1 ")
        assert server.handler.requests == []


@pytest.mark.parametrize("role", [PLAIN, TLS])
@pytest.mark.parametrize("data", [b"\0\0\0\0", b"SSH-2.0-OpenSSH_9.2\r\n", b"\r\n" * 30])
async def test_anything_else_is_closed(role: Role, data: bytes) -> None:
    async with running(role) as server:
        client = await server.connect()
        with client.sock:
            await client.send(data)
            assert await ended(client) == b""
        assert server.number(series.REFUSED) == 1


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x16\x03\x01\0\x02\xff\xff", UNEXPECTED_MESSAGE),
        (b"\x16\x02\x00\0\x02\x01\0", PROTOCOL_VERSION),
        (b"\x16\x03\x01\0\x06\x01\0\0\x02\x03\x03", DECODE_ERROR),
    ],
)
@pytest.mark.parametrize("role", [PLAIN, TLS])
async def test_a_hello_that_is_none_gets_the_alert_that_says_why(role: Role, data: bytes, alert: int) -> None:
    async with running(role) as server:
        client = await server.connect()
        with client.sock:
            await client.send(data)
            assert await ended(client) == plain_alert(alert)
        await server.lines.wait_for("closed: ")
        assert server.number(series.REFUSED) == 1


BEHIND = Role(proxy_protocol=True)


@pytest.mark.parametrize(
    ("role", "data"),
    [
        *((role, data) for role in (PLAIN, TLS) for data in (b"", b"GE", b"\x16\x03\x01")),
        *((BEHIND, data) for data in (b"", b"PROXY TC", V2[:20], V1, V2 + b"\x16\x03")),
    ],
)
async def test_a_client_that_does_not_say_what_it_wants_is_closed_after_a_while(role: Role, data: bytes) -> None:
    async with running(role, limits=Limits(handshake_seconds=0.05)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(data)
            assert await ended(client) == b""


async def test_a_handshake_that_stops_half_way_is_cut() -> None:
    async with running(TLS, limits=Limits(handshake_seconds=0.1)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(hello_bytes(CONTEXT, "a.test"))
            assert (await ended(client))[:1] in (b"\x16", b"")
        await server.lines.wait_for("too long")


async def test_a_name_that_nobody_claims_gets_an_alert() -> None:
    async with running(TLS) as server:
        client = await server.connect()
        with client.sock:
            await client.send(hello_bytes(CONTEXT, "a.example"))
            assert await ended(client) == b"\x15\x03\x03\0\x02\x02\x70", "unrecognized_name"


# --- the PROXY protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("header", [V1, V2])
async def test_a_proxy_header_says_who_the_client_is(header: bytes, step: int) -> None:
    async with running(Role(proxy_protocol=True)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(header + GET, step)
            assert (await body(client))[:3] == ["192.0.2.7", "1234", "198.51.100.1"]


async def test_tls_is_served_behind_a_proxy_header() -> None:
    async with running(Role(tls=True, proxy_protocol=True)) as server:
        client = await server.connect()
        await client.send(V2, 3)
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.send_all(GET)
            assert b"192.0.2.7 1234 198.51.100.1 https a.test" in await stream.receive_some()


@pytest.mark.parametrize("header", [V2_LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_the_load_balancers_own_checks_come_from_its_own_address(header: bytes) -> None:
    async with running(Role(proxy_protocol=True)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(header + GET)
            assert (await body(client))[1] == str(client.sock.getsockname()[1])


async def test_an_ipv4_client_of_a_dual_stack_balancer_is_an_ipv4_client() -> None:
    header = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1234 443\r\n"
    async with running(Role(proxy_protocol=True)) as server:
        client = await server.connect()
        with client.sock:
            await client.send(header + GET)
            assert (await body(client))[:3] == ["192.0.2.7", "1234", "198.51.100.1"]


async def test_where_a_proxy_header_is_demanded_nobody_comes_without_and_elsewhere_nobody_with() -> None:
    async with running(Role(proxy_protocol=True), PLAIN) as server:
        for listener, data in ((0, GET), (0, hello_bytes(CONTEXT, "a.test")), (1, V2 + GET)):
            client = await server.connect(listener)
            with client.sock:
                await client.send(data)
                assert await ended(client) == b""
        client = await server.connect(1)
        with client.sock:
            await client.send(V1 + GET)
            assert b" 400 " in (await ended(client))[:20]
        assert server.handler.requests == []


# --- limits ---------------------------------------------------------------------------------------


async def test_the_connection_above_the_limit_waits_and_is_served_then() -> None:
    async with running(PLAIN, max_connections=1) as server:
        first, second = await server.connect(), await server.connect()
        await first.send(GET)
        await body(first)
        await second.send(GET)
        with trio.move_on_after(0.05) as waited:
            await second.sock.recv(1)
        assert waited.cancelled_caught
        assert server.number(series.CONNECTIONS) == 1
        first.sock.close()
        await body(second)
        second.sock.close()


async def test_quiet_listeners_hold_no_slot() -> None:
    async with running(PLAIN, PLAIN, PLAIN, max_connections=1) as server:
        for listener in (2, 1, 0, 1):
            assert (await server.get(listener))[0] == 200


async def test_no_way_to_end_keeps_a_slot_or_a_descriptor() -> None:
    tunnel = Tunnel(sni=("gone.test",), to="127.0.0.1:1")
    async with running(PLAIN, TLS, max_connections=1, tunnels=[tunnel]) as server:
        for listener, data in (
            (0, b"\0"),
            (0, hello_bytes(CONTEXT, "a.test")),
            (0, b"NONSENSE\r\n\r\n"),
            (0, PREFACE[:24] + b"\0" * 9),
            (1, hello_bytes(CONTEXT, "a.example")),
            (1, hello_bytes(CONTEXT, "gone.test")),
            (1, hello_bytes(CONTEXT, "a.test") + b"no handshake"),
            (1, b""),
        ):
            client = await server.connect(listener)
            with client.sock:
                with suppress(OSError):  # it may have been cut already
                    await client.send(data)
                    client.sock.shutdown(socket.SHUT_WR)
                await ended(client)
        for data in (b"", b"GET", GET):
            client = await server.connect()
            await client.send(data)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.sock.close()
        assert (await server.get())[0] == 200


async def test_without_descriptors_new_connections_wait_until_there_are_some() -> None:
    async with running(PLAIN) as server:
        client = trio.socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        next_one = os.dup(client.fileno())
        os.close(next_one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
        try:
            await client.connect(("127.0.0.1", server.ports[0]))
            await server.lines.wait_for("cannot accept")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with client:
            await client.send(GET)
            assert await client.recv(100)


# --- draining -------------------------------------------------------------------------------------


async def test_draining_closes_idle_connections_and_lets_open_requests_finish() -> None:
    go_on = trio.Event()

    async def answer(request: Request) -> Response:
        if request.path == "/slow":
            await go_on.wait()
        return text(b"done")

    async with running(PLAIN, TLS, answer=answer) as server:
        idle, busy, silent = await server.connect(), await server.connect(), await server.connect(1)
        await idle.send(GET)
        await idle.response()
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
        while len(server.handler.requests) < 2:
            await trio.lowlevel.checkpoint()
        while server.number(series.CONNECTIONS) < 3:
            await trio.lowlevel.checkpoint()
        server.drain()
        assert await idle.read_to_end() == b""
        assert await silent.read_to_end() == b""
        go_on.set()
        status, fields, data = await busy.response()
        assert (status, fields["connection"], data) == (200, "close", b"done")
        assert await busy.read_to_end() == b""
        for client in (idle, busy, silent):
            client.sock.close()


async def test_what_does_not_finish_before_the_deadline_is_cut() -> None:
    async with running(PLAIN, answer=_never) as server:
        client = await server.connect()
        with client.sock:
            await client.send(GET)
            await server.handler.started.wait()
            server.drain()
            server.connections.cancel()
            with pytest.raises(ConnectionResetError):
                await client.read_to_end()
        assert server.handler.cancelled == 1


async def _never(_: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


async def test_clients_that_leave_at_any_point_disturb_nobody() -> None:
    hello = hello_bytes(CONTEXT, "a.test")
    async with running(PLAIN, TLS) as server:

        async def leave(listener: int, data: bytes) -> None:
            client = await server.connect(listener)
            await client.send(data)
            client.sock.close()

        for length in range(0, len(hello), 40):
            await leave(1, hello[:length])
        for length in range(len(GET)):
            await leave(0, GET[:length])
        assert (await server.get())[0] == 200
        await all_closed(server)


async def all_closed(server: Running) -> None:
    while server.number(series.CONNECTIONS):
        await trio.lowlevel.checkpoint()
