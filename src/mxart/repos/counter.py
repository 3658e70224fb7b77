"""Where a proxy's callers are served: from the shelf that everybody shares, or by way of their own credentials."""

from __future__ import annotations

from msgspec.structs import replace

from mxart.message import Trace
from mxart.repos.callers import Caller
from mxart.repos.desk import Desk
from mxart.repos.operations import File, Found, Listed, Listing, Referred, Referrers
from mxart.repos.relay import Relay
from mxart.repos.remote import Remote
from mxart.repos.stock import Shelf


class Counter:
    """Answers operations that are in upstream's own names already (Format.adopt)."""

    def __init__(self, remote: Remote) -> None:
        self._desk = Desk(remote)
        self._relay: Relay | None = None
        if remote.rules.relay != "never":
            # Nobody's configuration can give a repository this name. What one caller may not see may be there for
            # another, so "not found" is remembered for nobody.
            second = f"{remote.name}~callers"
            shelf = Shelf(second, remote.format, remote.stock, private=True)
            private = Desk(replace(remote, name=second, shelf=shelf, rules=replace(remote.rules, negative_ttl=0.0)))
            self._relay = Relay(self._desk, private)

    async def admit(self, caller: Caller, trace: Trace) -> None:
        """See Repository.admit."""
        if self._relay is not None:
            await self._relay.admit(caller, trace)

    def remembered(self, operation: File, trace: Trace) -> Found | None:
        """What memory has for everybody: the fast way, a few microseconds."""
        if self._relay is not None and self._relay.wary(operation):
            return None
        return self._desk.remembered(operation, trace)

    async def file(self, operation: File, trace: Trace, caller: Caller) -> Found:
        """See Repository.file."""
        if self._relay is not None:
            return await self._relay.file(operation, trace, caller)
        return await self._desk.file(operation, trace)

    async def listing(self, operation: Listing, trace: Trace, caller: Caller) -> Listed:
        """See Repository.listing."""
        if self._relay is not None:
            return await self._relay.listing(operation, trace, caller)
        return await self._desk.listing(operation, trace)

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller) -> Referred:
        """See Repository.referrers."""
        if self._relay is not None:
            return await self._relay.referrers(operation, trace, caller)
        return await self._desk.referrers(operation, trace)
