"""Conditional and range requests (RFC 9110 sections 13 and 14) as pure decisions.

`evaluate` says what a request's preconditions and ranges make of a representation; `respond` builds
that response from the one that would have been a plain 200.  Preconditions are looked at in the order of
section 13.2.2.  A field that cannot be understood counts as absent, except that an If-Match that
names nothing we know fails: it protects against changing the wrong thing.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import assert_never

from msgspec import Struct

from mxart.body import Body, Segment, Source, Span
from mxart.message import Headers, Request, Response

MAX_RANGES = 100  # more in one request are answered with the whole (RFC 9110 section 14.2)


class Whole(Struct, frozen=True):
    """Answer with everything: 200."""


class NotModified(Struct, frozen=True):
    """The client has it: 304."""


class Failed(Struct, frozen=True):
    """A precondition does not hold: 412."""


class Ranges(Struct, frozen=True):
    """Answer with these parts, as (start, length), in this order; none is empty, none overlap: 206."""

    parts: tuple[tuple[int, int], ...]


class Unsatisfiable(Struct, frozen=True):
    """No range overlaps the representation: 416."""


Verdict = Whole | NotModified | Failed | Ranges | Unsatisfiable


_CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "range"})


def evaluate(method: str, headers: Headers, etag: str, last_modified: str, size: int | None) -> Verdict:
    """What the preconditions and ranges of a request make of a representation that exists.

    `etag` as in the field, quotes included; `last_modified` an HTTP date; "" where there is none.
    `size` in bytes, None if not known yet: ranges are then ignored.
    """
    if not any(name in _CONDITIONS for name, _ in headers.items):
        return Whole()  # nearly all of them
    reading = method in {"GET", "HEAD"}
    if_match = headers.combined("if-match")
    if if_match is not None:
        if not _names(if_match, etag, weak=False):
            return Failed()
    elif _modified_since(headers.get("if-unmodified-since"), last_modified) is True:
        return Failed()
    if_none_match = headers.combined("if-none-match")
    if if_none_match is not None:
        if _names(if_none_match, etag, weak=True):
            return NotModified() if reading else Failed()
    elif reading and _modified_since(headers.get("if-modified-since"), last_modified) is False:
        return NotModified()
    wanted = headers.combined("range")
    if method != "GET" or wanted is None or not size or not _if_range(headers.get("if-range"), etag, last_modified):
        # An empty file has no ranges; clients that always ask for one get their 200.
        return Whole()
    return _ranges(wanted, size)


def permits(headers: Headers, etag: str | None) -> bool:
    """Whether the preconditions of a request that changes something let it (section 13.1); `etag` None: of nothing."""
    if etag is None:
        return "if-match" not in headers
    return not isinstance(evaluate("PUT", headers, etag, "", None), Failed)


# --- validators ---------------------------------------------------------------------------------

_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_MEMBER = re.compile(r'[ \t,]*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*")(?=[ \t]*(?:,|\Z))|([^,]+))')


def _names(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or `*`, covers a tag, by weak or strong comparison (section 8.8.3.2)."""
    if field.strip() == "*":
        return True
    own = _ENTITY_TAG.fullmatch(etag)
    if own is None or (own[1] and not weak):
        return False
    return any(member[2] == own[2] and (weak or not member[1]) for member in _MEMBER.finditer(field))


_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_TIME = r"(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)"
_DATES = (  # section 5.6.7: IMF-fixdate, and the two that must still be read
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<d>\d\d) (?P<m>[A-Z][a-z]{{2}}) (?P<y>\d{{4}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<d>\d\d)-(?P<m>[A-Z][a-z]{{2}})-(?P<y>\d\d) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<m>[A-Z][a-z]{{2}}) (?P<d>[ \d]\d) {_TIME} (?P<y>\d{{4}})"),
)


def parse_date(text: str) -> datetime | None:
    """An HTTP date; None if it is none."""
    for pattern in _DATES:
        if (match := pattern.fullmatch(text.strip())) is not None:
            year = int(match["y"])
            if year < 100:  # "more than 50 years in the future" means the past; the century it was written in is near
                year += 2000 if year < 70 else 1900
            try:
                return datetime(
                    year,
                    _MONTHS[match["m"]],
                    int(match["d"]),
                    int(match["H"]),
                    int(match["M"]),
                    min(int(match["S"]), 59),  # a leap second
                    tzinfo=UTC,
                )
            except (KeyError, ValueError):
                return None
    return None


def _modified_since(field: str | None, last_modified: str) -> bool | None:
    """Whether it changed after the date in the field; None if that cannot be told."""
    if field is None or not last_modified:
        return None
    since, modified = parse_date(field), parse_date(last_modified)
    return None if since is None or modified is None else modified > since


def _if_range(field: str | None, etag: str, last_modified: str) -> bool:
    """Whether the ranges still fit (section 13.1.5): only a strong match will do."""
    if field is None:
        return True
    field = field.strip()
    if field.startswith(('"', "W/")):
        return field == etag and not etag.startswith("W/")
    since, modified = parse_date(field), parse_date(last_modified)
    return since is not None and since == modified


# --- ranges -------------------------------------------------------------------------------------

_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)


def _ranges(field: str, size: int) -> Verdict:
    """`Range` applied to a representation that is not empty (section 14.1.2)."""
    unit, equals, specs = field.partition("=")
    if not equals or unit.lower() != "bytes":
        return Whole()
    parts: list[tuple[int, int]] = []
    asked = [spec.strip(" \t") for spec in specs.split(",")]
    asked = [spec for spec in asked if spec]  # section 5.6.1.2: empty members are to be ignored
    if not asked or len(asked) > MAX_RANGES:
        return Whole()
    for spec in asked:
        match = _RANGE.fullmatch(spec)
        if match is None or match[0] == "-":
            return Whole()
        if not match[1]:
            length = min(_number(match[2]), size)
            start, end = size - length, size
        else:
            start = _number(match[1])
            end = _number(match[2]) + 1 if match[2] else size
            if match[2] and end <= start:
                # Section 14.2 lets such a range be ignored or rejected; who is wrong by so little wants no whole file.
                return Unsatisfiable()
            end = min(end, size)
        if start < end:
            parts.append((start, end))
    if not parts:
        return Unsatisfiable()
    return Ranges(tuple((start, end - start) for start, end in _merged(parts)))


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 19 else 10**18  # past the end of any file


def _merged(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that overlap made one, at the place of the first; otherwise in the client's order (section 15.3.7.2)."""
    result: list[tuple[int, int]] = []
    for start, end in parts:
        low, high = start, end
        place = len(result)
        kept: list[tuple[int, int]] = []
        # Several passes are not needed: those in `result` do not overlap each other, so whatever
        # the union reaches is reached by the part itself.
        for other in result:
            if other[0] < end and start < other[1]:
                low, high = min(low, other[0]), max(high, other[1])
                place = min(place, len(kept))
            else:
                kept.append(other)
        kept.insert(min(place, len(kept)), (low, high))
        result = kept
    return result


# --- responses ----------------------------------------------------------------------------------


def respond(
    request: Request,
    headers: Headers,
    content: Source | bytes,
    *,
    etag: str = "",
    last_modified: str = "",
    size: int | None = None,
) -> Response:
    """The response to a GET or HEAD for a representation that would be answered 200 with these fields.

    `headers` need not hold ETag, Last-Modified and Accept-Ranges.  `size` is taken from the content
    where it is not given.  The response owns the source, or it has been closed.  A 412 or 416 has no
    body: whoever words errors may put one.
    """
    if size is None:
        size = len(content) if isinstance(content, bytes) else content.total
    headers = _with_validators(headers, etag, last_modified, size)
    verdict = evaluate(request.method, request.headers, etag, last_modified, size)
    if type(verdict) is Whole:
        return Response(200, headers, Body([_piece(content, 0, size)]))
    match verdict:
        case Ranges(parts=((start, length),)) if size is not None:
            fields = Headers([*headers, ("content-range", f"bytes {start}-{start + length - 1}/{size}")])
            return Response(206, fields, Body([_piece(content, start, length)]))
        case Ranges(parts=parts) if size is not None:
            return _multipart(headers, content, parts, size)
        case _:
            pass
    if not isinstance(content, bytes):
        content.close()
    # These describe a body that is not sent (section 15.4.5).
    bare = headers.without("content-type", "content-length", "content-encoding", "content-language", "content-range")
    match verdict:
        case NotModified():
            return Response(304, bare)
        case Failed():
            return Response(412, bare)
        case Unsatisfiable():
            return Response(416, Headers([*bare, ("content-range", f"bytes */{size}")]))
        case Whole() | Ranges():
            raise AssertionError("ranges come with a size")
        case _:
            assert_never(verdict)


def _with_validators(headers: Headers, etag: str, last_modified: str, size: int | None) -> Headers:
    present = {name for name, _ in headers.items}
    missing: list[tuple[str, str]] = []
    if etag and "etag" not in present:
        missing.append(("etag", etag))
    if last_modified and "last-modified" not in present:
        missing.append(("last-modified", last_modified))
    if size is not None and "accept-ranges" not in present:
        missing.append(("accept-ranges", "bytes"))
    return Headers.lowered((*headers.items, *missing)) if missing else headers


def _piece(content: Source | bytes, start: int, length: int | None) -> Segment:
    if isinstance(content, bytes):
        return content if length is None else content[start : start + length]  # None: only where start is 0
    return Span(content, start, length)


def _multipart(headers: Headers, content: Source | bytes, parts: tuple[tuple[int, int], ...], size: int) -> Response:
    """multipart/byteranges (RFC 9110 section 14.6)."""
    # Nobody who writes content may know the boundary beforehand.
    boundary = secrets.token_hex(16)
    kind = headers.get("content-type")
    described = f"Content-Type: {kind}\r\n" if kind is not None else ""
    segments: list[Segment] = []
    lead = ""
    for start, length in parts:
        place = f"Content-Range: bytes {start}-{start + length - 1}/{size}\r\n"
        segments += (f"{lead}--{boundary}\r\n{described}{place}\r\n".encode("latin-1"), _piece(content, start, length))
        lead = "\r\n"
    segments.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    fields = Headers([*headers.without("content-type"), ("content-type", f"multipart/byteranges; boundary={boundary}")])
    return Response(206, fields, Body(segments))
