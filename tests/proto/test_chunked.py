"""Bodies in chunks: what h11 takes is taken, however it arrives, and what could be read in two ways is refused."""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mxart.errors import BadRequest
from mxart.proto.chunked import Chunked

HEAD = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n"


def by_h11(data: bytes) -> tuple[bytes, bytes] | None:
    """The body and what follows it; None if it is refused, or not whole."""
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(HEAD + data)
    body = b""
    try:
        while True:
            match wire.next_event():
                case h11.Data(data=piece):
                    body += piece
                case h11.EndOfMessage():
                    return body, wire.trailing_data[0]
                case h11.NEED_DATA:
                    return None
    except h11.RemoteProtocolError:
        return None


def by_us(pieces: list[bytes], most: int = 1 << 30, *, into: bool = False) -> tuple[bytes, bytes] | None:
    """The same by `Chunked`, fed piece by piece. Raises BadRequest."""
    chunks = Chunked()
    body = b""
    buffer = memoryview(bytearray(min(most, 100_000)))
    for piece in pieces:
        chunks.feed(piece)
        while data := bytes(buffer[: chunks.take_into(buffer)]) if into else chunks.take(most):
            assert len(data) <= most
            body += data
    return (body, chunks.rest) if chunks.done else None


def split(data: bytes, cuts: set[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def in_chunks(parts: list[bytes], form: str = "{:x}\r\n") -> bytes:
    framed = b"".join(form.format(len(part)).encode() + part + b"\r\n" for part in parts if part)
    return framed + form.format(0).encode()


PARTS = st.lists(st.binary(min_size=1, max_size=300), max_size=8)
CUTS = st.sets(st.integers(0, 5000), max_size=8)


@settings(deadline=None)
@given(PARTS, CUTS, st.integers(1, 400), st.booleans())
def test_however_it_arrives_and_is_asked_for_the_body_is_the_one_that_was_sent(
    parts: list[bytes], cuts: set[int], most: int, into: bool
) -> None:
    data = in_chunks(parts) + b"\r\n" + NEXT
    assert by_us(split(data, cuts), most, into=into) == (b"".join(parts), NEXT)


@settings(deadline=None)
@given(PARTS)
def test_byte_by_byte(parts: list[bytes]) -> None:
    data = in_chunks(parts) + b"\r\n"
    assert by_us([bytes([byte]) for byte in data]) == (b"".join(parts), b"")


@pytest.mark.parametrize(
    "form", ["{:x}\r\n", "{:X}\r\n", "{:08x}\r\n", "{:x};a=b\r\n", '{:x};a="b;c"\r\n', "{:x} ; a\r\n"]
)
@pytest.mark.parametrize("trailer", [b"", b"A: b\r\n", b"A: b\r\nDigest: \xe9=\r\nX:\r\n"])
def test_every_form_of_a_size_and_trailer_fields(form: str, trailer: bytes) -> None:
    parts = [b"some", b"\r\n0\r\n\r\n", b"x" * 5000]
    data = in_chunks(parts, form) + trailer + b"\r\n" + NEXT
    for pieces in ([data], split(data, set(range(0, len(data), 7)))):
        assert by_us(pieces) == (b"".join(parts), NEXT)


@settings(deadline=None)
@given(PARTS, st.integers(0, 5000))
def test_a_body_cut_off_anywhere_is_not_at_its_end(parts: list[bytes], cut: int) -> None:
    data = in_chunks(parts) + b"\r\n"
    assert by_us([data[: cut % len(data)]]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"-1\r\nx\r\n",
        b"0x4\r\nsome\r\n",
        b" 4\r\nsome\r\n",
        b"+4\r\nsome\r\n",
        b"4\nsome\r\n0\r\n\r\n",
        b"4\rsome\r\n",
        b"4\r\nsome0\r\n\r\n",
        b"4\r\nsome\n0\r\n\r\n",
        b"4\r\nsom\r\n0\r\n\r\n",
        b"4;a\nb\r\nsome\r\n",
        b"4;a\x00\r\nsome\r\n",
        b"4 a\r\nsome\r\n",
        b"ffffffffffffffff0\r\n",
        b"1" * 5000,
        b"4;" + b"a" * 5000,
        b"0\r\nno field\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: " + b"b" * 17_000,
        b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_broken_framing_is_refused_and_says_what_should_be_there(data: bytes) -> None:
    with pytest.raises(BadRequest, match=r"chunk|trailer"):
        by_us([data])
    with pytest.raises(BadRequest, match=r"chunk|trailer"):
        by_us([bytes([byte]) for byte in data])


@settings(deadline=None)
@given(st.text("0123456789abcdefAF;= \r\n\tXx:\x00é", max_size=60), CUTS)
@example("0\r\n\r\n", set())
@example("1\r\nx\r\n0\r\n\r\n", set())
def test_whatever_is_taken_is_taken_by_h11_as_the_same(text: str, cuts: set[int]) -> None:
    data = text.encode("latin-1")
    found = None
    with contextlib.suppress(BadRequest):
        found = by_us(split(data, cuts))
    if found is not None:
        assert found == by_h11(data)


def test_a_flood_of_tiny_chunks_costs_little() -> None:
    data = b"1\r\nx\r\n" * 10_000
    chunks = Chunked()
    started = time.process_time()
    chunks.feed(data)
    count, longest = 0, 0
    while piece := chunks.take(1 << 20):
        count += len(piece)
        longest = max(longest, len(piece))
    assert count == 10_000
    assert longest <= 512  # then the one who asks may let others run
    assert time.process_time() - started < 0.2  # h11: 0.3 s, and many times that in one go
