"""Heads of HTTP/2 messages: what a request must look like, and the fields of an answer. Pure.

A malformed request is an error of its stream (RFC 9113 section 8.1.1).  h2 would end the whole
connection, and every other download with it; so its check of inbound fields is switched off and
made here, as one pass over the fields.
"""

from __future__ import annotations

import re
from email.utils import formatdate

from msgspec import Struct

from mxart.message import Headers

Fields = list[tuple[bytes, bytes]]

# RFC 9110 sections 5.6.2 and 5.5; RFC 9113 section 8.2.1: no upper case, no white space at the ends.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?\Z")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VISIBLE = re.compile(rb"[!-~]+\Z")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

# RFC 9113 section 8.2.2.
_OF_CONNECTIONS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))

# What is the wire's own in an answer, or may not be sent at all over HTTP/2.
_NOT_SENT = frozenset(
    ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "date", "te")
)
_SENT_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_SENT_VALUE = re.compile(r"[\t -~\x80-\xff]*\Z")


class Head(Struct, frozen=True):
    """The head of a request that is well formed."""

    method: str
    target: str
    authority: str
    headers: Headers
    length: int | None  # Content-Length
    expects: bool  # Expect: 100-continue


class Malformed(Struct, frozen=True):
    """The head of a request that is not: the stream ends in PROTOCOL_ERROR."""

    reason: str


class Refused(Struct, frozen=True):
    """The head of a request that is answered without looking further."""

    status: int
    message: str


def read_head(fields: Fields, max_bytes: int) -> Head | Malformed | Refused:
    """Judge the decoded fields of a request; `max_bytes` is SETTINGS_MAX_HEADER_LIST_SIZE as RFC 9113 counts it."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[str, str]] = []
    cookies: list[str] = []
    host: bytes | None = None
    length: int | None = None
    expects = False
    size = 0
    for name, value in fields:
        size += 32 + len(name) + len(value)
        if name[:1] == b":":
            if name not in _PSEUDO:
                return Malformed(f"{name!r} is no pseudo-header of a request")
            if regular or cookies:
                return Malformed("a pseudo-header after a field")
            if name in pseudo:
                return Malformed(f"{name!r} twice")
            pseudo[name] = value
            continue
        if _NAME.match(name) is None or _VALUE.match(value) is None:
            return Malformed(f"the field {name!r} holds characters that may not be sent")
        if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
            return Malformed(f"{name!r} is of connections and does not exist in HTTP/2")
        if name == b"host":
            if host is not None and host != value:
                return Malformed("two hosts")
            host = value
        elif name == b"content-length":
            if _DIGITS.match(value) is None or (length is not None and length != int(value)):
                return Malformed("content-length is not one number")
            length = int(value)
        elif name == b"expect":
            expects = value.lower() == b"100-continue"
        elif name == b"cookie":  # RFC 9113 section 8.2.3: its crumbs are one field
            cookies.append(value.decode("latin-1"))
            continue
        regular.append((name.decode("ascii"), value.decode("latin-1")))
    if size > max_bytes:
        return Refused(431, f"the header fields come to {size} bytes; at most {max_bytes} are read")
    if cookies:
        regular.append(("cookie", "; ".join(cookies)))
    return _assemble(pseudo, host, Headers.lowered(tuple(regular)), length, expects)


def _assemble(
    pseudo: dict[bytes, bytes], host: bytes | None, headers: Headers, length: int | None, expects: bool
) -> Head | Malformed | Refused:
    """RFC 9113 section 8.3.1 and, for CONNECT, section 8.5."""
    method = pseudo.get(b":method", b"")
    if _METHOD.match(method) is None:
        return Malformed("no :method")
    authority = pseudo.get(b":authority")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        return Malformed(":authority and host differ")
    if authority is None or _VISIBLE.match(authority) is None or b"@" in authority:
        return Malformed("no :authority, or one that is no host")
    if method == b"CONNECT":
        if b":path" in pseudo or b":scheme" in pseudo:
            return Malformed("CONNECT with :path or :scheme")
        if b":authority" not in pseudo:  # Host alone does not say where to
            return Malformed("CONNECT without :authority")
        if length is not None:
            return Refused(400, "CONNECT has no body")  # what follows is no content (RFC 9113 section 8.5)
        target = authority.decode("ascii")
        return Head("CONNECT", target, target, headers, None, expects=False)
    if _SCHEME.match(pseudo.get(b":scheme", b"")) is None:
        return Malformed("no :scheme")
    path = pseudo.get(b":path", b"")
    if _VISIBLE.match(path) is None or (path[:1] != b"/" and (path != b"*" or method != b"OPTIONS")):
        return Malformed(":path is not a path")
    return Head(method.decode("ascii"), path.decode("ascii"), authority.decode("ascii"), headers, length, expects)


def judge_trailers(fields: Fields) -> Malformed | None:
    """Trailers are dropped, but must be well formed (RFC 9113 section 8.1)."""
    for name, value in fields:
        if _NAME.match(name) is None or _VALUE.match(value) is None or name in _OF_CONNECTIONS:
            return Malformed(f"{name!r} may not be among the trailers")
    return None


def response_fields(status: int, headers: Headers, length: int | None, date: str) -> Fields:
    """The fields of an answer as they are sent. Raises ValueError when one of them cannot be: nothing is sent then."""
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not the status of a final answer")
    fields: Fields = [(b":status", b"%d" % status)]
    for name, value in headers.items:
        if name in _NOT_SENT:
            continue
        stripped = value.strip(" \t")
        if _SENT_NAME.match(name) is None or _SENT_VALUE.match(stripped) is None:
            raise ValueError(f"the field {name!r} holds characters that may not be sent")
        fields.append((name.encode("ascii"), stripped.encode("latin-1")))
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    fields.append((b"date", date.encode("ascii")))
    return fields


class DateClock:
    """The Date field, made once a second (RFC 9110 section 6.6.1)."""

    __slots__ = ("_second", "text")

    def __init__(self) -> None:
        self._second = -1
        self.text = ""

    def at(self, now: float) -> str:
        """The text for a `time.time()`."""
        second = int(now)
        if second != self._second:
            self._second = second
            self.text = formatdate(second, usegmt=True)
        return self.text
