"""A limit of transfers at one time, and the queue in front of it: first come, first served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mxart.errors import UpstreamUnavailable


class Queue:
    """`places` transfers run, `waiting` more stand in line, whoever comes then is told to come later."""

    def __init__(self, name: str, places: int, waiting: int, timeout: float) -> None:
        self._name = name
        # trio's semaphore wakes its waiters in the order in which they came.
        self._free = trio.Semaphore(places, max_value=places)
        self._room = waiting
        self._timeout = timeout
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return self._waiting

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises UpstreamUnavailable when the line is full or does not move; cancellation leaves it."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._wait()
        try:
            yield
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self._waiting >= self._room:
            raise UpstreamUnavailable(
                f"{self._name}: {self._waiting} requests are waiting for this upstream already", retry_after=5.0
            )
        self._waiting += 1
        try:
            with trio.fail_after(self._timeout):
                await self._free.acquire()
        except trio.TooSlowError:
            raise UpstreamUnavailable(
                f"{self._name}: no transfer of this upstream ended within {self._timeout:g} s", retry_after=5.0
            ) from None
        finally:
            self._waiting -= 1
