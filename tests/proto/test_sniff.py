"""First bytes, and what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.tls import client_context, hello_bytes
from mxart.proto.authority import Authority
from mxart.proto.client_hello import BadClientHello
from mxart.proto.sniff import HTTP2_PREFACE, SNIFF_BYTES, Http1, Http2Preface, TlsHello, Unknown, sniff, sniff_missing

HELLO = hello_bytes(client_context(Authority.ephemeral()), "a.test")


def test_a_tls_hello_is_known_when_it_is_complete() -> None:
    for length in range(len(HELLO)):
        assert sniff(HELLO[:length]) is None
        assert 1 <= sniff_missing(HELLO[:length]) <= max(1, len(HELLO) - length)
    found = sniff(HELLO + b"more")
    assert isinstance(found, TlsHello)
    assert found.hello.sni == "a.test"
    with pytest.raises(BadClientHello):
        sniff(b"\x16\x03\x01\x00\x00")


def test_the_preface_of_http_2_is_known_at_its_last_byte() -> None:
    for length in range(len(HTTP2_PREFACE)):
        assert sniff(HTTP2_PREFACE[:length]) is None
        assert sniff_missing(HTTP2_PREFACE[:length]) == 1
    assert sniff(HTTP2_PREFACE + b"\0\0\0\4") == Http2Preface()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\nPOST /",
        b"PRI * HTTP/1.1",
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"PUT /",
        b"M-SEARCH * ",
    ],
)
def test_http_1_is_a_method_and_a_space(data: bytes) -> None:
    assert sniff(data) == Http1()


@pytest.mark.parametrize("data", [b"G", b"GET", b"\r\n", b"\r\nDELETE", b"P", b"X" * 64])
def test_half_a_method_is_not_enough(data: bytes) -> None:
    assert sniff(data) is None


@pytest.mark.parametrize(
    "data",
    [b"\0", b"\x80\x2e", b"SSH\x00", b" GET", b"GET\r\n", b"\x15\x03", b"\xff" * 8, b"X" * 65, b"\r\n" * 9, b"{}"],
)
def test_anything_else_is_nothing_we_serve(data: bytes) -> None:
    assert sniff(data) == Unknown()


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_more_bytes_never_change_a_decision(data: bytes) -> None:
    try:
        first = next((found for end in range(len(data) + 1) if (found := sniff(data[:end])) is not None), None)
    except BadClientHello:
        return
    if first is not None:
        assert sniff(data) == first


def test_the_bound_is_enough_for_the_largest_hello_taken() -> None:
    assert SNIFF_BYTES >= 65536
