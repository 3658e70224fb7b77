"""Heads of HTTP/1.1 requests and responses: h11 judges and renders, a bounded memory saves asking it twice.

Theory of operation.  Whether some bytes are a request, and what they mean, depends on nothing but
those bytes; what a response head looks like depends on nothing but its status, fields and framing.
Builds ask the same few things again and again, so both answers are remembered under the exact input.
A request is remembered only if its head arrived whole, is small and has no body; then the next one
with the same bytes never reaches h11.  Everything else takes the ordinary way through h11.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Generic, TypeVar

import h11
from msgspec import Struct

from mxart.errors import MxartError
from mxart.message import Headers

MEMO_BYTES = 4096  # a head larger than this is not remembered
_MEMO_ENTRIES = 1024  # of requests, of responses: some MB at the very worst


class BadHead(MxartError):
    """Bytes that are not an acceptable request; `status` is what to answer before closing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(Struct, frozen=True):
    """A request's head. `length`: of its body; None where it is chunked."""

    method: str
    target: str
    authority: str
    headers: Headers
    version: str  # "1.0" or "1.1"
    keep_alive: bool
    length: int | None
    absolute: str = ""  # the scheme of a target in absolute form


_K = TypeVar("_K")
_V = TypeVar("_V")


class Memo(Generic[_K, _V]):
    """The answers used last, `entries` of them."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._items: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: _K, value: _V) -> None:
        self._items[key] = value
        if len(self._items) > self._entries:
            self._items.popitem(last=False)


# Pure functions of their keys, so the whole process may share them.
_requests: Memo[bytes, Head] = Memo(_MEMO_ENTRIES)


def recall(data: bytes) -> tuple[Head, int] | None:
    """The request that `data` starts with and where it ends, if exactly these bytes were a request before."""
    end = data.find(b"\r\n\r\n", 0, MEMO_BYTES) + 4
    if end == 3:
        return None
    head = _requests.get(data[:end])
    return None if head is None else (head, end)


def remember(raw: bytes, head: Head) -> None:
    """`raw`: the whole head, to and including its first blank line, of a request without a body."""
    if len(raw) <= MEMO_BYTES and raw.find(b"\r\n\r\n") + 4 == len(raw):
        _requests.put(raw, head)


# --- requests -----------------------------------------------------------------------------------

_ABSOLUTE = re.compile(r"https?://([^/?#]*)(/[^#]*|\?[^#]*)?(?:#.*)?\Z", re.IGNORECASE)
# RFC 3986 section 3.2: host and port; no user information, which RFC 9110 section 4.2.4 tells to treat as an error
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?\Z")


def read_head(event: h11.Request) -> Head:
    """What an h11 request means here. Raises BadHead for what h11 lets pass and we do not."""
    headers = Headers.lowered(tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers))
    version = event.http_version.decode("ascii")
    if not version.startswith("1."):
        raise BadHead(505, f"HTTP/{version} is not spoken here: use HTTP/1.1")
    if version != "1.0":
        version = "1.1"  # RFC 9110 section 2.5: a higher minor version is answered as the highest we know
    host = headers.get("host")
    if host is None and version != "1.0":  # h11 asks this of "1.1" only
        raise BadHead(400, "Host is missing")
    chunked = "transfer-encoding" in headers
    length = headers.get("content-length")
    if chunked and (length is not None or version == "1.0"):
        # Two ideas of where the body ends are how requests are smuggled: RFC 9112 section 6.1.
        raise BadHead(400, "Transfer-Encoding must not come with Content-Length, nor over HTTP/1.0")
    method = event.method.decode("ascii")
    target, authority, absolute = _read_target(method, event.target.decode("ascii"), host or "")
    if method == "CONNECT" and (chunked or int(length or 0)):
        raise BadHead(400, "CONNECT has no body")  # RFC 9110 section 9.3.6: nobody knows what one would mean
    connection = (headers.combined("connection") or "").lower()
    return Head(
        method=method,
        target=target,
        authority=authority,
        headers=headers,
        version=version,
        keep_alive=version == "1.1" and "close" not in [token.strip() for token in connection.split(",")],
        length=None if chunked else int(length or 0),
        absolute=absolute,
    )


def _read_target(method: str, target: str, host: str) -> tuple[str, str, str]:
    """Origin form, authority, and the scheme if there is one, of a request target (RFC 9112 section 3.2)."""
    scheme = ""
    if method == "CONNECT":
        host = target  # section 3.2.3: nothing else
    elif not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            # RFC 9112 section 3.2.2: the authority of the target replaces that of Host.
            host, rest = absolute[1], absolute[2] or "/"
            scheme = target.partition(":")[0].lower()
            if not host:
                raise BadHead(400, "The target names no host")
            target = rest if rest.startswith("/") else "/" + rest
        elif not (target == "*" and method == "OPTIONS"):
            raise BadHead(400, 'The target must be a path that starts with "/", or a http:// or https:// URL')
    if _AUTHORITY.match(host) is None:
        raise BadHead(400, "Host is not a host name or address with an optional port")
    return target, host, scheme


_LENGTH_FIELD = re.compile(rb"\ncontent-length:", re.IGNORECASE)


def check_raw(raw: bytes, limit: int) -> None:
    """What only the bytes of a head can tell. Raises BadHead."""
    if len(raw) > limit:
        raise BadHead(431, f"The head of the request is larger than {limit} bytes")
    if len(_LENGTH_FIELD.findall(raw)) > 1:  # h11 lets equal ones pass
        raise BadHead(400, "Content-Length is given twice")


def bad_head(error: h11.RemoteProtocolError) -> BadHead:
    """h11's verdict in our words."""
    status = error.error_status_hint
    if status == 431:
        return BadHead(431, "The head of the request is too large")
    text = str(error).rstrip(".")
    return BadHead(status if status == 501 else 400, f"This is not an HTTP/1.1 request: {text[:200]}")


# --- responses ----------------------------------------------------------------------------------

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
"""To CONNECT: no length, for what follows is no body (RFC 9110 section 9.3.6)."""

# The wire's own; what a handler says about them is not sent. Keep-Alive and the others are hop-by-hop (RFC 9110
# section 7.6.1).
_OURS = frozenset({"connection", "content-length", "date", "keep-alive", "proxy-connection", "transfer-encoding"})
BODILESS = frozenset({204, 304})  # RFC 9110 section 8.6: a Content-Length in a 304 would be that of the 200
_SPELLED = {"etag": "ETag", "www-authenticate": "WWW-Authenticate"}


class Framed(Struct, frozen=True):
    """A rendered response head in two parts, between which Date goes."""

    before: bytes
    after: bytes
    chunked: bool  # the body is to be chunked

    def dated(self) -> bytes:
        """The head as it is sent now."""
        return b"%b%b%b" % (self.before, _clock.line(), self.after)


class _Clock:
    """The Date field (RFC 9110 section 6.6.1), made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._line = b"Date: %b\r\n" % formatdate(now, usegmt=True).encode("ascii")
        return self._line


_clock = _Clock()


@lru_cache(maxsize=_MEMO_ENTRIES)
def render_head(
    status: int,
    items: tuple[tuple[str, str], ...],
    length: int | None,
    *,
    head: bool,
    version: str,
    keep_alive: bool,
    reason: str = "",
) -> Framed:
    """A response head for a body of `length` bytes, None: known only at its end. `head`: the request was HEAD.

    Raises ValueError if the status or a field cannot be sent: a value with CR, LF or NUL would
    let whoever chose it write responses of their own.
    """
    connection = h11.Connection(h11.SERVER)
    # h11 frames a response by the request it answers; the least one that has the same effect will do.
    method = b"HEAD" if head else b"GET"
    connection.receive_data(b"%b / HTTP/%b\r\nHost: x\r\n\r\n" % (method, version.encode("ascii")))
    while type(connection.next_event()) is not h11.EndOfMessage:
        pass
    fields = [(_spell(name).encode("ascii"), value.encode("latin-1")) for name, value in items if name not in _OURS]
    bodiless = status in BODILESS
    if length is not None and not bodiless:
        fields.append((b"Content-Length", b"%d" % length))
    if not keep_alive:
        fields.append((b"Connection", b"close"))
    try:
        event = h11.Response(
            status_code=status, headers=fields, reason=reason.encode("ascii", "replace") or _reason(status)
        )
        data = connection.send(event)
    except h11.LocalProtocolError as error:
        raise ValueError(str(error)) from None
    end = data.index(b"\r\n") + 2
    chunked = length is None and not bodiless and not head and version == "1.1"
    return Framed(data[:end], data[end:], chunked)


def _spell(name: str) -> str:
    return _SPELLED.get(name) or name.title()


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
