"""Names through a proxy: upstream's list of a package's tags, complete, and cut here (see lists)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mxart.errors import NotFound
from mxart.message import Trace
from mxart.repos.lists import MAX_PAGE, Fetched, Lists, Pages
from mxart.repos.operations import Listed, Listing
from mxart.repos.remote import Remote
from mxart.repos.roles import having

MEDIA_TYPE = "application/vnd.mxartifact.names.v1+json"


def cut(names: Sequence[str], listing: Listing, warning: str = "") -> Listed:
    """The part of a complete, sorted list that was asked for."""
    wanted = [name for name in names if name > listing.after] if listing.after else list(names)
    if listing.limit is None or len(wanted) <= listing.limit:
        return Listed(wanted, more=False, warning=warning)
    return Listed(wanted[: listing.limit], more=True, warning=warning)


class Listings:
    """The lists of one proxy repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lists: Lists[Listing, str] = Lists(remote, _Names(remote))

    async def find(self, listing: Listing, trace: Trace) -> Listed:
        """See Repository.listing."""
        remote = self._remote
        if listing.of == "packages":
            raise NotFound(f"{remote.name} is a proxy: it cannot list what {remote.upstream.name} has", subject="list")
        arrival = await self._lists.whole(listing, trace)
        return cut(arrival.items, listing, arrival.warning)


class _Names:
    """See lists.Origin."""

    media_type = MEDIA_TYPE

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def fetch(self, operation: Listing, trace: Trace, held: Fetched[str] | None = None) -> Fetched[str]:
        remote = self._remote
        pages = Pages(remote.upstream.name, operation)
        names: set[str] = set()
        following: str | None = None
        while True:
            async with remote.open(remote.ask_page(operation, following), trace) as reply:
                data = await remote.read(reply, MAX_PAGE)
                page = having(remote.format.paging).page(operation, reply.headers, data)
                origin = reply.origin
            names.update(page.names)
            following = page.following
            if following is None:
                return Fetched(tuple(sorted(names)), origin)
            pages.turn(len(data), following)

    def keeps_none(self, operation: Listing) -> bool:
        return True

    def encode(self, items: tuple[str, ...]) -> bytes:
        return msgspec.json.encode(items)

    def decode(self, data: bytes) -> tuple[str, ...]:
        return msgspec.json.decode(data, type=tuple[str, ...])
