"""The first message of a TLS connection, read without OpenSSL (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

The bytes are looked at (`peek`) and never taken, so that whoever continues, OpenSSL here or the target of a
tunnel, reads them again from the start.  TCP may cut them anywhere, and TLS may spread one message over
any number of records (RFC 8446 section 5.1); both must read the same.  The message is put together from its
records first, and then read in one go.

Extensions that are not listed here, GREASE values (RFC 8701) among them, are stepped over.  With Encrypted
Client Hello the outer message decides: the inner one is for a server that we are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from mxart.errors import MxartError

MAX_BYTES = 65536
"""How many bytes a hello may take on the wire, record headers included. Real ones have 200 to 4000."""

# Alert descriptions, RFC 8446 section 6.
UNEXPECTED_MESSAGE = 10
ILLEGAL_PARAMETER = 47
DECODE_ERROR = 50
PROTOCOL_VERSION = 70
UNRECOGNIZED_NAME = 112
NO_APPLICATION_PROTOCOL = 120

_RECORD_HEADER = 5
_HANDSHAKE_HEADER = 4
_MAX_FRAGMENT = 1 << 14
_HANDSHAKE, _ALERT = 22, 21
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS, _ECH = _LISTED = 0, 16, 43, 0xFE0D

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\Z")
_NUMERIC_END = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\Z")


class BadClientHello(MxartError):
    """These bytes are not, and will not become, a ClientHello; `alert` is what to tell the client (RFC 8446, 6)."""

    def __init__(self, message: str, alert: int = DECODE_ERROR) -> None:
        super().__init__(message)
        self.alert = alert


class ClientHello(Struct, frozen=True):
    """What the client asked for in clear text."""

    sni: str | None  # lower case A-labels without a final dot; None if absent or not a host name
    alpn: tuple[bytes, ...]  # in the client's order; () if the extension is absent
    versions: tuple[int, ...]  # what it can speak: 0x0304 is TLS 1.3
    ech: bool  # an Encrypted Client Hello is inside, or GREASE that looks like one
    wire_bytes: int  # up to the end of the record that completes the message
    random: bytes  # 32 bytes that no other hello has


class Records:
    """What was read already of a hello that grows: its complete records. One for each connection.

    Without it a hello of 64 KB with a byte in each record, sent in the worst of crumbs, takes a second to read.
    """

    __slots__ = ("have", "need", "parts", "position")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.have = 0  # bytes of the handshake message, its header included
        self.need: int | None = None  # how many there will be, once the handshake header is there
        self.position = 0  # where the next record begins


def parse_client_hello(data: bytes, records: Records | None = None) -> ClientHello | None:
    """The hello at the start of `data`; None while more bytes are needed.

    Raises BadClientHello as soon as no further bytes could make it right.
    """
    assembled = _assemble(data, records)
    return None if isinstance(assembled, int) else _read_hello(*assembled)


def bytes_missing(data: bytes, records: Records | None = None) -> int:
    """How many more bytes must come at the least before the hello can be complete; 0 if it is. Raises BadClientHello.

    It lets the peeking side sleep until they are there, so that a hello cut into crumbs is not read again
    for each of them.
    """
    assembled = _assemble(data, records)
    return assembled if isinstance(assembled, int) else 0


def plain_alert(description: int) -> bytes:
    """A fatal alert as it is sent before any key is agreed on (RFC 8446 section 6.2)."""
    return bytes((_ALERT, 3, 3, 0, 2, 2, description))


def _assemble(data: bytes, records: Records | None) -> tuple[bytes, int] | int:
    """The message without its headers, and how many bytes it took on the wire; or how many are missing at least."""
    known = Records() if records is None else records
    parts, have, need, position = known.parts, known.have, known.need, known.position
    while True:
        header = data[position : position + _RECORD_HEADER]
        _check_record_header(header, first=position == 0)
        if position + _RECORD_HEADER > MAX_BYTES:
            raise BadClientHello(f"the TLS hello is longer than {MAX_BYTES} bytes")
        if len(header) < _RECORD_HEADER:
            wanted = _HANDSHAKE_HEADER if need is None else need
            return _RECORD_HEADER - len(header) + wanted - have
        length = int.from_bytes(header[3:5], "big")
        start = position + _RECORD_HEADER
        part = data[start : start + length]
        have += len(part)
        if need is None and have > 0:
            need = _message_length(b"".join((*parts, part))[:_HANDSHAKE_HEADER])
            if need is not None and need > MAX_BYTES:
                raise BadClientHello(f"the TLS hello says it has {need} bytes; at most {MAX_BYTES} are taken")
        position = start + length
        if len(part) < length:
            rest = length - len(part)
            if need is None:
                return max(1, min(rest, _HANDSHAKE_HEADER - have))
            # A record that reaches past the message would be the client's mistake, told when it is complete.
            return max(rest, need - have)
        if need is not None and have >= need:
            if have > need:
                # RFC 8446 section 5.1: nothing may share a record with the hello, keys change after it.
                raise BadClientHello("something follows the TLS hello in its record", UNEXPECTED_MESSAGE)
            if position > MAX_BYTES:
                raise BadClientHello(f"the TLS hello is longer than {MAX_BYTES} bytes")
            return b"".join((*parts, part))[_HANDSHAKE_HEADER:], position
        parts.append(part)
        known.have, known.need, known.position = have, need, position


def _check_record_header(header: bytes, *, first: bool) -> None:
    """Refuse a record header by as many of its bytes as are there."""
    if header[:1] and header[0] != _HANDSHAKE:
        if first and header[0] & 0x80:
            raise BadClientHello("this is an SSL 2 hello, or no TLS at all", PROTOCOL_VERSION)
        raise BadClientHello(f"a TLS hello was expected, not a record of type {header[0]}", UNEXPECTED_MESSAGE)
    if len(header) > 1 and header[1] != 3:
        raise BadClientHello(f"record version {header[1]}.x is not TLS", PROTOCOL_VERSION)
    if len(header) == _RECORD_HEADER:
        length = int.from_bytes(header[3:5], "big")
        if length == 0:
            raise BadClientHello("an empty handshake record", UNEXPECTED_MESSAGE)  # RFC 8446 section 5.1
        if length > _MAX_FRAGMENT:
            raise BadClientHello(f"a record of {length} bytes; TLS allows {_MAX_FRAGMENT}")


def _message_length(header: bytes) -> int | None:
    """Length of the whole handshake message with its header, None while the header is cut."""
    if header[0] != _CLIENT_HELLO:
        raise BadClientHello(f"handshake message {header[0]} where a ClientHello was expected", UNEXPECTED_MESSAGE)
    if len(header) < _HANDSHAKE_HEADER:
        return None
    return _HANDSHAKE_HEADER + int.from_bytes(header[1:4], "big")


class _Cursor:
    """Reads TLS vectors off a message; every overrun is a BadClientHello."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        start = self.position
        if start + count > len(self.data):
            raise BadClientHello("the TLS hello ends in the middle of a field")
        self.position = start + count
        return self.data[start : self.position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A vector whose length takes `size` bytes."""
        return self.take(self.number(size))

    def more(self) -> bool:
        return self.position < len(self.data)


def _read_hello(message: bytes, wire_bytes: int) -> ClientHello:
    cursor = _Cursor(message)
    legacy = cursor.number(2)
    if legacy >> 8 != 3:
        raise BadClientHello(f"hello version {legacy >> 8}.{legacy & 255} is not TLS", PROTOCOL_VERSION)
    random = cursor.take(32)
    if len(cursor.vector(1)) > 32:
        raise BadClientHello("the session id is longer than 32 bytes")
    suites = cursor.vector(2)
    if len(suites) < 2 or len(suites) % 2:
        raise BadClientHello("the list of cipher suites is empty or cut")
    if not cursor.vector(1):
        raise BadClientHello("no compression method, not even null")
    sni: str | None = None
    alpn: tuple[bytes, ...] = ()
    versions: tuple[int, ...] = (legacy,)
    ech = False
    for kind, body in _extensions(cursor):
        if kind == _SERVER_NAME:
            sni = _server_name(body)
        elif kind == _ALPN:
            alpn = _protocol_names(body)
        elif kind == _SUPPORTED_VERSIONS:
            versions = _versions(body)
        elif kind == _ECH:
            ech = True
    return ClientHello(sni, alpn, versions, ech, wire_bytes, random)


def _extensions(cursor: _Cursor) -> Iterator[tuple[int, bytes]]:
    """Those that are listed."""
    if not cursor.more():
        return  # TLS 1.2 and older may leave them out altogether
    block = cursor.vector(2)
    if cursor.more():
        raise BadClientHello("something follows the extensions of the TLS hello")
    seen: set[int] = set()
    end = 0
    while end < len(block):  # without a cursor: this is most of what a hello costs
        kind = int.from_bytes(block[end : end + 2], "big")
        if kind in seen and end + 2 <= len(block):
            raise BadClientHello(f"extension {kind} is there twice", ILLEGAL_PARAMETER)  # RFC 8446 section 4.2
        seen.add(kind)
        start = end + 4
        end = start + int.from_bytes(block[end + 2 : start], "big")
        if max(start, end) > len(block):
            raise BadClientHello("the TLS hello ends in the middle of a field")
        if kind in _LISTED:
            yield kind, block[start:end]


def _server_name(body: bytes) -> str | None:
    """RFC 6066 section 3. The first host name counts; one that is no host name counts as absent."""
    cursor = _Cursor(body)
    names = _Cursor(cursor.vector(2))
    if cursor.more() or not names.more():
        raise BadClientHello("the server name extension is malformed")
    found: bytes | None = None
    while names.more():
        kind, name = names.number(1), names.vector(2)
        if kind == 0 and found is None:
            found = name
    return None if found is None else host_name(found)


def host_name(raw: bytes) -> str | None:
    """A DNS name in lower case without its final dot; None for anything else, IP literals included."""
    if not raw or len(raw) > 255 or not raw.isascii():
        return None
    name = raw.decode("ascii").lower().removesuffix(".")
    if len(name) > 253 or _HOST.match(name) is None or _NUMERIC_END.match(name) is not None:
        return None
    return name


def _protocol_names(body: bytes) -> tuple[bytes, ...]:
    """RFC 7301 section 3.1."""
    cursor = _Cursor(body)
    names = _Cursor(cursor.vector(2))
    found: list[bytes] = []
    while names.more():
        name = names.vector(1)
        if not name:
            raise BadClientHello("an empty protocol name in the ALPN extension")
        found.append(name)
    if cursor.more() or not found:
        raise BadClientHello("the ALPN extension is malformed")
    return tuple(found)


def _versions(body: bytes) -> tuple[int, ...]:
    """RFC 8446 section 4.2.1, without GREASE."""
    cursor = _Cursor(body)
    items = _Cursor(cursor.vector(1))
    found: list[int] = []
    while items.more():
        version = items.number(2)
        if version & 0x0F0F != 0x0A0A:
            found.append(version)
    if cursor.more():
        raise BadClientHello("the supported versions extension is malformed")
    return tuple(found)
