"""Fake proxies and nameservers between a client and a fake upstream: CONNECT, SOCKS5, plain forwarding, DNS."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio


@dataclass
class FakeProxy:
    """A running one. `asked` holds what it was asked to connect to; `names` is its own resolver."""

    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    login: str = ""  # "user:password" it wants
    refuse: bytes = b""  # said instead of connecting
    greeting: bytes = b""  # sent behind its own answer, in the same segment


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def _join(stream: trio.SocketStream, proxy: FakeProxy, host: str, port: int) -> None:
    proxy.asked.append((host, port))
    other = await trio.open_tcp_stream(proxy.names.get(host, host), port)
    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(_pump, stream, other, nursery.cancel_scope)
        nursery.start_soon(_pump, other, stream, nursery.cancel_scope)


async def _connect(stream: trio.SocketStream, proxy: FakeProxy) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    if proxy.login and b64encode(proxy.login.encode()) not in head:
        await stream.send_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        return
    if proxy.refuse:
        await stream.send_all(proxy.refuse)
        return
    host, _, port = head.split()[1].decode().rpartition(":")
    for piece in (b"HTTP/1.1 200 Fine\r\nX: y\r", b"\n\r\n" + proxy.greeting):
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked(0.001)
    await _join(stream, proxy, host.strip("[]"), int(port))


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise trio.BrokenResourceError
        data += more
    return data


async def _socks5(stream: trio.SocketStream, proxy: FakeProxy) -> None:
    _, count = await _exactly(stream, 2)
    methods = await _exactly(stream, count)
    if proxy.login:
        if 2 not in methods:
            await stream.send_all(b"\x05\xff")
            return
        await stream.send_all(b"\x05\x02")
        _, size = await _exactly(stream, 2)
        user = await _exactly(stream, size)
        password = await _exactly(stream, (await _exactly(stream, 1))[0])
        right = user + b":" + password == proxy.login.encode()
        await stream.send_all(b"\x01\x00" if right else b"\x01\x01")
        if not right:
            return
    else:
        await stream.send_all(b"\x05\x00")
    kind = (await _exactly(stream, 4))[3]
    if kind == 3:
        host = (await _exactly(stream, (await _exactly(stream, 1))[0])).decode()
    else:
        host = str(ipaddress.ip_address(await _exactly(stream, 4 if kind == 1 else 16)))
    port = int.from_bytes(await _exactly(stream, 2), "big")
    if proxy.refuse:
        await stream.send_all(proxy.refuse)
        return
    await stream.send_all(b"\x05\x00\x00\x03\x01x\x00\x00" + proxy.greeting)
    await _join(stream, proxy, host, port)


@asynccontextmanager
async def _serving(handle: Callable[[trio.SocketStream, FakeProxy], Awaitable[None]]) -> AsyncIterator[FakeProxy]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = FakeProxy(port=listeners[0].socket.getsockname()[1])

    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(OSError, trio.BrokenResourceError):
                await handle(stream, proxy)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one, listeners)
        yield proxy
        nursery.cancel_scope.cancel()


def connect_proxy():
    """An HTTP proxy that knows CONNECT."""
    return _serving(_connect)


def socks5_proxy():
    """A SOCKS5 proxy."""
    return _serving(_socks5)


def forwarder(host: str, port: int):
    """An L4 proxy: every connection is passed on to one place."""

    async def forward(stream: trio.SocketStream, proxy: FakeProxy) -> None:
        await _join(stream, proxy, host, port)

    return _serving(forward)


@dataclass
class FakeNameserver:
    """`names` as they are answered; what is not there does not exist; `mute` answers nothing."""

    port: int
    names: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    mute: bool = False
    ttl: int = 60


@asynccontextmanager
async def fake_nameserver() -> AsyncIterator[FakeNameserver]:
    """A running one, UDP."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        server = FakeNameserver(sock.getsockname()[1])

        async def serve() -> None:
            while True:
                data, peer = await sock.recvfrom(4096)
                query = dns.message.from_wire(data)
                question = query.question[0]
                name = question.name.to_text().rstrip(".")
                server.asked.append(name)
                if server.mute:
                    continue
                response = dns.message.make_response(query)
                response.flags |= dns.flags.RA
                if name not in server.names:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                kind = 4 if question.rdtype == dns.rdatatype.A else 6
                found = [ip for ip in server.names.get(name, []) if ipaddress.ip_address(ip).version == kind]
                if found:
                    response.answer.append(
                        dns.rrset.from_text(question.name, server.ttl, "IN", question.rdtype, *found)
                    )
                await sock.sendto(response.to_wire(), peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield server
            nursery.cancel_scope.cancel()
