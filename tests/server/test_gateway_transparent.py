"""Connections that were bound for elsewhere, without a firewall: what their first bytes, or none, make of them.

Where they were bound for is put in place of the kernel's answer; `tests/clients/test_transparent.py` has real rules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import mxart.server.entrance
from kit.gateways import AUTHORITY, Running, ended, running, target
from kit.tls import client_context, client_stream, hello_bytes
from kit.wire import Client
from mxart.config import Limits, Tunnel
from mxart.listeners import Role
from mxart.server import metrics as series
from mxart.server.tunnels import Target

CONTEXT = client_context(AUTHORITY, ["http/1.1"])
TRANSPARENT = Role(transparent=True)
SSL2 = b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10" + b"\0" * 37
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


async def repeats(stream: trio.SocketStream) -> None:
    """Says a word first, and then what it hears."""
    await stream.send_all(b"welcome ")
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def caught(
    monkeypatch: pytest.MonkeyPatch, *, allowed: bool, limits: Limits | None = None
) -> AsyncIterator[Running]:
    """A gateway that serves a.test, and takes connections that were bound for a server that repeats."""
    async with target(repeats) as port:
        monkeypatch.setattr(mxart.server.entrance, "original_destination", lambda _: ("198.51.100.1", port))
        tunnels = [Tunnel(sni=("passed.test",), to=f"127.0.0.1:{port}")]
        if allowed:
            tunnels.append(Tunnel(networks=("198.51.100.0/24",)))
            # The loopback is where the test's server is, and where no tunnel leads by an address.
            monkeypatch.setattr(
                mxart.server.tunnels.TunnelTable,
                "address",
                lambda _, address, port: Target("127.0.0.1", port, explicit=True) if "198.51" in address else None,
            )
        async with running(TRANSPARENT, names=["a.test"], tunnels=tunnels, limits=limits) as server:
            yield server


async def says(server: Running, data: bytes, expected: int) -> bytes:
    """What comes back for the first bytes of a connection."""
    client = await server.connect()
    with client.sock:
        await client.send(data)
        return await client.read_exactly(expected)


GET = b"GET /x HTTP/1.1\r\nHost: %b\r\n\r\n"


@pytest.mark.parametrize("allowed", [False, True])
async def test_names_of_ours_are_served_and_listed_ones_passed_on(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    async with caught(monkeypatch, allowed=allowed) as server:
        client = await server.connect()
        async with client_stream(client.sock, CONTEXT, "a.test") as stream:
            await stream.send_all(GET % b"a.test")
            assert b"https a.test" in await stream.receive_some()
        hello = hello_bytes(CONTEXT, "passed.test")
        assert await says(server, hello, 8 + len(hello)) == b"welcome " + hello
        client = await server.connect()
        with client.sock:
            await client.send(GET % b"A.test:80")
            assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        hello_bytes(CONTEXT, "evil.test"),
        hello_bytes(client_context(AUTHORITY), None),
        SSL2,
        b"\x16\x03\x01\0\x02\xff\xff",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        GET % b"evil.test",
        b"GET /x HTTP/1.0\r\n\r\n",
        b"GET nonsense\r\n\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
        PREFACE,
        b"\0",
    ],
    ids=lambda data: repr(data[:11]),
)
async def test_anything_else_goes_on_from_its_first_byte(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    async with caught(monkeypatch, allowed=True) as server:
        assert await says(server, data, 8 + len(data)) == b"welcome " + data


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (hello_bytes(CONTEXT, "evil.test"), b"\x15\x03\x03\0\x02\x02\x70"),
        (SSL2, b""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
        (GET % b"evil.test", b"HTTP/1.1 403 "),
        (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", b"HTTP/1.1 403 "),
        (b"GET nonsense\r\n\r\n", b"HTTP/1.1 400 "),
        (b"", b""),
        (b"\x16\x03\x01", b""),
    ],
    ids=lambda data: repr(data[:11]),
)
async def test_or_nowhere(monkeypatch: pytest.MonkeyPatch, data: bytes, answer: bytes) -> None:
    limits = Limits(handshake_seconds=0.2, idle_seconds=0.2)
    async with caught(monkeypatch, allowed=False, limits=limits) as server:
        client = await server.connect()
        with client.sock:
            await client.send(data)
            assert (await ended(client))[: len(answer)] == answer
        if not answer.startswith(b"HTTP"):
            await server.lines.wait_for("no [[tunnel]] has a network with 198.51.100.1")
        assert server.number(series.TUNNELLED, "up") == 0


async def test_who_waits_for_the_servers_word_gets_it_after_a_short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async with caught(monkeypatch, allowed=True) as server:
        assert await says(server, b"", 8) == b"welcome "


async def test_what_decides_nothing_goes_on_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxart.server.entrance, "UNDECIDED_SECONDS", 0.05)
    async with caught(monkeypatch, allowed=True) as server:
        for data in (b"EHLO", b"\x16\x03\x01"):
            assert await says(server, data, 8 + len(data)) == b"welcome " + data


async def test_a_slow_hello_of_ours_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with caught(monkeypatch, allowed=True) as server:
        hello = hello_bytes(CONTEXT, "a.test")
        client: Client = await server.connect()
        with client.sock:
            await client.send(hello, 7)
            assert (await client.read_exactly(1)) == b"\x16", "a ServerHello"
