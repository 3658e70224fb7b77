"""What a thread takes from a connection is the body and nothing else, in whatever way it comes and ends."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from kit.upstream import FakeUpstream, fake_upstream, say
from mxart.config import Upstreams
from mxart.errors import UpstreamFailed, UpstreamTimeout
from mxart.message import Headers, Tap
from mxart.upstream.base import Ask, Reply
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.failure import Trouble
from mxart.upstream.http1 import Http1Connection
from mxart.upstream.pool import Exchange, Pool
from mxart.upstream.timing import Patience, Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.url import Origin
from mxart.upstream.wires import PlainWire, TlsWire

BLOB = random.Random(11).randbytes(2_000_003)
HERE = Origin("http", "a.example", 80)
QUICK = Patience(rounds=3, first_pause=0.001, longest_pause=0.01, total=1.0)


# A connection and the other end of its wire.


@asynccontextmanager
async def answered(head: str, body: bytes = b"") -> AsyncIterator[tuple[Http1Connection, socket.socket]]:
    """A connection on which a head, with the start of a body right behind it, has come."""
    near, far = socket.socketpair()
    near.setblocking(False)
    connection = Http1Connection(PlainWire(trio.socket.from_stdlib_socket(near)), HERE)
    try:
        far.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)
        assert (await connection.ask("GET", "/x", (), b""))[0] == 200
        assert far.recv(65536)  # unread, it would turn a close into a reset
        yield connection, far
    finally:
        connection.close()
        far.close()


async def taken(connection: Http1Connection, wait: float = 0.0, size: int = 65536) -> bytes:
    """What one visit to the tap brings."""
    buffer = memoryview(bytearray(size))
    count = await trio.to_thread.run_sync(connection.take, buffer, wait)
    return bytes(buffer[:count])


async def test_what_came_with_the_head_is_received_before_anything_is_taken() -> None:
    async with answered("Content-Length: 10", b"hel") as (connection, far):
        assert not connection.tappable
        assert await taken(connection) == b""
        assert await connection.receive() == b"hel"
        assert connection.tappable
        far.sendall(b"lo, you")
        assert await taken(connection) == b"lo, you"
        assert not connection.tappable
        assert await connection.receive() == b""
        assert connection.reusable


async def test_nothing_is_not_the_end() -> None:
    async with answered("Content-Length: 6", b"a") as (connection, far):
        assert await connection.receive() == b"a"
        assert await taken(connection, 0.001) == b""
        far.sendall(b"bc")
        assert await connection.receive() == b"bc"
        far.sendall(b"def")
        assert await taken(connection) == b"def"


async def test_a_body_in_single_bytes_is_waited_for_in_the_thread() -> None:
    async with answered("Content-Length: 4", b"a") as (connection, far):
        assert await connection.receive() == b"a"
        for byte in b"bcd":
            async with trio.open_nursery() as nursery:

                async def take(expected: int = byte) -> None:
                    assert await taken(connection, 10.0) == bytes([expected])

                nursery.start_soon(take)
                far.sendall(bytes([byte]))
        assert connection.reusable


async def test_what_is_behind_the_body_is_not_taken_and_the_connection_not_used_again() -> None:
    async with answered("Content-Length: 5", b"a") as (connection, far):
        assert await connection.receive() == b"a"
        far.sendall(b"bcdeHTTP/1.1 200 OK")
        assert await taken(connection) == b"bcde"
        assert await taken(connection) == b""
        assert await connection.receive() == b""
        assert connection.stale  # the pool looks before it uses it again


async def test_no_more_is_taken_than_the_buffer_holds() -> None:
    async with answered("Content-Length: 9", b"a") as (connection, far):
        assert await connection.receive() == b"a"
        far.sendall(b"bcdefghi")
        assert await taken(connection, size=3) == b"bcd"
        assert await taken(connection, size=3) == b"efg"
        assert await connection.receive() == b"hi"


async def test_an_end_in_the_middle_is_told_by_receive() -> None:
    async with answered("Content-Length: 9", b"a") as (connection, far):
        assert await connection.receive() == b"a"
        far.sendall(b"bcd")
        far.close()
        assert await taken(connection, 1.0) == b"bcd"
        assert await taken(connection, 1.0) == b""
        with pytest.raises(Trouble, match="5 bytes before the body's end"):
            await connection.receive()
        assert not connection.reusable


async def test_a_reset_in_the_middle_is_told_by_receive_however_often_the_tap_is_asked() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    near.setblocking(False)
    connection = Http1Connection(PlainWire(trio.socket.from_stdlib_socket(near)), HERE)
    far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
    await connection.ask("GET", "/x", (), b"")
    assert await connection.receive() == b"a"
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    listener.close()
    for _ in range(3):
        assert await taken(connection, 1.0) == b""
    for _ in range(2):
        with pytest.raises(Trouble, match="broke off the body"):
            await connection.receive()
    assert not connection.reusable
    connection.close()


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 0"])
async def test_only_a_body_with_a_length_can_be_taken(head: str) -> None:
    async with answered(head) as (connection, far):
        far.sendall(b"5\r\nhello\r\n0\r\n\r\n")
        assert not connection.tappable
        assert await taken(connection) == b""


# Whole downloads, over real connections.


class Tapping:
    """An upstream of one server, whose replies can be tapped. Notes how many bytes were."""

    name = "hub"

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin
        self.drawn = 0

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        exchange = await self._pool.ask("GET", self._origin, f"/{ask.path}", ask.headers.items, bulk=True)
        try:
            yield _Reply(self, exchange)
        finally:
            await exchange.aclose()


class _Reply:
    def __init__(self, upstream: Tapping, exchange: Exchange) -> None:
        self._upstream = upstream
        self._exchange = exchange
        self.status = exchange.status
        self.headers = exchange.headers
        self.origin = "http://hub"

    async def receive(self) -> bytes:
        try:
            return await self._exchange.receive()
        except Trouble as error:
            raise error.problem("hub") from None

    def tap(self) -> Tap | None:
        return self._exchange.tap()

    def drawn(self, count: int) -> None:
        self._upstream.drawn += count


class Drawing:
    """A sink that draws, as the store's does."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.headers: Headers | None = None
        self.total: int | None = None

    @property
    def offset(self) -> int:
        return len(self.data)

    def begin(self, total: int | None, headers: Headers) -> None:
        self.total = total
        self.headers = self.headers or headers

    async def write(self, chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.data += chunk
        if self.total is not None and len(self.data) > self.total:
            raise UpstreamFailed("more than was said")

    async def draw(self, tap: Tap) -> None:
        buffer = memoryview(bytearray(300_000))
        while count := await trio.to_thread.run_sync(tap.take, buffer, 0.002):
            self.data += buffer[:count]


async def download(up: FakeUpstream, tls: ClientTls | None = None, **timeouts: float) -> tuple[bytes, int]:
    """The body under /blob, and how many bytes of it were taken by a thread."""
    dialer = Dialer(Upstreams())
    pool = Pool(dialer, dialer.ways(None), tls, Timeouts(**timeouts))
    upstream = Tapping(pool, Origin(up.scheme, up.host, up.port))
    sink = Drawing()
    try:
        with trio.fail_after(20):
            await Download(upstream, Ask("GET", "blob"), patience=QUICK)(sink)
    finally:
        pool.close()
    return bytes(sink.data), upstream.drawn


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, ClientTls]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return ca, ClientTls(str(tmp_path / "ca.pem"))


async def test_a_whole_file_is_mostly_taken_by_the_thread() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB))
        body, drawn = await download(up)
        assert body == BLOB
        assert drawn > len(BLOB) // 2
        assert up.count() == 1


async def test_over_tls_too(authority: tuple[trustme.CA, ClientTls]) -> None:
    ca, tls = authority
    async with fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up:
        up.on("/blob", say(BLOB))
        body, drawn = await download(up, tls)
        assert body == BLOB
        assert drawn > len(BLOB) // 2


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("broken", ["reset_after", "close_after"])
async def test_what_breaks_off_is_taken_up_by_range(
    authority: tuple[trustme.CA, ClientTls], broken: str, secure: bool
) -> None:
    ca, tls = authority
    async with fake_upstream(tls=ca.issue_cert("127.0.0.1") if secure else None) as up:
        up.on("/blob", say(BLOB, **{broken: 700_000}), say(BLOB, **{broken: 900_000}), say(BLOB))
        body, _ = await download(up, tls)
        assert body == BLOB
        assert up.count() == 3
        assert all("range" in seen.headers for seen in up.requests[1:])


async def test_what_stalls_is_taken_up_by_range_after_the_idle_timeout() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, stall_after=1_000_000), say(BLOB))
        body, _ = await download(up, idle=0.2)
        assert body == BLOB
        assert up.requests[1].headers["range"] == "bytes=1000000-"


async def test_a_stall_without_end_is_a_timeout() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, stall_after=1_000_000), say(BLOB, stall_after=0))
        with pytest.raises(UpstreamTimeout):
            await download(up, idle=0.05)


async def test_a_body_that_dribbles_comes_through_the_loop() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB[:300_000], step=10_000, gap=0.005))
        body, drawn = await download(up)
        assert body == BLOB[:300_000]
        assert drawn < 300_000


async def test_a_server_without_range_sends_all_again_and_what_is_there_is_skipped() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=1_000_000), say(BLOB, ranges=False))
        body, _ = await download(up)
        assert body == BLOB


async def test_a_chunked_body_is_not_tapped() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, chunked=True))
        assert await download(up) == (BLOB, 0)


async def test_a_cancelled_download_lets_go_of_its_connection() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, stall_after=1_000_000))
        with trio.move_on_after(0.05) as scope:
            await download(up)
        assert scope.cancelled_caught
        await up.until(lambda: up.open_connections == 0)


async def test_what_is_behind_a_body_within_a_tls_record_is_no_answer_to_the_next_question(
    authority: tuple[trustme.CA, ClientTls],
) -> None:
    """OpenSSL has decrypted the record whole: neither the socket nor our buffer knows of the surplus."""
    ca, tls = authority
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("a.example").configure_cert(server)
    near, plain = socket.socketpair()
    near.setblocking(False)
    wire = TlsWire(PlainWire(trio.socket.from_stdlib_socket(near)), tls.files, "a.example")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.handshake)
        far = await trio.to_thread.run_sync(partial(server.wrap_socket, plain, server_side=True))
    connection = Http1Connection(wire, HERE)
    far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na")
    await connection.ask("GET", "/x", (), b"")
    assert await connection.receive() == b"a"
    far.sendall(b"bcdeHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    assert await taken(connection, 1.0) == b"bcde"
    assert await connection.receive() == b""
    assert connection.stale
    connection.close()
    far.close()
