"""A body knows how it can travel: bytes in memory, or spans of files, one of which may still be growing.

Only `proto.transmit` and the two wire engines look inside.  Nothing above them copies payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct


class Source(Protocol):
    """A file to send from, complete or growing. Owned by the body that holds it, and closed with it."""

    def fileno(self) -> int:
        """A descriptor that pread(2), sendfile(2) and mmap(2) work on."""
        ...

    @property
    def total(self) -> int | None:
        """The length of the whole file; None while nobody can tell."""
        ...

    def ready(self, offset: int) -> int:
        """Without waiting: the offset up to which bytes may be sent now; `offset` if there are none yet, or no more.

        Raises BodyBroken when the file will never be completed.
        """
        ...

    async def available(self, offset: int) -> int:
        """Wait for bytes past `offset` that may be sent, and return where they end.

        Returns `offset` itself only at the end of the complete, verified file.  Raises BodyBroken
        when it will never be completed.  Cancellation changes nothing.
        """
        ...

    def close(self) -> None:
        """Let go of the file. Idempotent; does not disturb other readers or the writer."""
        ...


class Span(Struct, frozen=True):
    """`length` bytes of a source from `offset`; None: to its end."""

    source: Source
    offset: int
    length: int | None


Segment = bytes | Span


class Body:
    """Segments, sent one after the other. `length` is the sum of theirs, None if one of them cannot tell."""

    __slots__ = ("length", "segments")

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.segments: tuple[Segment, ...] = tuple(segments)
        length: int | None = 0
        for segment in self.segments:
            size = len(segment) if isinstance(segment, bytes) else segment.length
            length = None if length is None or size is None else length + size
        self.length = length

    def close(self) -> None:
        """Close every source. Idempotent."""
        for segment in self.segments:
            if not isinstance(segment, bytes):
                segment.source.close()


EMPTY = Body()
