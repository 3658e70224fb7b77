"""The kind `proxy`: another server's files, kept as they are asked for (product.md section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import trio

from mxart.message import Trace
from mxart.repos.base import NOBODY, Caller, File, Format, Found, Listed, Listing, Referred, Referrers
from mxart.repos.desk import Desk
from mxart.repos.relay import Relay
from mxart.repos.remote import Remote, Rules
from mxart.repos.stock import Shelf, Stock
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
        remote = Remote(name, format, upstream, stock, Shelf(name, format, stock), nursery, origin, rules, clock)
        self._desk = Desk(remote)
        self._desks: tuple[Desk, ...] = (self._desk,)
        self._relay: Relay | None = None
        self.site = ""
        if rules.relay != "never":
            # Nobody's configuration can give a repository this name. What one caller may not see may be there for
            # another, so "not found" is remembered for nobody.
            second = f"{name}~callers"
            shelf = Shelf(second, format, stock, private=True)
            private = Desk(replace(remote, name=second, shelf=shelf, rules=replace(rules, negative_ttl=0.0)))
            self._desks = (self._desk, private)
            self._relay = Relay(self._desk, private)
            self.site = upstream.site

    def owns(self, package: str) -> bool:
        """Nothing is published in a proxy."""
        return False

    def holds(self, package: str) -> bool:
        return any(desk.holds(package) for desk in self._desks)

    async def admit(self, caller: Caller, trace: Trace) -> None:
        if self._relay is not None:
            await self._relay.admit(caller, trace)

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        operation = self.format.adopt(operation)
        if self._relay is None or not self._relay.wary(operation):
            found = self._desk.remembered(operation, trace)
            if found is not None:
                return found
        if self._relay is not None:
            return await self._relay.file(operation, trace, caller)
        return await self._desk.file(operation, trace)

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        operation = self.format.adopt(operation)
        if self._relay is not None:
            return await self._relay.listing(operation, trace, caller)
        return await self._desk.listing(operation, trace)

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        operation = self.format.adopt(operation)
        if self._relay is not None:
            return await self._relay.referrers(operation, trace, caller)
        return await self._desk.referrers(operation, trace)

    def publisher(self) -> None:
        """Nothing is published in a proxy."""
