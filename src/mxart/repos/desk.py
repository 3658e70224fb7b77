"""Everything of a proxy's that has one name in the catalog: its shelf, and who fetches what is not on it."""

from __future__ import annotations

from typing import assert_never

from mxart.message import Trace
from mxart.repos.artifacts import Artifacts
from mxart.repos.documents import Documents
from mxart.repos.listings import Listings
from mxart.repos.operations import Artifact, Blob, Document, File, Found, Listed, Listing, Referred, Referrers
from mxart.repos.referrals import Referrals
from mxart.repos.remote import Remote
from mxart.repos.streams import Streams


class Desk:
    """Answers operations that are in upstream's own names already (Format.adopt)."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._documents = Documents(remote)
        self._streams = Streams(remote)
        self._artifacts = Artifacts(remote, self._documents)
        self._listings = Listings(remote)
        self._referrals = Referrals(remote)

    def remembered(self, operation: File, trace: Trace) -> Found | None:
        """What memory has: the fast way, a few microseconds."""
        found = self.remote.shelf.remembered(operation, self.remote.clock())
        if found is not None:
            trace.outcome = "stale" if found.stale else "hit"
            trace.decided("%s: remembered, %s", operation.path, trace.outcome)
        return found

    async def file(self, operation: File, trace: Trace) -> Found:
        """See Repository.file."""
        found = self.remembered(operation, trace)
        if found is not None:
            return found
        match operation:
            case Document():
                if (verifier := self.remote.verifier) is not None:
                    found = await verifier.answer(operation, self.remote, trace)
                    if found is not None:
                        return found
                return await self._documents.find(operation, trace)
            case Blob():
                return await self._streams.find(operation, trace)
            case Artifact():
                return await self._artifacts.find(operation, trace)
            case _:
                assert_never(operation)

    async def listing(self, operation: Listing, trace: Trace) -> Listed:
        """See Repository.listing."""
        return await self._listings.find(operation, trace)

    async def referrers(self, operation: Referrers, trace: Trace) -> Referred:
        """See Repository.referrers."""
        return await self._referrals.find(operation, trace)

    async def referrers_now(self, operation: Referrers, trace: Trace) -> Referred:
        """The same as upstream says it to this one question: nothing is kept, and nobody shares it."""
        return await self._referrals.unkept(operation, trace)
