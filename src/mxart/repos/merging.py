"""The indexes of a group: its members' as one, whichever of them is slow.

Members that may have to wait for upstreams are asked at once, so that slow ones are waited for once.  One that fails
without an old copy to show fails them all: an index is never silently short.  One that says that it has none has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from mxart.errors import NotFound, Problem
from mxart.message import Trace
from mxart.repos.indexes import Indexes
from mxart.repos.operations import Index, Indexed
from mxart.repos.roles import Indexing

_LONG = 256 << 10  # bytes; above this, merging leaves the loop for a thread

Ask = Callable[[Trace], Awaitable[Indexed]]
"""Asks one member. Raises as Repository.index does."""


class _Part(Struct):
    trace: Trace
    indexed: Indexed | None = None
    problem: Problem | None = None

    async def fill(self, ask: Ask) -> None:
        try:
            self.indexed = await ask(self.trace)
        except NotFound:
            pass
        except Problem as problem:
            self.problem = problem


class Merging:
    """The indexes of one group. `name` is the group's."""

    def __init__(self, name: str, indexing: Indexing) -> None:
        self._name = name
        self._indexing = indexing
        self._kept = Indexes()

    async def index(self, operation: Index, asks: Sequence[Ask], trace: Trace, *, at_once: bool) -> Indexed:
        """See Repository.index; members are asked, and their failures told, in the order of `asks`."""
        parts = [_Part(replace(trace, outcome="", upstream_seconds=0.0, upstream_requests=0)) for _ in asks]
        if at_once:
            async with trio.open_nursery() as nursery:
                for part, ask in zip(parts, asks, strict=True):
                    nursery.start_soon(part.fill, ask)
        else:  # tasks cost more than answers from memory
            for part, ask in zip(parts, asks, strict=True):
                await part.fill(ask)
        _tell(parts, trace)
        for part in parts:
            if part.problem is not None:
                raise part.problem
        found = tuple(part.indexed for part in parts)
        remembered = self._kept.get(operation.path, found)
        made = remembered[0] if remembered is not None else await self._made(operation, found)
        if made is None:
            raise NotFound(f"{self._name} has no {operation.path}", subject=operation.subject)
        return made

    async def _made(self, operation: Index, found: tuple[Indexed | None, ...]) -> Indexed | None:
        answers = [item.data if item is not None else None for item in found]
        size = sum(len(data) for data in answers if data is not None)
        if not size:
            return None
        merge = partial(self._indexing.merge, operation, answers)
        data = await trio.to_thread.run_sync(merge) if size > _LONG else merge()
        if data is None:
            return None
        there = [item for item in found if item is not None]
        warning = next((item.warning for item in there if item.warning), "")
        made = Indexed(data, warning, max(item.modified for item in there))
        return self._kept.put(operation.path, found, made)


def _tell(parts: Sequence[_Part], trace: Trace) -> None:
    """What became of the members, as one exchange: the outcome that took longest."""
    trace.upstream_requests += sum(part.trace.upstream_requests for part in parts)
    trace.upstream_seconds += max(part.trace.upstream_seconds for part in parts)
    outcomes = [part.trace.outcome for part in parts if part.indexed is not None]
    slow = [outcome for outcome in ("stale", "miss", "joined", "revalidated") if outcome in outcomes]
    trace.outcome = (slow or outcomes or [parts[0].trace.outcome])[0]
