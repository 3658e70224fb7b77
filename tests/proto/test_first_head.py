"""The first request's head, read from bytes that stay: whole, in crumbs, with more behind it, and wrong."""

from __future__ import annotations

from time import process_time

import pytest

from mxart.proto.first_head import FirstHead, first_head_reader, read_first_head
from mxart.proto.heads import BadHead

CONNECT = b"CONNECT A.test:443 HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
GET = b"GET /v2/ HTTP/1.1\r\nHost: a.test\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (CONNECT, ("CONNECT", "A.test:443", "A.test:443")),
        (GET, ("GET", "/v2/", "a.test")),
        (b"\r\n\r\n" + GET, ("GET", "/v2/", "a.test")),
        (b"GET http://b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", ("GET", "/x", "b.test")),
        (b"GET / HTTP/1.0\r\n\r\n", ("GET", "/", "")),
        (b"GET / HTTP/1.1\nHost: a.test\n\n", ("GET", "/", "a.test")),
        (b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n", ("PUT", "/", "a.test")),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01", b"\r\n\r\n", GET])
def test_a_head_ends_where_it_ends_and_not_before_it_is_there(
    head: bytes, expected: tuple[str, str, str], behind: bytes
) -> None:
    assert read_first_head(head + behind, 4096) == FirstHead(*expected, len(head))
    for length in range(len(head)):
        assert read_first_head(head[:length], 4096) is None
    for step in (1, 2, 3, 7):
        read = first_head_reader(4096)
        for length in range(0, len(head), step):
            assert read(head[:length]) is None
        assert read(head + behind) == FirstHead(*expected, len(head))


def test_a_head_in_crumbs_costs_no_more_than_its_bytes() -> None:
    """Looked for from the start with each crumb, the end of 60 KB of short lines would take seconds."""
    head = b"CONNECT a.test:443 HTTP/1.1\r\n" + b"a:\n" * 20000
    read = first_head_reader(65536)
    began = process_time()
    for length in range(40000, len(head), 4):
        assert read(head[:length]) is None
    assert process_time() - began < 0.5


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4096 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4096, 431),
    ],
)
def test_what_is_no_request_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadHead) as told:
        read_first_head(head, 4096)
    assert told.value.status == status
