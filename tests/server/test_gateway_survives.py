"""Hellos in crumbs or with odd names, targets that misbehave: through the gateway, to the right place or none.

Every hello is real TLS but for its name, which is put in by hand.
"""

from __future__ import annotations

import resource
import socket
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from kit.gateways import AUTHORITY, PLAIN, TLS, ended, running, target
from kit.servers import mxart
from kit.tls import client_context, client_stream, hello_bytes
from mxart.config import Limits, Tunnel
from mxart.listeners import Role
from mxart.server import metrics as series

CONTEXT = client_context(AUTHORITY, ["http/1.1"])
RESET = struct.pack("ii", 1, 0)
UNRECOGNIZED = b"\x15\x03\x03\0\x02\x02\x70"


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def named(name: bytes | None, *, ech: bool = False) -> bytes:
    """A client's hello with any bytes for a name, and an Encrypted Client Hello beside it."""
    hello = hello_bytes(CONTEXT, "placeholder.test")
    message = hello[5:]
    sessions = 4 + 2 + 32
    suites = sessions + 1 + message[sessions]
    compression = suites + 2 + int.from_bytes(message[suites : suites + 2], "big")
    start = compression + 1 + message[compression]
    left, extensions = message[start + 2 :], b""
    while left:
        length = int.from_bytes(left[2:4], "big")
        if left[:2] != b"\0\0":
            extensions += left[: 4 + length]
        left = left[4 + length :]
    if name is not None:
        extensions += b"\0\0" + vector(2, vector(2, b"\0" + vector(2, name)))
    if ech:  # draft-ietf-tls-esni: outer, a KDF and an AEAD, a key, a payload. That of GREASE looks the same.
        extensions += b"\xfe\x0d" + vector(2, b"\0\0\x01\0\x01\x07" + vector(2, b"k" * 32) + vector(2, b"p" * 200))
    body = message[4:start] + vector(2, extensions)
    return b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, body))


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of `size` bytes."""
    message = hello[5:]
    cuts = [*range(0, len(message), size), len(message)]
    return b"".join(b"\x16\x03\x01" + vector(2, message[start:end]) for start, end in pairwise(cuts))


async def mirror(stream: trio.SocketStream) -> None:
    """Says back what it heard once the client has ended."""
    await stream.send_all(b"".join([data async for data in stream]))


@pytest.mark.parametrize("role", [PLAIN, TLS, Role(transparent=True)], ids=["plain", "tls", "transparent"])
@pytest.mark.parametrize(("size", "step"), [(1 << 14, 1), (100, 0), (100, 33), (1, 0)])
async def test_a_hello_over_many_records_and_segments_is_passed_on_as_it_came(role: Role, size: int, step: int) -> None:
    hello = in_records(named(b"Passed.Test"), size)
    async with (
        target(mirror) as port,
        running(role, tunnels=[Tunnel(sni=("passed.test",), to=f"127.0.0.1:{port}")]) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(hello, step)
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.read_to_end() == hello


@pytest.mark.parametrize(("size", "step"), [(1 << 14, 1), (100, 33), (10, 0)])
async def test_a_hello_over_many_records_and_segments_is_answered(size: int, step: int) -> None:
    async with running(TLS) as server:
        client = await server.connect()
        with client.sock:
            await client.send(in_records(named(b"a.test"), size), step)
            assert (await client.read_exactly(6))[:6:5] == b"\x16\x02", "ServerHello"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (None, b"\x16"),
        (b"a.test", b"\x16"),
        (b"a.example", UNRECOGNIZED),
        (b"127.0.0.1", b"\x16"),  # no host names: as if there were none (RFC 6066 section 3)
        (b"::1", b"\x16"),
        (b"x" * 300 + b".test", b"\x15"),  # OpenSSL's own alert
        ("d\u00f6cker.test".encode(), b"\x16"),
        (b"a.test\0.evil", b"\x15"),
        (b"", b"\x16"),
    ],
)
@pytest.mark.parametrize("ech", [False, True])
async def test_an_odd_name_opens_no_tunnel_and_gets_our_own_certificate_or_an_alert(
    name: bytes | None, answer: bytes, ech: bool
) -> None:
    tunnels = [Tunnel(sni=("*.passed.test",), to="127.0.0.1:1"), Tunnel(networks=("0.0.0.0/0", "::/0"))]
    async with running(TLS, tunnels=tunnels) as server:
        client = await server.connect()
        with client.sock:
            await client.send(named(name, ech=ech))
            assert (await client.read_exactly(len(answer))) == answer
        assert not any("tunnel" in record.name for record in server.lines.records)


async def test_with_an_encrypted_hello_the_outer_name_decides() -> None:
    hello = named(b"passed.test", ech=True)
    async with (
        target(mirror) as port,
        running(TLS, tunnels=[Tunnel(sni=("passed.test",), to=f"127.0.0.1:{port}")]) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(hello)
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.read_to_end() == hello


@pytest.mark.parametrize("role", [PLAIN, TLS])
async def test_ssl_2_is_closed(role: Role) -> None:
    async with running(role) as server:
        client = await server.connect()
        with client.sock:
            await client.send(b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10" + b"\0" * 37)
            assert await ended(client) == b""


async def test_a_name_that_is_served_is_more_than_a_pattern_and_less_than_a_tunnels_own() -> None:
    async with (
        target(mirror) as port,
        running(
            TLS,
            names=["a.test", "b.test"],
            tunnels=[Tunnel(sni=("*.test",), to="127.0.0.1:1"), Tunnel(sni=("b.test",), to=f"127.0.0.1:{port}")],
        ) as server,
    ):
        client = await server.connect()
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.do_handshake()
        hello = named(b"b.test")
        client = await server.connect()
        with client.sock:
            await client.send(hello)
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.read_to_end() == hello


# --- targets -------------------------------------------------------------------------------------------


async def test_a_target_that_refuses_closes_the_client_and_says_so_in_the_log() -> None:
    async with running(TLS, tunnels=[Tunnel(sni=("gone.test",), to="127.0.0.1:1")]) as server:
        client = await server.connect()
        with client.sock:
            await client.send(named(b"gone.test"))
            assert await ended(client) == b""
        line = server.lines.fields(await server.lines.wait_for("tunnel"))
        assert (line["sni"], line["by"]) == ("gone.test", "sni")
        assert "refused" in str(line["error"])
        assert server.number(series.REFUSED) == 1


async def test_a_target_that_resets_resets_the_client() -> None:
    async def breaks(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with (
        target(breaks) as port,
        running(TLS, tunnels=[Tunnel(sni=("passed.test",), to=f"127.0.0.1:{port}")]) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(named(b"passed.test"))
            with pytest.raises(ConnectionResetError):
                await client.read_to_end()


async def test_a_client_that_says_hello_and_nothing_more_is_cut_after_a_while_as_is_a_target_that_stalls() -> None:
    async def stalls(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with (
        target(stalls) as port,
        running(
            TLS,
            limits=Limits(tunnel_idle_seconds=0.1),
            tunnels=[Tunnel(sni=("passed.test",), to=f"127.0.0.1:{port}")],
        ) as server,
    ):
        client = await server.connect()
        with client.sock:
            await client.send(named(b"passed.test"))
            with pytest.raises(ConnectionResetError):
                await client.read_to_end()
        assert "nothing moved" in str(server.lines.fields(await server.lines.wait_for("tunnel"))["error"])


async def test_a_tunnel_that_comes_back_to_us_is_a_loop_and_ends_at_once() -> None:
    """As behind a NAT: the address that is dialled is not one that we know for ours."""
    circle: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as nat:
        nat.setblocking(False)
        loop = Tunnel(sni=("loop.test",), to=f"127.0.0.1:{nat.getsockname()[1]}")
        async with running(TLS, tunnels=[loop]) as server, trio.open_nursery() as nursery:

            async def translate() -> None:
                """A port that leads to the gateway."""
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(nat.dup()))

                async def one(stream: trio.SocketStream) -> None:
                    circle.append("round")
                    other = await trio.open_tcp_stream("127.0.0.1", server.ports[0])
                    async with other, stream, trio.open_nursery() as both:
                        both.start_soon(_copy, stream, other)
                        both.start_soon(_copy, other, stream)

                await trio.serve_listeners(one, [listener])

            nursery.start_soon(translate)
            client = await server.connect()
            with client.sock:
                await client.send(named(b"loop.test"))
                assert await ended(client) == b""
            await server.lines.wait_for("tunnel")
            told = [str(server.lines.fields(record).get("error")) for record in server.lines.records]
            nursery.cancel_scope.cancel()
    assert circle == ["round"]
    assert any("loop: this tunnel comes back" in text for text in told)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await sink.aclose()


# --- many ------------------------------------------------------------------------------------------------


async def test_two_thousand_tunnels_at_once_each_carry_their_own_bytes(tmp_path: Path) -> None:
    """Half of them by SNI, half by CONNECT, through a real server; then all end, and nothing is left."""
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * count)), hard))
    held: list[trio.SocketStream] = []
    try:
        async with target(echo) as port:
            config = (
                f'[[listener]]\naddress = "127.0.0.1:0"\n[[tunnel]]\nsni = ["passed.test"]\nto = "127.0.0.1:{port}"\n'
            )
            with mxart(tmp_path, config, listen=()) as server:
                before = _descriptors(server.service.pid)
                turns = trio.CapacityLimiter(50)

                async def one(number: int) -> None:
                    async with turns:
                        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                        held.append(stream)
                        mine = b"%d." % number * 100
                        if number % 2:
                            hello = named(b"passed.test")  # each has a random number of its own: the same is a loop
                            await stream.send_all(hello + mine)
                            expected = hello + mine
                        else:
                            await stream.send_all(
                                b"CONNECT passed.test:443 HTTP/1.1\r\nHost: passed.test:443\r\n\r\n" + mine
                            )
                            expected = b"HTTP/1.1 200 Connection established\r\n\r\n" + mine
                        got = b""
                        while len(got) < len(expected):
                            got += await stream.receive_some()
                        assert got == expected

                with trio.fail_after(60):
                    async with trio.open_nursery() as nursery:
                        for number in range(count):
                            nursery.start_soon(one, number)
                    assert _descriptors(server.service.pid) >= before + 2 * count
                    for stream in held:
                        await stream.aclose()
                    # One more than before is not a tunnel: all of them are waited for on it.
                    while _descriptors(server.service.pid) > before + 1:  # noqa: ASYNC110  # another process closes them
                        await trio.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def _descriptors(supervisor: int) -> int:
    """Of its one worker."""
    (child,) = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return len(list(Path(f"/proc/{child}/fd").iterdir()))
