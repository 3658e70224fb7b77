"""A thread draws the body of a request, over plain TCP and TLS, and the connection is as good as ever afterwards."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import pytest
import trio
import trio.testing

from kit.descriptors import open_files
from kit.store import some_bytes
from kit.tls import client_context, connected
from kit.wire import PEER, FakeHandler, tcp_pair, text
from mxart.errors import Disconnected, Problem
from mxart.message import Request, RequestBody, Response, TappedBody
from mxart.proto.authority import Authority
from mxart.proto.draining import Draining
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.plain import PlainTransport
from mxart.proto.tls import TlsServer

AUTHORITY = Authority.ephemeral()
DATA = some_bytes(3_000_001)
Stream = trio.abc.Stream


class Drawing(FakeHandler):
    """Draws as much of a body as it can, and answers with its digest and how much was not drawn."""

    def __init__(self) -> None:
        super().__init__(self.draw)
        self.failures: list[Exception] = []
        self.got = bytearray()
        self.drawn = 0

    async def draw(self, request: Request) -> Response:
        self.got = bytearray()
        self.drawn = 0
        try:
            await self._take(request.body)
        except (Problem, Disconnected) as error:
            self.failures.append(error)
            return text(str(error).encode(), getattr(error, "status", 400))
        return text(f"{sha256(self.got).hexdigest()} {len(self.got)}".encode())

    async def _take(self, body: RequestBody) -> None:
        buffer = memoryview(bytearray(200_000))
        while data := await body.receive():
            self.got += data
            while isinstance(body, TappedBody) and (tap := body.tap()) is not None:
                count = await trio.to_thread.run_sync(tap.take, buffer, 0.02)
                body.drawn(count)
                self.got += buffer[:count]
                self.drawn += count
                if not count:
                    break


@asynccontextmanager
async def talking(kind: str, limits: Http1Limits | None = None) -> AsyncIterator[tuple[Stream, Drawing]]:
    before = open_files()
    handler = Drawing()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            if kind == "plain":
                ours, theirs = tcp_pair()
                nursery.start_soon(
                    serve_http1, PlainTransport(ours, PEER, 5), handler, limits or Http1Limits(), Draining()
                )
                stream: Stream = trio.SocketStream(theirs)
                try:
                    yield stream, handler
                finally:
                    theirs.close()
            else:
                server = TlsServer(AUTHORITY, lambda name: name.endswith(".test"))
                async with connected(server, client_context(AUTHORITY)) as (transport, client):
                    nursery.start_soon(serve_http1, transport, handler, limits or Http1Limits(), Draining())
                    yield client, handler
                    client.transport_stream.socket.close()
                    while not nursery.cancel_scope.cancel_called and nursery.child_tasks:
                        await trio.testing.wait_all_tasks_blocked(0.001)
    assert open_files() == before


def head(framing: str, more: str = "") -> bytes:
    return f"PUT /up HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n{more}\r\n".encode()


def framed(data: bytes, chunk: int) -> bytes:
    """A request with a body, in chunks of that size; 0: with its length."""
    if not chunk:
        return head(f"Content-Length: {len(data)}") + data
    pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head("Transfer-Encoding: chunked") + body + b"0\r\nTrailer: x\r\n\r\n"


async def answer(stream: Stream, seen: bytearray) -> tuple[int, str]:
    while (match := re.match(rb"HTTP/1.1 (\d+)[^\n]*\r\n(?:[^\r]+\r\n)*\r\n", seen)) is None:
        seen += await more(stream)
    fields, status = bytes(match[0]), int(match[1])
    length = re.search(rb"(?i)content-length: (\d+)", fields)
    end = len(fields) + (int(length[1]) if length else 0)
    while len(seen) < end:
        seen += await more(stream)
    body = seen[len(fields) : end].decode()
    del seen[:end]
    return status, body


async def more(stream: Stream) -> bytes:
    data = await stream.receive_some(65536)
    assert data, "the server closed"
    return bytes(data)


def told(data: bytes) -> tuple[int, str]:
    return 200, f"{sha256(data).hexdigest()} {len(data)}"


KINDS = ["plain", "tls"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768, 1 << 20, 999])
async def test_a_large_body_is_drawn_and_the_next_request_is_answered(kind: str, chunk: int) -> None:
    async with talking(kind) as (stream, handler):
        seen = bytearray()
        for data in (DATA, DATA[:1_000_000], b"small", DATA[:70_000]):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, framed(data, chunk))
                assert await answer(stream, seen) == told(data)
            if len(data) > 100_000:
                assert handler.drawn > 0
        assert len(handler.requests) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_requests_that_follow_without_waiting_keep_their_bytes(kind: str, chunk: int) -> None:
    async with talking(kind) as (stream, _):
        seen = bytearray()
        bodies = [DATA[:500_000], DATA[:2_000_000], DATA[5:9]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"".join(framed(data, chunk) for data in bodies))
            for data in bodies:
                assert await answer(stream, seen) == told(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_a_slow_client_is_waited_for(kind: str, chunk: int) -> None:
    """The thread takes what is there and goes; the loop waits."""
    async with talking(kind) as (stream, handler):
        request = framed(DATA[:400_000], chunk)
        for at in range(0, len(request), 90_001):
            await stream.send_all(request[at : at + 90_001])
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert await answer(stream, bytearray()) == told(DATA[:400_000])
        assert len(handler.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_a_client_that_waits_for_a_100_gets_it_once(kind: str, chunk: int) -> None:
    async with talking(kind) as (stream, _):
        request = framed(DATA[:1_000_000], chunk)
        end = request.index(b"\r\n\r\n") + 2
        await stream.send_all(request[:end] + b"Expect: 100-continue\r\n\r\n")
        seen = bytearray()
        assert (await answer(stream, seen))[0] == 100
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, request[end + 2 :])
            assert await answer(stream, seen) == told(DATA[:1_000_000])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_a_client_that_leaves_in_the_middle_is_noticed_and_all_that_came_was_given_out(
    kind: str, chunk: int
) -> None:
    async with talking(kind) as (stream, handler):
        await stream.send_all(framed(DATA, chunk)[:-1_000_000])
        if kind == "plain":
            assert isinstance(stream, trio.SocketStream)
            await stream.send_eof()
        else:
            assert isinstance(stream, trio.SSLStream)
            await stream.transport_stream.send_eof()
        while not handler.failures:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert isinstance(handler.failures[0], Disconnected)
        assert DATA.startswith(handler.got)
        assert len(handler.got) > len(DATA) - 1_040_000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_resets_is_noticed(kind: str) -> None:
    async with talking(kind) as (stream, handler):
        await stream.send_all(framed(DATA, 0)[:-1_000_000])
        inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        assert isinstance(inner, trio.SocketStream)
        inner.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: on, 0 s
        inner.socket.close()
        while not handler.failures:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert isinstance(handler.failures[0], Disconnected)
        assert DATA.startswith(handler.got)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_more_than_is_taken_is_refused(kind: str, chunk: int) -> None:
    async with talking(kind, Http1Limits(body_bytes=1_000_000)) as (stream, handler):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quietly, stream, framed(DATA, chunk))
            assert (await answer(stream, bytearray()))[0] == 413
            nursery.cancel_scope.cancel()
        assert len(handler.got) <= (1_000_000 if chunk else 0)


@pytest.mark.parametrize("chunk", [0, 32_768])
async def test_exactly_as_much_as_is_taken_is_taken(chunk: int) -> None:
    async with talking("plain", Http1Limits(body_bytes=len(DATA))) as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, framed(DATA, chunk))
        assert await answer(stream, bytearray()) == told(DATA)


@pytest.mark.parametrize("kind", KINDS)
async def test_chunks_that_break_in_the_middle_are_refused(kind: str) -> None:
    good = framed(DATA[:1_000_000], 32_768)
    bad = good[:700_000] + b"\r\nnonsense\r\n" * 3000
    async with talking(kind) as (stream, handler):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quietly, stream, bad)
            assert (await answer(stream, bytearray()))[0] == 400
            nursery.cancel_scope.cancel()
        assert isinstance(handler.failures[0], Problem)


async def quietly(stream: Stream, data: bytes) -> None:
    """Send to somebody who may not want to hear it all."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
