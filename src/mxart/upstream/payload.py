"""The body of a request of ours: of a known length, streamed, and to be had again for every attempt."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import trio

from mxart.upstream.failure import Cause, Trouble


class Pieces(Protocol):
    """A body that is being read."""

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end; not called when the length was reached. Raises whatever Problem there is."""
        ...


class Payload(Protocol):
    """A body that can be sent."""

    @property
    def length(self) -> int: ...

    def open(self) -> AbstractAsyncContextManager[Pieces]:
        """Read it from its beginning; once for each attempt to send it."""
        ...


Outgoing = bytes | Payload


def size_of(body: Outgoing) -> int:
    """Its Content-Length."""
    return len(body) if isinstance(body, bytes) else body.length


class Watched:
    """A payload on its way, for whom the deadline of `scope` is moved.

    While the source is waited for there is none: that has times of its own.  Each piece must then leave within `idle`
    seconds, and the answer be there `first_byte` after the last one.  Trouble is what has another length than it said.
    """

    def __init__(self, payload: Payload, scope: trio.CancelScope, idle: float, first_byte: float) -> None:
        self._payload = payload
        self._scope = scope
        self._idle = idle
        self._first_byte = first_byte
        self._sent = 0
        self.length = payload.length

    @property
    def complete(self) -> bool:
        """Whether every byte was handed out."""
        return self._sent == self.length

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pieces]:
        self._sent = 0
        async with self._payload.open() as self._pieces:
            yield self

    async def receive(self) -> bytes:
        self._scope.deadline = math.inf
        data = await self._pieces.receive()
        self._sent += len(data)
        if self._sent > self.length or (not data and not self.complete):
            raise Trouble(Cause.SOURCE, f"what is to be sent has {self._sent} bytes, {self.length} were announced")
        self._scope.deadline = trio.current_time() + (self._first_byte if self.complete else self._idle)
        return data
