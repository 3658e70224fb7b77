"""An HTTP/1.1 answer means the same in whatever pieces it comes, and nothing half is taken for whole."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.upstream.failure import Trouble
from mxart.upstream.http1 import Http1Connection
from mxart.upstream.url import Origin

ORIGIN = Origin("http", "a.example", 80)


class ScriptedWire:
    """Gives what it was told, piece by piece, then the end."""

    alpn = ""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = list(pieces)
        self.sent = b""

    async def receive_some(self, max_bytes: int) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces[0][:max_bytes]
        self.pieces[0] = self.pieces[0][max_bytes:]
        if not self.pieces[0]:
            del self.pieces[0]
        return piece

    async def send_all(self, data: bytes) -> None:
        self.sent += data

    def is_readable(self) -> bool:
        return bool(self.pieces)

    def close(self) -> None:
        self.pieces = []


async def read(pieces: Iterable[bytes], method: str = "GET") -> tuple[int, bytes, bool]:
    connection = Http1Connection(ScriptedWire(pieces), ORIGIN)
    status, _ = await connection.ask(method, "/x", (), b"")
    body = b""
    while data := await connection.receive():
        body += data
    return status, body, connection.reusable


ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        b"hello", True,
    ),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"x", True,
    ),
    (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Same\r\nContent-Length: 500\r\n\r\n", b"", True),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "body", "reusable"), ANSWERS)
async def test_whole_and_byte_by_byte(answer: bytes, body: bytes, reusable: bool) -> None:
    for pieces in ([answer], [bytes([byte]) for byte in answer]):
        _, got, again = await read(pieces)
        assert (got, again) == (body, reusable)


@pytest.mark.parametrize(("answer", "body", "reusable"), ANSWERS)
async def test_truncated_anywhere_it_is_never_taken_for_whole(answer: bytes, body: bytes, reusable: bool) -> None:
    for end in range(len(answer)):
        with pytest.raises(Trouble):
            await read([answer[:end]])


@pytest.mark.parametrize(("answer", "body", "reusable"), ANSWERS)
async def test_with_something_behind_it_the_connection_is_not_used_again(
    answer: bytes, body: bytes, reusable: bool
) -> None:
    _, got, again = await read([answer + b"HTTP/1.1 200 OK\r\n"])
    assert (got, again) == (body, False)


async def test_the_answer_to_a_head_has_no_body() -> None:
    assert await read([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"], "HEAD") == (200, b"", True)


async def test_without_a_length_the_body_ends_with_the_connection() -> None:
    assert await read([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"]) == (200, b"hello", False)


async def test_a_request_carries_its_host_once_and_a_posts_length() -> None:
    wire = ScriptedWire([b"HTTP/1.1 204 No\r\n\r\n"])
    await Http1Connection(wire, Origin("http", "::1", 5000)).ask("POST", "/t", (("x", "y"),), b"a=b")
    assert wire.sent == b"POST /t HTTP/1.1\r\nhost: [::1]:5000\r\nx: y\r\ncontent-length: 3\r\n\r\na=b"


@pytest.mark.parametrize("target", ["/a b", "/a\r\nx: y", "/ü"])
async def test_a_target_that_would_break_the_line_is_not_sent(target: str) -> None:
    wire = ScriptedWire([])
    with pytest.raises(Trouble):
        await Http1Connection(wire, ORIGIN).ask("GET", target, (), b"")
    assert wire.sent == b""


@given(st.binary(max_size=300))
async def test_no_answer_is_an_accident(answer: bytes) -> None:
    with suppress(Trouble):
        await read([answer])


@given(st.binary(max_size=100))
async def test_no_end_of_an_answer_is_an_accident(rest: bytes) -> None:
    with suppress(Trouble):
        await read([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest])
