"""PROXY headers, versions 1 and 2."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.proto.proxy_header import MAX_BYTES, BadProxyHeader, Endpoint, ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(family: int, block: bytes, *, command: int = 1, version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family]) + len(block).to_bytes(2, "big") + block


IPV4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("10.0.0.1") + b"\xdc\x04\x01\xbb"
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "::1") + b"\xdc\x04\x01\xbb"
TLVS = b"\x01\x00\x02h2" + b"\x04\x00\x04\0\0\0\0"

GOOD = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", ("203.0.113.7", 56324, "10.0.0.1", 443)),
    (b"PROXY TCP6 2001:DB8::1 ::1 56324 443\r\n", ("2001:db8::1", 56324, "::1", 443)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (version_2(0x11, IPV4), ("203.0.113.7", 56324, "10.0.0.1", 443)),
    (version_2(0x11, IPV4 + TLVS), ("203.0.113.7", 56324, "10.0.0.1", 443)),
    (version_2(0x21, IPV6), ("2001:db8::1", 56324, "::1", 443)),
    (version_2(0x21, IPV6 + TLVS), ("2001:db8::1", 56324, "::1", 443)),
    (version_2(0x00, b"", command=0), None),
    (version_2(0x11, IPV4, command=0), None),
    (version_2(0x00, TLVS), None),
    (version_2(0x12, IPV4), None),
    (version_2(0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "ends"), GOOD)
def test_who_is_behind_the_balancer(header: bytes, ends: tuple[str, int, str, int] | None) -> None:
    """Cut anywhere it waits; with anything behind it takes exactly its own bytes."""
    for length in range(len(header)):
        assert parse_proxy_header(header[:length]) is None
    expected = (
        ProxyHeader(None, None, len(header))
        if ends is None
        else ProxyHeader(Endpoint(*ends[:2]), Endpoint(*ends[2:]), len(header))
    )
    for behind in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", header):
        assert parse_proxy_header(header + behind) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.\xff 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n" + b" " * 100,
        b"PROXY UNKNOWN" + b" " * 100,
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        version_2(0x11, IPV4, version=1),
        version_2(0x11, IPV4, version=3)[:13],
        version_2(0x11, IPV4, command=2),
        version_2(0x11, IPV4[:11]),
        version_2(0x21, IPV4),
        version_2(0x11, IPV4 + bytes(MAX_BYTES))[:16],
        SIGNATURE[:11] + b"x",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse_proxy_header(data)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=200))
def test_any_bytes_wait_parse_or_are_refused(start: bytes, rest: bytes) -> None:
    try:
        header = parse_proxy_header(start + rest)
    except BadProxyHeader:
        return
    assert header is None or 0 < header.consumed <= len(start + rest)
