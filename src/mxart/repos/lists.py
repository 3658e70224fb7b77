"""Complete lists through a proxy: fetched to their last page, kept as documents of ours, revalidated after the ttl.

A list is never silently short: if one page fails the whole fetch has failed, and the old list is served,
marked, or the failure itself.
"""

from __future__ import annotations

from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

import trio
from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import NotFound, Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.flights import Flights
from mxart.repos.operations import Listing, Referrers
from mxart.repos.remote import OFFLINE_WARNING, Remote, flight_of, stale_warning
from mxart.store.base import FileRecord

MAX_PAGE = 8 << 20
MAX_LIST = 32 << 20
_MAX_PAGES = 2000

_Asked = TypeVar("_Asked", bound=Listing | Referrers)
_Asked_contra = TypeVar("_Asked_contra", bound=Listing | Referrers, contravariant=True)
_Item = TypeVar("_Item")


class Fetched(Struct, Generic[_Item], frozen=True):
    """A whole list, the mirror it came from, and what may tell later that it is still the same ("": nothing)."""

    items: tuple[_Item, ...]
    origin: str
    mark: str = ""


class Origin(Protocol[_Asked_contra, _Item]):
    """Where lists of one sort come from, and how they are kept. `media_type` is ours: nobody is sent such a file."""

    media_type: str

    async def fetch(self, operation: _Asked_contra, trace: Trace, held: Fetched[_Item] | None = None) -> Fetched[_Item]:
        """The whole list; `held` is the one that is kept. Raises UpstreamFailed rather than stop early; NotFound."""
        ...

    def keeps_none(self, operation: _Asked_contra) -> bool:
        """Whether an empty list is kept like any other; else it is "not found", and remembered as that."""
        ...

    def encode(self, items: tuple[_Item, ...]) -> bytes: ...
    def decode(self, data: bytes) -> tuple[_Item, ...]: ...


class Arrival(Struct, Generic[_Item], frozen=True):
    """A whole list. `warning` is set where it is stale."""

    items: tuple[_Item, ...]
    outcome: Literal["hit", "miss", "stale"]
    warning: str = ""


class Lists(Generic[_Asked, _Item]):
    """The lists of one sort of one proxy repository."""

    def __init__(self, remote: Remote, origin: Origin[_Asked, _Item]) -> None:
        self._remote = remote
        self._origin: Origin[_Asked, _Item] = origin
        self._flights: Flights[Arrival[_Item]] = Flights(remote.nursery, remote.turn)

    async def whole(self, operation: _Asked, trace: Trace) -> Arrival[_Item]:
        """The list that an operation is about, uncut.

        Raises NotFound if upstream says so, else the Problem that stood in the way.
        Cancelled: a fetch that has begun goes on.
        """
        remote = self._remote
        record = self._record(operation)
        if record is None:
            remote.refuse_missing(operation.path, operation.subject, trace)
        if remote.rules.offline:
            items = await self._kept(record)
            if items is None:
                message = f"repository {remote.name} is offline, and {operation.path} is not kept here"
                raise UpstreamUnavailable(message, subject=operation.subject)
            fresh = record is not None and self._fresh(record)
            trace.outcome = "hit" if fresh else "stale"
            return Arrival(items, "hit" if fresh else "stale", "" if fresh else OFFLINE_WARNING)
        kept = await self._kept(record)
        if record is not None and kept is not None:
            if self._fresh(record):
                trace.outcome = "hit"
                return Arrival(kept, "hit")
            # The question goes on without us; whoever asks later has its answer.
            with trio.move_on_after(remote.rules.patience):
                return await self._asked(operation, trace)
            problem = UpstreamTimeout(f"{remote.upstream.name} takes its time")
            trace.outcome = "stale"
            trace.notes.append(f"stale: {problem.message}")
            return Arrival(kept, "stale", stale_warning(problem))
        return await self._asked(operation, trace)

    async def _asked(self, operation: _Asked, trace: Trace) -> Arrival[_Item]:
        key = flight_of(operation.path, trace)
        arrival, began = await self._flights.join(key, partial(self._refresh, operation, trace))
        trace.outcome = arrival.outcome if began or arrival.outcome != "miss" else "joined"
        return arrival

    def _record(self, operation: _Asked) -> FileRecord | None:
        return self._remote.stock.catalog.file(self._remote.name, operation.path)

    def _fresh(self, record: FileRecord) -> bool:
        now = self._remote.clock()
        return record.validated <= now + 60 and now < record.validated + self._remote.rules.ttl

    async def _kept(self, record: FileRecord | None) -> tuple[_Item, ...] | None:
        if record is None:
            return None
        data = await self._remote.stock.blobs.read(record.digest, MAX_LIST)
        return None if data is None else self._origin.decode(data)

    async def _refresh(self, operation: _Asked, trace: Trace) -> Arrival[_Item]:
        remote = self._remote
        record = self._record(operation)
        kept = await self._kept(record)
        if record is not None and kept is not None and self._fresh(record):
            return Arrival(kept, "hit")
        held = None if record is None or kept is None else Fetched(kept, record.origin, record.etag)
        try:
            fetched = await self._origin.fetch(operation, trace, held)
            if not fetched.items and not self._origin.keeps_none(operation):
                raise NotFound(f"{remote.upstream.name} has no {operation.path}")
        except NotFound:
            if record is not None:
                await remote.stock.catalog.forget_file(remote.name, operation.path)
            await remote.note_missing(operation.path)
            raise
        except Problem as problem:
            if kept is None or remote.final(problem):
                raise
            trace.notes.append(f"stale: {problem.message}")
            return Arrival(kept, "stale", stale_warning(problem))
        await self._keep(operation, fetched)
        return Arrival(fetched.items, "miss")

    async def _keep(self, operation: _Asked, fetched: Fetched[_Item]) -> None:
        remote = self._remote
        data = self._origin.encode(fetched.items)
        now = remote.clock()
        with remote.tolerant(operation.path):
            digest = await remote.stock.blobs.put(data, Digest.of(data))
            await remote.stock.catalog.put_file(
                FileRecord(
                    repository=remote.name,
                    package=operation.package,
                    path=operation.path,
                    digest=digest,
                    size=len(data),
                    media_type=self._origin.media_type,
                    etag=fetched.mark,
                    origin=fetched.origin,
                    created=now,
                    validated=now,
                )
            )


class Pages:
    """Keeps count of the pages of one list, so that no upstream pages without end."""

    def __init__(self, upstream: str, operation: Listing | Referrers) -> None:
        self._upstream = upstream
        self._operation = operation
        self._asked: set[str] = set()
        self._size = 0

    def turn(self, size: int, following: str) -> None:
        """A page of so many bytes has come, and says what to ask for next. Raises UpstreamFailed."""
        self._size += size
        if following in self._asked or self._size > MAX_LIST or len(self._asked) + 2 > _MAX_PAGES:
            message = f"{self._upstream} pages {self._operation.path} without end"
            raise UpstreamFailed(message, subject=self._operation.subject)
        self._asked.add(following)
