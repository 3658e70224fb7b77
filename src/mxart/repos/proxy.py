"""The kind `proxy`: another server's files, kept as they are asked for (product.md section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
from msgspec.structs import replace

from mxart.access.base import ANYBODY
from mxart.errors import NotFound, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.base import Format
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.counter import Counter
from mxart.repos.directories import entries
from mxart.repos.indexes import Indexes
from mxart.repos.operations import (
    AnyRead,
    Artifact,
    Directory,
    Document,
    Entry,
    File,
    Found,
    Index,
    Indexed,
    Listed,
    Listing,
    Read,
    Referred,
    Referrers,
)
from mxart.repos.publishing import Publisher
from mxart.repos.remote import Remote, Rules, Verifier
from mxart.repos.roles import having
from mxart.repos.stock import Memory, Shelf, Stock, seconds_of
from mxart.store.base import Origin
from mxart.upstream.base import Ask, Upstream

_MEMORY = 1 << 20
_MAX_KEEPING = 4096


class Proxy:
    """A repository whose truth is upstream. A caller who may read but not fetch is served what is kept.

    `nursery` is the server's: what it runs outlives the requests that caused it.  `origin` makes the
    origin of a download from the question to upstream.  `verifier` is asked about what upstream sent, before it is kept
    or served, where the format tells a checksum of it.  `closed` tells why upstream is never asked for something, and
    what it may have sent of it is not served; "" where it is.
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
        rules: Rules = Rules(),  # noqa: B008  # a frozen value
        clock: Callable[[], float] = time.time,
        verifier: Verifier | None = None,
        closed: Callable[[Read], str] | None = None,
    ) -> None:
        self.name = name
        self._closed = closed
        self.format = format
        self.site = upstream.site if rules.relay != "never" else ""
        shelf = Shelf(name, format, stock)
        remote = Remote(name, format, upstream, stock, shelf, nursery, origin, rules, clock, verifier)
        self._stock = stock
        self._indexes = Indexes()
        # Groups ask at every request; the answers hold until the catalog changes.
        self._keeping: dict[tuple[str, ...], bool] = {}
        self._generation: int | None = None
        self._counter = Counter(remote)
        # For callers who may not have upstream asked. What is stale to them is not so to others: a memory of its own.
        stock = replace(stock, memory=Memory(_MEMORY))
        shelf = Shelf(name, format, stock)
        self._kept = Counter(replace(remote, stock=stock, shelf=shelf, rules=replace(rules, offline=True)))

    def owns(self, package: str) -> bool:
        """Nothing is published in a proxy."""
        return False

    def begun(self, package: str) -> bool:
        """Nor can it be."""
        return False

    @property
    def reaches(self) -> bool:
        """Its upstream."""
        return True

    def keeps(self, paths: Sequence[str]) -> bool:
        catalog, behind = self._stock.catalog, self._stock.behind
        if any(behind.has(self.name, path) for path in paths):
            return True
        generation = catalog.generation()
        if generation != self._generation or len(self._keeping) >= _MAX_KEEPING:
            self._keeping.clear()
            self._generation = generation
        key = tuple(paths)
        kept = self._keeping.get(key)
        if kept is None:
            kept = self._keeping[key] = any(catalog.file(self.name, path) is not None for path in paths)
        return kept

    def publishers(self) -> Sequence[Publisher]:
        """Nobody: what it has is its upstream's."""
        return ()

    async def admit(self, caller: Caller, trace: Trace) -> None:
        await self._counter.admit(caller, trace)

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        operation = self._adopted(operation)
        found = self._counter.remembered(operation, trace)
        if found is not None:
            return found
        if self._may_fetch(operation, caller):
            return await self._counter.file(operation, trace, caller)
        with self._refusing(operation, caller):
            return await self._kept.file(operation, trace, caller)

    async def index(self, operation: Index, trace: Trace, caller: Caller = NOBODY) -> Indexed:
        document = having(self.format.indexing).document(operation)
        found = await self.file(replace(document, credential=operation.credential), trace, caller)
        # The same answer as before is the same object.
        remembered = self._indexes.get(operation.path, (found,))
        if remembered is not None and remembered[0] is not None:
            return remembered[0]
        assert isinstance(found.content, bytes), "a document that is asked for whole"
        made = Indexed(found.content, found.headers.get("warning") or "", seconds_of(found.last_modified))
        return self._indexes.put(operation.path, (found,), made) or made

    async def directory(self, operation: Directory, trace: Trace, caller: Caller = NOBODY) -> Sequence[Entry]:
        trace.outcome = "hit"
        operation = self._adopted(operation)
        return await entries(self._stock, self.name, operation, caller.grants)

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        operation = self._adopted(operation)
        if self._may_fetch(operation, caller):
            return await self._counter.listing(operation, trace, caller)
        with self._refusing(operation, caller):
            return await self._kept.listing(operation, trace, caller)

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        operation = self._adopted(operation)
        if self._may_fetch(operation, caller):
            return await self._counter.referrers(operation, trace, caller)
        with self._refusing(operation, caller):
            return await self._kept.referrers(operation, trace, caller)

    def _adopted(self, operation: AnyRead) -> AnyRead:
        """In upstream's names, if it may be asked for this at all."""
        adopted = self.format.adopt(operation)
        if self._closed is not None and (why := self._closed(adopted)):
            raise NotFound(f"{self.name} has no {adopted.path}: {why}", subject=adopted.subject)
        return adopted

    def _may_fetch(self, operation: File | Listing | Referrers, caller: Caller) -> bool:
        if _wants_kept(operation):
            return False
        grants = caller.grants
        return grants is ANYBODY or grants.may("fetch", self.name, operation.package)

    @contextmanager
    def _refusing(self, operation: File | Listing | Referrers, caller: Caller) -> Iterator[None]:
        """What is not kept is refused by the rule that keeps this caller from having it fetched.

        Who wants nothing fetched is told that it is not here: that is what he asked.
        """
        try:
            yield
        except UpstreamUnavailable:
            if _wants_kept(operation):
                message = f"{operation.path} is not kept in {self.name}, and only what is kept was asked for"
                raise NotFound(message, subject=operation.subject) from None
            caller.grants.demand("fetch", self.name, operation.package)
            raise


def _wants_kept(operation: File | Listing | Referrers) -> bool:
    return isinstance(operation, Document | Artifact | Listing) and operation.kept
