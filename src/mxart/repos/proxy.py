"""The kind `proxy`: another server's files, kept as they are asked for (product.md section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

import trio

from mxart.message import Trace
from mxart.repos.base import Blob, Document, File, Format, Found, Listed, Listing
from mxart.repos.documents import Documents
from mxart.repos.listings import Listings
from mxart.repos.remote import Remote, Rules
from mxart.repos.stock import Shelf, Stock
from mxart.repos.streams import Streams
from mxart.store.base import Origin
from mxart.upstream.base import Ask, Upstream


class Proxy:
    """A repository whose truth is upstream.

    `nursery` is the server's: what it runs outlives the requests that caused it.  `origin` makes the
    origin of a download from the question to upstream.
    """

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        upstream: Upstream,
        stock: Stock,
        *,
        nursery: trio.Nursery,
        origin: Callable[[Ask], Origin],
        rules: Rules = Rules(),  # noqa: B008 frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.format = format
        self._clock = clock
        self._shelf = Shelf(name, format, stock)
        remote = Remote(name, format, upstream, stock, self._shelf, nursery, origin, rules, clock)
        self._documents = Documents(remote)
        self._streams = Streams(remote)
        self._listings = Listings(remote)

    def owns(self, package: str) -> bool:
        """Nothing is published in a proxy."""
        return False

    async def file(self, operation: File, trace: Trace) -> Found:
        operation = self.format.adopt(operation)
        found = self._shelf.remembered(operation.path, self._clock())
        if found is not None:
            trace.outcome = "stale" if found.stale else "hit"
            trace.decided("%s: remembered, %s", operation.path, trace.outcome)
            return found
        match operation:
            case Document():
                return await self._documents.find(operation, trace)
            case Blob():
                return await self._streams.find(operation, trace)
            case _:
                assert_never(operation)

    async def listing(self, operation: Listing, trace: Trace) -> Listed:
        return await self._listings.find(self.format.adopt(operation), trace)
