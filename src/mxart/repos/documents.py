"""Documents through a proxy: small, fetched whole, checked, kept; mutable ones revalidated.

A mutable document (a tag) goes through these states: fresh (within the ttl: upstream is not asked);
old (one HEAD tells whether it still means the same bytes; one GET if not, or if it is small); stale (upstream is in
trouble: the old copy is served and marked).  Only upstream's own "not found" makes it go away.

Everything that asks upstream happens in a flight: one task a name, whoever waits gets its outcome.  It begins
by looking at the catalog again, because another worker may have been faster.

A small immutable one is answered as soon as it is checked, and kept by the same flight after that (module behind).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from mxart.errors import NotFound, Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers, Trace
from mxart.repos.flights import Flights
from mxart.repos.operations import Document, Facts, Found
from mxart.repos.publishing import Inspection
from mxart.repos.remote import OFFLINE_WARNING, Received, Remote, flight_of, stale_warning
from mxart.repos.stock import MAX_DOCUMENT, Known
from mxart.store.base import FileRecord
from mxart.store.published import Need, Publication, Vanished

# Above this, hashing and parsing leave the loop for a thread.
_LONG = 512 << 10
_TRIES = 3


class _Arrival(Struct, frozen=True):
    found: Found
    outcome: Literal["hit", "miss", "revalidated", "stale"]


_Tell = Callable[[_Arrival], None]


class Documents:
    """The documents of one proxy repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._flights: Flights[_Arrival] = Flights(remote.nursery, remote.turn)

    async def find(self, document: Document, trace: Trace) -> Found:
        """See Repository.file."""
        remote = self._remote
        now = remote.clock()
        known = remote.shelf.look(document.path)
        if known is None:
            remote.refuse_missing(document.path, document.subject, trace)
        elif (found := await self._fresh(document, known, now)) is not None:
            trace.outcome = "hit"
            trace.decided("%s: kept, and fresh", document.path)
            return found
        trace.decided("%s: %s", document.path, "not kept" if known is None else "kept, and older than its ttl")
        if remote.rules.offline:
            return await self._offline(document, known, now, trace)
        if known is not None and document.mutable:
            # The question goes on without us; whoever asks later has its answer.
            with trio.move_on_after(remote.rules.patience):
                return await self._asked(document, trace)
            problem = UpstreamTimeout(f"{remote.upstream.name} takes its time")
            kept = await remote.shelf.take(document, known, now, until=now, warning=stale_warning(problem))
            if kept is not None:
                trace.outcome = "stale"
                trace.notes.append(f"stale: {problem.message}")
                return kept
        return await self._asked(document, trace)

    def has(self, document: Document) -> bool:
        """Whether its name is kept, or is about to be."""
        remote = self._remote
        return remote.stock.behind.has(remote.name, document.path) or remote.shelf.look(document.path) is not None

    async def landed(self, document: Document, trace: Trace) -> None:
        """Return when what `find` has answered is kept, if it can be."""
        await self._flights.landed(flight_of(document.path, trace))

    async def _asked(self, document: Document, trace: Trace) -> Found:
        work = self._refresh if document.mutable else self._obtain
        arrival, began = await self._flights.join_early(flight_of(document.path, trace), partial(work, document, trace))
        trace.outcome = arrival.outcome if began or arrival.outcome in ("hit", "stale") else "joined"
        return arrival.found

    async def _fresh(self, document: Document, known: Known, now: float) -> Found | None:
        if not document.mutable:
            return await self._remote.shelf.take(document, known, now)
        until = known.record.validated + self._remote.rules.ttl
        # A clock that was set back must not make a tag fresh for years.
        if now >= until or known.record.validated > now + 60:
            return None
        return await self._remote.shelf.take(document, known, now, until)

    async def _offline(self, document: Document, known: Known | None, now: float, trace: Trace) -> Found:
        found = None
        if known is not None:
            hold = now + self._remote.rules.hold
            found = await self._remote.shelf.take(document, known, now, hold, OFFLINE_WARNING)
        if found is None:
            message = f"repository {self._remote.name} is offline, and {document.path} is not kept here"
            raise UpstreamUnavailable(message, subject=document.subject)
        trace.outcome = "stale"
        return found

    async def _refresh(self, document: Document, trace: Trace, _: _Tell) -> _Arrival:
        remote = self._remote
        now = remote.clock()
        known = remote.shelf.look(document.path)
        kept = None
        if known is not None:
            if (found := await self._fresh(document, known, now)) is not None:
                return _Arrival(found, "hit")
            kept = await remote.shelf.take(document, known, now, until=now)
        try:
            if known is not None and kept is not None and await self._unchanged(document, known.record, trace):
                trace.decided("%s: upstream confirms %s", document.path, known.record.digest)
                return _Arrival(await self._confirm(document, known.record, kept), "revalidated")
            return _Arrival(await self._fetch(document, known, trace), "miss")
        except NotFound:
            if known is not None:
                await remote.stock.catalog.forget_file(remote.name, document.path)
            await remote.note_missing(document.path)
            raise
        except Problem as problem:
            if known is None or kept is None or remote.final(problem):
                raise
            trace.decided("%s: upstream fails, the kept copy is served: %s", document.path, problem.message)
            trace.notes.append(f"stale: {problem.message}")
            return _Arrival(await self._stale(document, known, kept, problem), "stale")

    async def _unchanged(self, document: Document, record: FileRecord, trace: Trace) -> bool:
        """One HEAD: does the name still mean these bytes? Without a word from upstream: no."""
        if document.small:
            return False
        remote = self._remote
        async with remote.open(remote.ask(document, "HEAD"), trace) as reply:
            facts = remote.format.facts(document, reply.headers)
        if facts.digest is not None:
            return facts.digest == record.digest
        return bool(facts.etag) and facts.etag == record.etag

    async def _confirm(self, document: Document, record: FileRecord, kept: Found) -> Found:
        now = self._remote.clock()
        with self._remote.tolerant(document.path):
            await self._record(document, replace(record, validated=now))
        return await self._again(document, now) or kept

    async def _stale(self, document: Document, known: Known, kept: Found, problem: Problem) -> Found:
        now = self._remote.clock()
        warning = stale_warning(problem)
        found = await self._remote.shelf.take(document, known, now, now + self._remote.rules.hold, warning)
        if found is not None:
            return found
        return self._remote.shelf.describe(
            document, known.record, kept.content, size=kept.size, warning=warning, now=now
        )

    async def _obtain(self, document: Document, trace: Trace, tell: _Tell) -> _Arrival:
        """An immutable document that is not kept under this name."""
        remote = self._remote
        known = remote.shelf.look(document.path)
        try:
            if known is not None:
                if (found := await remote.shelf.take(document, known, remote.clock())) is not None:
                    return _Arrival(found, "hit")
            elif document.digest is not None:
                data = await remote.stock.blobs.read(document.digest, MAX_DOCUMENT)
                if data is not None:
                    return _Arrival(await self._link(document, data, trace), "revalidated")
            return _Arrival(await self._fetch(document, known, trace, tell if document.small else None), "miss")
        except NotFound:
            await remote.note_missing(document.path)
            raise

    async def _link(self, document: Document, data: bytes, trace: Trace) -> Found:
        """The bytes are in the store for somebody else: upstream must confirm that this name means them too."""
        remote = self._remote
        async with remote.open(remote.ask(document, "HEAD"), trace) as reply:
            remote.format.facts(document, reply.headers)
            headers, origin = reply.headers, reply.origin
        facts = await self._check(document, headers, data, trace)
        return await self._keep(document, facts, data, self._record_of(document, facts, data, origin, None))

    async def _fetch(self, document: Document, known: Known | None, trace: Trace, tell: _Tell | None = None) -> Found:
        """`tell` is called, if there is one, before what upstream sent is kept."""
        remote = self._remote
        async with remote.open(remote.ask(document, "GET"), trace) as reply:
            if reply.status != 200:
                raise UpstreamFailed(f"{remote.upstream.name} answered {reply.status} to a question without conditions")
            data = await remote.read(reply, MAX_DOCUMENT)
            headers, origin = reply.headers, reply.origin
        facts = await self._check(document, headers, data, trace)
        behind = remote.stock.behind
        if tell is None or not behind.begin(remote.name, document.path):
            return await self._keep(document, facts, data, self._record_of(document, facts, data, origin, known))
        try:
            record = self._record_of(document, facts, data, origin, known)
            tell(_Arrival(remote.shelf.describe(document, record, data, size=len(data)), "miss"))
            return await self._keep(document, facts, data, record)
        finally:
            behind.end(remote.name, document.path)

    async def _check(self, document: Document, headers: Headers, data: bytes, trace: Trace) -> Facts:
        check = partial(self._remote.format.check, document, headers, data)
        facts = await trio.to_thread.run_sync(check) if len(data) > _LONG else check()
        assert facts.digest is not None, "Format.check sets it"
        await self._remote.verify(document, Received(facts.digest, facts.checksum, headers, trace))
        return facts

    def _record_of(self, document: Document, facts: Facts, data: bytes, origin: str, known: Known | None) -> FileRecord:
        remote = self._remote
        digest = facts.digest
        assert digest is not None, "Format.check sets it"
        now = remote.clock()
        return FileRecord(
            repository=remote.name,
            package=document.package,
            path=document.path,
            digest=digest,
            size=len(data),
            media_type=facts.media_type,
            etag=facts.etag,
            last_modified=facts.last_modified,
            origin=origin,
            created=known.record.created if known is not None and known.record.digest == digest else now,
            validated=now,
            checksum=facts.checksum,
        )

    async def _keep(self, document: Document, facts: Facts, data: bytes, record: FileRecord) -> Found:
        """Store checked bytes, then their names; answer from there, or from memory if they cannot be kept."""
        remote = self._remote
        with remote.tolerant(document.path):
            kept = await self._name(document, facts, record, data)
            if kept and (found := await self._again(document, record.validated)):
                return found
        return remote.shelf.describe(document, record, data, size=len(data))

    async def _name(self, document: Document, facts: Facts, record: FileRecord, data: bytes) -> bool:
        """Put bytes into the store, and with their names what they need: it is not evicted before them.

        A tag's come with the immutable name: a client that learns the digest from the tag asks for it next.
        False: they are evicted as fast as they come.
        """
        remote = self._remote
        blobs, digest = remote.stock.blobs, record.digest
        pinned = remote.format.pinned(document, digest) if document.mutable else document
        publication: Publication | None = None
        if pinned is not None:
            inspection = await self._inspect(document, facts, data)
            publication = Publication(
                replace(record, path=pinned.path),
                ((document.tag, document.path),) if document.tag else (),
                tuple(Need(need.digest, None) for need in inspection.needs),  # upstream has it
                inspection.referrer,
            )
        for _ in range(_TRIES):
            await blobs.put(data, digest)
            if publication is None:
                await self._record(document, record)
                return True
            with contextlib.suppress(Vanished):
                await remote.stock.publications.publish(publication, lambda: blobs.has(digest))
                return True
        return False

    async def _inspect(self, document: Document, facts: Facts, data: bytes) -> Inspection:
        pushing = self._remote.format.pushing
        if pushing is None:  # nothing of this format says anything about other files
            return Inspection()
        inspect = partial(pushing.inspect, document.package, facts, data)
        return await trio.to_thread.run_sync(inspect) if len(data) > _LONG else inspect()

    async def _record(self, document: Document, record: FileRecord) -> None:
        catalog = self._remote.stock.catalog
        if document.tag:
            await catalog.put_tag(record.repository, record.package, document.tag, record)
        else:
            await catalog.put_file(record)

    async def _again(self, document: Document, now: float) -> Found | None:
        """What the catalog says after a write: it may be another worker's, and then newer."""
        remote = self._remote
        known = remote.shelf.look(document.path)
        if known is None:
            return None
        until = known.record.validated + remote.rules.ttl if document.mutable else float("inf")
        return await remote.shelf.take(document, known, now, until)
