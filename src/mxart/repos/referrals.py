"""Referrers through a proxy: from upstream's API, or from the tag that stands in for it, whichever upstream has.

Upstream is asked for all of them, whatever filter a client has; the list is kept like any other (see lists), and cut
here.  An upstream that does not know the question is not asked it again for a while; its tag is looked at instead.
That neither has anything is "nothing refers to it": an empty list.  Anything else that upstream says, or fails to, is
the old list, marked, or the failure: a signature that is not shown may be taken for one that does not exist.

The descriptors are upstream's word.  What they name is checked when it is asked for: by digest.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import msgspec
import trio

from mxart.domains import registrable_domain
from mxart.errors import NotFound, UpstreamFailed
from mxart.message import Trace
from mxart.repos.lists import MAX_PAGE, Fetched, Lists, Pages
from mxart.repos.operations import Descriptor, NoReferrers, Referred, Referrers, ReferrersPage
from mxart.repos.referring import cut
from mxart.repos.remote import Remote
from mxart.repos.roles import Referring, having
from mxart.repos.stock import MAX_DOCUMENT
from mxart.upstream.base import Reply

MEDIA_TYPE = "application/vnd.mxartifact.referrers.v1+json"
# Seconds: so long, at most, does an upstream that was given the API meanwhile look as if it had none.
_REMEMBERED = 900.0
_MAX_REFUSAL = 64 << 10
# Above this, parsing leaves the loop for a thread.
_LONG = 512 << 10


class Referrals:
    """The lists of referrers of one proxy repository."""

    def __init__(self, remote: Remote) -> None:
        self._origin = _Origin(remote)
        self._lists: Lists[Referrers, Descriptor] = Lists(remote, self._origin)

    async def find(self, operation: Referrers, trace: Trace) -> Referred:
        """See Repository.referrers."""
        try:
            arrival = await self._lists.whole(operation, trace)
        except NotFound:
            trace.outcome = trace.outcome or "miss"
            return Referred(())
        return cut(arrival.items, operation, arrival.warning)

    async def unkept(self, operation: Referrers, trace: Trace) -> Referred:
        """The same, asked of upstream for this one question; nothing is kept, nobody shares it."""
        fetched = await self._origin.fetch(operation, trace)
        trace.outcome = "miss"
        return cut(fetched.items, operation)


class _Origin:
    """See lists.Origin."""

    media_type = MEDIA_TYPE

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lacking_since: float | None = None

    async def fetch(
        self, operation: Referrers, trace: Trace, held: Fetched[Descriptor] | None = None
    ) -> Fetched[Descriptor]:
        referring = having(self._remote.format.referring)
        if not self._lacks():
            found = await self._by_api(referring, operation, trace)
            if found is not None:
                return found
        return await self._by_tag(referring, operation, trace, held)

    def _lacks(self) -> bool:
        """Whether upstream said lately that it does not know the question."""
        return self._lacking_since is not None and 0 <= self._remote.clock() - self._lacking_since < _REMEMBERED

    def _is_its_own(self, origin: str) -> bool:
        """Whether the mirror that answered is the upstream itself: what one that helps out lacks, this may have."""
        parts = urlsplit(origin)
        return f"{parts.scheme}://{registrable_domain(parts.hostname or '')}" == self._remote.upstream.site

    async def _by_api(self, referring: Referring, operation: Referrers, trace: Trace) -> Fetched[Descriptor] | None:
        """None: upstream has no such list to give, by this way."""
        remote = self._remote
        pages = Pages(remote.upstream.name, operation)
        found: list[Descriptor] = []
        following: str | None = None
        while True:
            ask = remote.shown(referring.ask(operation, following), operation.credential)
            async with remote.open(ask, trace) as reply:
                data = await self._read(reply)
                page = await _parsed(referring, operation, reply, data)
                origin = reply.origin
            if isinstance(page, NoReferrers):
                if following is not None:
                    message = f"{remote.upstream.name} breaks off the list {operation.path} after {len(found)} entries"
                    raise UpstreamFailed(message, subject=operation.subject)
                trace.decided("%s: %s does not answer this", operation.path, remote.upstream.name)
                if page.certain and self._is_its_own(origin):
                    self._lacking_since = remote.clock()
                return None
            self._lacking_since = None
            found += page.descriptors
            following = page.following
            if following is None:
                return Fetched(tuple(found), origin)
            pages.turn(len(data), following)

    async def _read(self, reply: Reply) -> bytes:
        """The body of an answer; of a refusal only as much as a registry's own may have, else nothing."""
        if reply.status == 200:
            return await self._remote.read(reply, MAX_PAGE)
        data = b""
        while chunk := await reply.receive():
            data += chunk
            if len(data) > _MAX_REFUSAL:
                return b""
        return data

    async def _by_tag(
        self, referring: Referring, operation: Referrers, trace: Trace, held: Fetched[Descriptor] | None
    ) -> Fetched[Descriptor]:
        remote = self._remote
        document = referring.stand_in(operation)
        try:
            # A HEAD first: there are registries that count every GET, Docker Hub for one.
            if held is not None and held.mark:
                async with remote.open(remote.ask(document, "HEAD"), trace) as reply:
                    if str(remote.format.facts(document, reply.headers).digest) == held.mark:
                        return held
            async with remote.open(remote.ask(document, "GET"), trace) as reply:
                data = await remote.read(reply, MAX_DOCUMENT)
                headers, origin = reply.headers, reply.origin
        except NotFound:
            return Fetched((), "")

        def read() -> Fetched[Descriptor]:
            facts = remote.format.check(document, headers, data)
            return Fetched(referring.listed(operation, facts.media_type, data), origin, str(facts.digest))

        return await trio.to_thread.run_sync(read) if len(data) > _LONG else read()

    def keeps_none(self, operation: Referrers) -> bool:
        """For what is kept here itself: there is no end of digests that a stranger may ask about."""
        remote = self._remote
        about = having(remote.format.referring).about(operation)
        return remote.stock.catalog.file(remote.name, about.path) is not None

    def encode(self, items: tuple[Descriptor, ...]) -> bytes:
        return b"[" + b",".join(item.json for item in items) + b"]"

    def decode(self, data: bytes) -> tuple[Descriptor, ...]:
        referring = having(self._remote.format.referring)
        return tuple(referring.read(bytes(item)) for item in msgspec.json.decode(data, type=list[msgspec.Raw]))


async def _parsed(referring: Referring, operation: Referrers, reply: Reply, data: bytes) -> ReferrersPage | NoReferrers:
    parse = partial(referring.page, operation, reply.status, reply.headers, data)
    return await trio.to_thread.run_sync(parse) if len(data) > _LONG else parse()
