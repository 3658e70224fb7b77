"""Lists through a proxy: upstream's list is fetched to its last page, kept as a document of ours, and cut here.

A list is never silently short: if one page fails the whole fetch has failed, and the old list is served,
marked, or the failure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import msgspec

from mxart.digest import Digest
from mxart.errors import NotFound, Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.base import Listed, Listing
from mxart.repos.flights import Flights
from mxart.repos.remote import OFFLINE_WARNING, Remote, flight_of, stale_warning
from mxart.store.base import FileRecord

_MAX_PAGE = 8 << 20
_MAX_PAGES = 2000
_MAX_LIST = 32 << 20
MEDIA_TYPE = "application/vnd.mxartifact.names.v1+json"


def cut(names: Sequence[str], listing: Listing, warning: str = "") -> Listed:
    """The part of a complete, sorted list that was asked for."""
    wanted = [name for name in names if name > listing.after] if listing.after else list(names)
    if listing.limit is None or len(wanted) <= listing.limit:
        return Listed(wanted, more=False, warning=warning)
    return Listed(wanted[: listing.limit], more=True, warning=warning)


@dataclass(frozen=True, slots=True)
class _Arrival:
    names: tuple[str, ...]
    outcome: Literal["hit", "miss", "stale"]
    warning: str = ""


class Listings:
    """The lists of one proxy repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._flights: Flights[_Arrival] = Flights(remote.nursery, remote.turn)

    async def find(self, listing: Listing, trace: Trace) -> Listed:
        """See Repository.listing."""
        remote = self._remote
        if listing.of == "packages":
            raise NotFound(f"{remote.name} is a proxy: it cannot list what {remote.upstream.name} has", subject="list")
        record = self._record(listing)
        if record is None:
            remote.refuse_missing(listing.path, listing.subject, trace)
        if remote.rules.offline:
            names = await self._kept(record)
            if names is None:
                message = f"repository {remote.name} is offline, and {listing.path} is not kept here"
                raise UpstreamUnavailable(message, subject=listing.subject)
            fresh = record is not None and self._fresh(record)
            trace.outcome = "hit" if fresh else "stale"
            return cut(names, listing, "" if fresh else OFFLINE_WARNING)
        if record is not None and self._fresh(record) and (names := await self._kept(record)) is not None:
            trace.outcome = "hit"
            return cut(names, listing)
        whole = replace(listing, after="", limit=None)
        arrival, began = await self._flights.join(flight_of(listing.path, trace), partial(self._refresh, whole, trace))
        trace.outcome = arrival.outcome if began or arrival.outcome != "miss" else "joined"
        return cut(arrival.names, listing, arrival.warning)

    def _record(self, listing: Listing) -> FileRecord | None:
        return self._remote.stock.catalog.file(self._remote.name, listing.path)

    def _fresh(self, record: FileRecord) -> bool:
        now = self._remote.clock()
        return record.validated <= now + 60 and now < record.validated + self._remote.rules.ttl

    async def _kept(self, record: FileRecord | None) -> tuple[str, ...] | None:
        if record is None:
            return None
        data = await self._remote.stock.blobs.read(record.digest, _MAX_LIST)
        return None if data is None else msgspec.json.decode(data, type=tuple[str, ...])

    async def _refresh(self, listing: Listing, trace: Trace) -> _Arrival:
        remote = self._remote
        record = self._record(listing)
        kept = await self._kept(record)
        if record is not None and kept is not None and self._fresh(record):
            return _Arrival(kept, "hit")
        try:
            names, origin = await self._fetch(listing, trace)
        except NotFound:
            if record is not None:
                await remote.stock.catalog.forget_file(remote.name, listing.path)
            await remote.note_missing(listing.path)
            raise
        except Problem as problem:
            if kept is None or remote.final(problem):
                raise
            trace.notes.append(f"stale: {problem.message}")
            return _Arrival(kept, "stale", stale_warning(problem))
        await self._keep(listing, names, origin)
        return _Arrival(names, "miss")

    async def _fetch(self, listing: Listing, trace: Trace) -> tuple[tuple[str, ...], str]:
        """Every page, in order. Raises UpstreamFailed rather than stop early."""
        remote = self._remote
        names: set[str] = set()
        size = 0
        asked: set[str] = set()
        following: str | None = None
        for _ in range(_MAX_PAGES):
            async with remote.open(remote.ask_page(listing, following), trace) as reply:
                data = await remote.read(reply, _MAX_PAGE)
                page = remote.format.page(listing, reply.headers, data)
                origin = reply.origin
            size += len(data)
            names.update(page.names)
            following = page.following
            if following is None:
                return tuple(sorted(names)), origin
            if following in asked or size > _MAX_LIST:
                break
            asked.add(following)
        raise UpstreamFailed(f"{remote.upstream.name} pages {listing.path} without end", subject=listing.subject)

    async def _keep(self, listing: Listing, names: tuple[str, ...], origin: str) -> None:
        remote = self._remote
        data = msgspec.json.encode(names)
        now = remote.clock()
        with remote.tolerant(listing.path):
            digest = await remote.stock.blobs.put(data, Digest.of(data))
            await remote.stock.catalog.put_file(
                FileRecord(
                    repository=remote.name,
                    package=listing.package,
                    path=listing.path,
                    digest=digest,
                    size=len(data),
                    media_type=MEDIA_TYPE,
                    origin=origin,
                    created=now,
                    validated=now,
                )
            )
