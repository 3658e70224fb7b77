"""The head of a connection's first request, read from bytes that stay where they are. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

import h11
from msgspec import Struct

from mxart.proto.heads import BadHead, bad_head, check_raw, read_head

_END = re.compile(rb"\n\r?\n")  # as h11 looks for it


class FirstHead(Struct, frozen=True):
    """What the first request is about, and how many bytes its head takes on the wire."""

    method: str
    target: str
    authority: str
    wire_bytes: int


def first_head_reader(limit: int) -> Callable[[bytes], FirstHead | None]:
    """`read_first_head` for one connection's bytes as they grow: in crumbs they are searched once, not once a crumb."""
    seen = 0

    def read(data: bytes) -> FirstHead | None:
        nonlocal seen
        start, seen = max(0, seen - 2), len(data)
        if len(data) <= limit and _END.search(data, start) is None:
            return None
        return read_first_head(data, limit)

    return read


def read_first_head(data: bytes, limit: int) -> FirstHead | None:
    """The head that `data` starts with; None while more bytes are needed.

    Raises BadHead for what is no request, or one with a head of more than `limit` bytes.
    """
    start = len(data) - len(data.lstrip(b"\r\n"))  # RFC 9112 section 2.2
    if _END.search(data, start) is None:
        if len(data) - start > limit:
            raise BadHead(431, f"The head of the request is larger than {limit} bytes")
        return None
    wire = h11.Connection(h11.SERVER, limit)
    try:
        wire.receive_data(data[start:])
        event = wire.next_event()
        if type(event) is not h11.Request:
            return None
        head = read_head(event)
    except h11.RemoteProtocolError as error:
        raise bad_head(error) from None
    wire_bytes = len(data) - len(wire.trailing_data[0])
    check_raw(data[start:wire_bytes], limit)
    return FirstHead(head.method, head.target, head.authority, wire_bytes)
