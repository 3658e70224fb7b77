"""What the wire of an HTTP/2 connection tells, beside h2's own events, and what it is told to write."""

from __future__ import annotations

from typing import NamedTuple

from h2.events import Event

from mxart.message import Headers
from mxart.proto.http2_head import Fields, Head, Refused, response_fields


class Opened(Event):
    """A request began. `ended`: and is whole."""

    __slots__ = ("ended", "head", "stream_id")

    def __init__(self, stream_id: int, head: Head | Refused, ended: bool) -> None:
        self.stream_id = stream_id
        self.head = head
        self.ended = ended


class Left(Event):
    """The peer sent GOAWAY: it will open no more streams."""

    __slots__ = ("error_code",)

    def __init__(self, error_code: int) -> None:
        self.error_code = error_code


class Answer(NamedTuple):
    """The head of an answer: what it says, and as which it is remembered."""

    status: int
    headers: Headers
    length: int | None  # Content-Length
    date: str

    def fields(self) -> Fields:
        """As they are sent. Raises ValueError."""
        return response_fields(self.status, self.headers, self.length, self.date)
