"""What a connection's first bytes say it speaks. The client always speaks first in what is served here."""

from __future__ import annotations

from msgspec import Struct

from mxart.proto.client_hello import MAX_BYTES, ClientHello, Records, bytes_missing, parse_client_hello

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
SNIFF_BYTES = MAX_BYTES
"""No more than these are ever needed to decide."""

_TLS_HANDSHAKE = 0x16
_MAX_METHOD = 64
_MAX_EMPTY_BYTES = 16
_TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class TlsHello(Struct, frozen=True):
    """TLS, with what its hello asks for."""

    hello: ClientHello


class Http2Preface(Struct, frozen=True):
    """HTTP/2 with prior knowledge, in clear text."""


class Http1(Struct, frozen=True):
    """A method and a space: HTTP/1.x, or near enough that an HTTP answer will be understood."""

    connect: bool = False  # the method is CONNECT


class Unknown(Struct, frozen=True):
    """Nothing that is served here; no answer would be understood."""


Sniffed = TlsHello | Http2Preface | Http1 | Unknown


def sniff(data: bytes, records: Records | None = None) -> Sniffed | None:
    """Decide on the first bytes; None while more are needed. `records` keeps what was read from one look to the next.

    Raises BadClientHello for what begins like TLS and is not.
    """
    if not data:
        return None
    if data[0] == _TLS_HANDSHAKE:
        hello = parse_client_hello(data, records)
        return None if hello is None else TlsHello(hello)
    if data[0] == HTTP2_PREFACE[0]:
        if data.startswith(HTTP2_PREFACE):
            return Http2Preface()
        if HTTP2_PREFACE.startswith(data):
            return None
    return _http1(data)


def sniff_missing(data: bytes, records: Records | None = None) -> int:
    """After `sniff` gave None: how many more bytes must come at the least. At least 1."""
    if data and data[0] == _TLS_HANDSHAKE:
        return max(1, bytes_missing(data, records))
    return 1


def _http1(data: bytes) -> Http1 | Unknown | None:
    # Empty lines before the request line are to be ignored (RFC 9112 section 2.2).
    head = data.lstrip(b"\r\n")
    if len(data) - len(head) > _MAX_EMPTY_BYTES:
        return Unknown()
    for position, byte in enumerate(head):
        if byte == 0x20 and position > 0:
            return Http1(connect=head.startswith(b"CONNECT "))
        if byte not in _TCHAR or position >= _MAX_METHOD:
            return Unknown()
    return None
