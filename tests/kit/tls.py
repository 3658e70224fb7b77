"""TLS clients that are not OpenSSL through pyOpenSSL: Python's own ssl, whole or with its bytes in our hands."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import trio
from trio.socket import SocketType

from kit.wire import PEER, tcp_pair
from mxart.message import Peer
from mxart.proto.authority import Authority
from mxart.proto.peek import peek_until
from mxart.proto.sniff import SNIFF_BYTES, Http1, Http2Preface, Sniffed, TlsHello, Unknown, sniff, sniff_missing
from mxart.proto.tls import TlsServer
from mxart.proto.tls_transport import TlsTransport


def client_context(
    authority: Authority | bytes, alpn: Iterable[str] = (), *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A client that trusts one CA (given as it is, or as PEM) and nothing else; `version` allows only that one."""
    pem = authority.pem if isinstance(authority, Authority) else authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode())
    if offered := list(alpn):
        context.set_alpn_protocols(offered)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def hello_bytes(context: ssl.SSLContext, name: str | None) -> bytes:
    """The first flight of a client, without a connection."""
    outgoing = ssl.MemoryBIO()
    if name is None:
        context.check_hostname = False
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def client_stream(sock: SocketType, context: ssl.SSLContext, name: str | None) -> trio.SSLStream[trio.SocketStream]:
    """A client on one end of a connection, its handshake not yet done."""
    return trio.SSLStream(trio.SocketStream(sock), context, server_hostname=name, https_compatible=True)


async def accept(
    server: TlsServer, sock: SocketType, *, peer: Peer = PEER, seconds: float = 5.0, progress: float = 5.0
) -> TlsTransport:
    """Peek and shake hands, as the gateway does."""
    deadline = trio.current_time() + seconds
    found: Sniffed = await peek_until(sock, sniff, deadline=deadline, max_bytes=SNIFF_BYTES, missing=sniff_missing)
    match found:
        case TlsHello(hello):
            return await server.accept(sock, peer, hello, deadline=deadline, progress_seconds=progress)
        case Http1() | Http2Preface() | Unknown():
            raise AssertionError(f"not TLS: {found}")


@asynccontextmanager
async def connected(
    server: TlsServer,
    context: ssl.SSLContext,
    name: str | None = "a.test",
    *,
    pair: Callable[[], tuple[SocketType, SocketType]] = tcp_pair,
    progress: float = 5.0,
) -> AsyncIterator[tuple[TlsTransport, trio.SSLStream[trio.SocketStream]]]:
    """Both ends of a TLS connection after the handshake; they are closed at the end, without ceremony."""
    ours, theirs = pair()
    stream = client_stream(theirs, context, name)
    made: list[TlsTransport] = []

    async def serve() -> None:
        made.append(await accept(server, ours, progress=progress))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(stream.do_handshake)
    try:
        yield made[0], stream
    finally:
        made[0].abort()
        theirs.close()
