"""Single-flight: many callers want the same thing done, one task does it, all get its outcome.

The work runs in a nursery of the server's, not in a caller's task: a caller that leaves disturbs
nobody.  Assignment is synchronous; there is no moment at which two tasks begin the same work.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import trio

from mxart.errors import Problem, UpstreamUnavailable

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@asynccontextmanager
async def free_turn(_: str) -> AsyncIterator[None]:
    """The turn of what each worker does for itself."""
    yield


class _Flight(Generic[_T]):
    __slots__ = ("done", "landed", "problem", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.landed = trio.Event()
        self.value: tuple[_T] | None = None
        self.problem: Problem = UpstreamUnavailable("the server is shutting down", retry_after=5)


class Flights(Generic[_T]):
    """Work under way, by key."""

    def __init__(self, nursery: trio.Nursery, turn: Callable[[str], AbstractAsyncContextManager[None]]) -> None:
        """`turn` is held while the work of a key is done, so that other workers do not do it at the same time."""
        self._nursery = nursery
        self._turn = turn
        self._flights: dict[str, _Flight[_T]] = {}

    async def join(self, key: str, work: Callable[[], Awaitable[_T]]) -> tuple[_T, bool]:
        """The outcome of `work`, begun unless it is under way already; and whether this call began it.

        Raises the Problem that the work raised (a copy: many tasks raise it).  Cancellation leaves the work running.
        """
        return await self.join_early(key, lambda _: work())

    async def join_early(self, key: str, work: Callable[[Callable[[_T], None]], Awaitable[_T]]) -> tuple[_T, bool]:
        """The same for work that may tell its outcome, to whoever waits or joins, before it has come to its end.

        What goes wrong after that is logged.
        """
        flight = self._flights.get(key)
        began = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
        await flight.done.wait()
        if flight.value is None:
            raise copy.copy(flight.problem)
        return flight.value[0], began

    async def landed(self, key: str) -> None:
        """Return when the work of a key that is under way in this worker, if any is, has come to its end."""
        if (flight := self._flights.get(key)) is not None:
            await flight.landed.wait()

    async def _fly(self, key: str, flight: _Flight[_T], work: Callable[[Callable[[_T], None]], Awaitable[_T]]) -> None:
        def tell(value: _T) -> None:
            flight.value = (value,)
            flight.done.set()

        try:
            async with self._turn(key):
                tell(await work(tell))
        except Problem as problem:
            flight.problem = problem
            if flight.value is not None:
                _log.warning("%s: what was answered already is not kept: %s", key, problem.message)
        except Exception:  # noqa: BLE001 a fault must not end the server; logged, and the waiters get a 500
            _log.exception("unexpected error at work on %s", key)
            flight.problem = Problem("an unexpected error; the server's log has it")
        finally:
            del self._flights[key]
            flight.done.set()
            flight.landed.set()
