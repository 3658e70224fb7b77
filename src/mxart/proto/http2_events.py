"""What the wire of an HTTP/2 connection tells, beside h2's own events, and what it is told to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from h2.events import Event

from mxart.message import Headers
from mxart.proto.http2_head import Fields, Head, Refused, response_fields


@dataclass(slots=True)
class Opened(Event):
    """A request began. `ended`: and is whole."""

    stream_id: int
    head: Head | Refused
    ended: bool


@dataclass(slots=True)
class Left(Event):
    """The peer sent GOAWAY: it will open no more streams."""

    error_code: int


class Answer(NamedTuple):
    """The head of an answer: what it says, and as which it is remembered."""

    status: int
    headers: Headers
    length: int | None  # Content-Length
    date: str

    def fields(self) -> Fields:
        """As they are sent. Raises ValueError."""
        return response_fields(self.status, self.headers, self.length, self.date)
