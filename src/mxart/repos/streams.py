"""Blobs through a proxy: streamed to everybody who asks while one download fills the store.

The store shares downloads and bytes between repositories; knowledge must not be shared with them.  Who
asks repository B for a blob may not learn from us that repository A has it.  So bytes, or a running
download, that another repository caused are served under a name of ours only after our own upstream has
confirmed that name, with one HEAD.  A `_Claim` is what this worker knows about one name while somebody is
at work on it: it lives as long as somebody holds it.

When a download is complete a follower records the name in the catalog, from the server's nursery, because
the clients may all have left by then.  If the process dies in between, the next request finds the bytes without
a name, and links them as above.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from mxart.body import Source
from mxart.errors import BodyBroken, NotFound, Problem, UpstreamLoops, UpstreamUnavailable
from mxart.message import Headers, Tap, Trace
from mxart.repos.flights import Flights
from mxart.repos.operations import Blob, Facts, Found
from mxart.repos.remote import Remote, asked_by, flight_of
from mxart.store.base import Joined, Origin, Sink

_log = logging.getLogger(__name__)

# How often a download that another repository began may fail under us before we give up.
_ATTEMPTS = 3


class _Claim:
    __slots__ = ("asker", "confirmed", "followed", "holders", "problem")

    def __init__(self) -> None:
        self.holders = 0
        self.confirmed = False  # our upstream has said that it has this name
        self.followed = False
        self.problem: Problem | None = None  # how our upstream refused
        self.asker: Trace | None = None  # by whose request it was asked

    def settles(self, trace: Trace) -> bool:
        """Whether our upstream has refused in a way that holds for this request: a loop may be of another's Via."""
        return self.problem is not None and (self.asker is trace or not isinstance(self.problem, UpstreamLoops))


class _Noting:
    """A sink that notes when upstream's head has come: whoever is woken by it may be served."""

    __slots__ = ("_claim", "_sink")

    def __init__(self, sink: Sink, claim: _Claim) -> None:
        self._sink = sink
        self._claim = claim

    @property
    def offset(self) -> int:
        return self._sink.offset

    @property
    def headers(self) -> Headers | None:
        return self._sink.headers

    def begin(self, total: int | None, headers: Headers) -> None:
        # A file that an earlier process left complete is begun without a word from upstream.
        if self._sink.headers is None or self._sink.offset != total:
            self._claim.confirmed = True
        self._sink.begin(total, headers)

    async def write(self, chunk: bytes) -> None:
        await self._sink.write(chunk)

    async def draw(self, tap: Tap) -> None:
        await self._sink.draw(tap)


class Streams:
    """The blobs of one proxy repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._heads: Flights[tuple[Facts, str]] = Flights(remote.nursery, remote.turn)
        self._claims: dict[str, _Claim] = {}

    async def find(self, blob: Blob, trace: Trace) -> Found:
        """See Repository.file."""
        remote = self._remote
        known = remote.shelf.look(blob.path)
        if known is not None:
            if (found := await remote.shelf.take(blob, known, remote.clock())) is not None:
                trace.outcome = "hit"
                trace.decided("%s: kept", blob.path)
                return found
        else:
            remote.refuse_missing(blob.path, blob.subject, trace)
        remote.refuse_offline(blob.path, blob.subject)
        try:
            if known is None and remote.stock.blobs.has(blob.digest):
                trace.decided("%s: its bytes are here under another name; upstream must confirm this one", blob.path)
                found = await self._link(blob, trace)
                if found is not None:
                    return found
            if blob.head:
                return await self._head(blob, trace)
            return await self._download(blob, trace)
        except NotFound:
            await remote.note_missing(blob.path)
            raise

    async def _ask_head(self, blob: Blob, trace: Trace) -> tuple[Facts, str]:
        remote = self._remote

        async def work() -> tuple[Facts, str]:
            async with remote.open(remote.ask(blob, "HEAD"), trace) as reply:
                return remote.format.facts(blob, reply.headers), reply.origin

        answer, _ = await self._heads.join(flight_of(blob.path, trace), work)
        return answer

    async def _head(self, blob: Blob, trace: Trace) -> Found:
        facts, _ = await self._ask_head(blob, trace)
        trace.outcome = "miss"
        return self._found(blob, facts, None, facts.size)

    async def _link(self, blob: Blob, trace: Trace) -> Found | None:
        """Bytes that are here, under a name that is new to us; None if they went away meanwhile."""
        facts, origin = await self._ask_head(blob, trace)
        remote = self._remote
        source = remote.stock.blobs.open(blob.digest)
        if source is None:
            return None
        trace.outcome = "revalidated"
        try:
            with remote.tolerant(blob.path):
                await remote.put(remote.record_of(blob, blob.digest, facts, origin, source.total or 0))
        except BaseException:
            source.close()
            raise
        return self._found(blob, facts, source, source.total)

    async def _download(self, blob: Blob, trace: Trace) -> Found:
        remote = self._remote
        with self._claim(blob.path) as claim:
            began = time.perf_counter()
            try:
                joined = await self._join(blob, claim, trace)
            finally:
                trace.upstream_seconds += time.perf_counter() - began
            try:
                if joined.started:
                    trace.upstream_requests += 1
                if not claim.confirmed:  # another's download, or one that an earlier process left behind
                    await self._ask_head(blob, trace)
                    claim.confirmed = True
                facts = remote.format.facts(blob, joined.headers)
            except BaseException:
                joined.source.close()
                raise
            if not claim.followed:
                claim.followed = True
                remote.nursery.start_soon(self._follow, blob)
            trace.outcome = "miss" if joined.started else "joined"
            trace.decided("%s: a download %s", blob.path, "was begun" if joined.started else "under way was joined")
            return self._found(blob, facts, joined.source, joined.source.total)

    async def _join(self, blob: Blob, claim: _Claim, trace: Trace) -> Joined:
        """Transfers.join, but a refusal counts only if it is our own upstream's, and a loop only if it is our own."""
        for attempt in range(_ATTEMPTS):
            claim.problem = None
            try:
                return await self._remote.stock.transfers.join(blob.digest, None, self._ours(blob, trace))
            except Problem as problem:
                if claim.settles(trace):
                    raise
                if attempt == _ATTEMPTS - 1:
                    message = f"{blob.path}: the download that was under way failed: {problem.message}"
                    raise UpstreamUnavailable(message, subject=blob.subject, retry_after=5) from problem
        raise AssertionError("unreachable")

    def _ours(self, blob: Blob, trace: Trace) -> Origin:
        """An origin that notes, when it is the one chosen, what this repository's upstream says."""

        async def origin(sink: Sink) -> None:
            with self._claim(blob.path) as claim:
                claim.problem, claim.asker = None, trace
                fetch = self._remote.origin(asked_by(self._remote.ask(blob, "GET"), trace))
                try:
                    await fetch(_Noting(sink, claim))
                except Problem as problem:
                    claim.problem = problem
                    raise

        return origin

    async def _follow(self, blob: Blob) -> None:
        """Wait for the end of a download and record its name."""
        remote = self._remote
        with self._claim(blob.path) as claim:
            try:
                joined = await remote.stock.transfers.join(blob.digest, None, self._ours(blob, Trace()))
                try:
                    size = await complete(joined.source)
                finally:
                    joined.source.close()
                facts = remote.format.facts(blob, joined.headers)
                with remote.tolerant(blob.path):
                    await remote.put(remote.record_of(blob, blob.digest, facts, remote.upstream.name, size))
            except (Problem, BodyBroken) as error:
                _log.info("%s: %s was not kept: %s", remote.name, blob.path, error)
            except Exception:  # noqa: BLE001 a fault must not end the server; it is logged
                _log.exception("%s: unexpected error while recording %s", remote.name, blob.path)
            finally:
                claim.followed = False

    @contextmanager
    def _claim(self, path: str) -> Iterator[_Claim]:
        claim = self._claims.get(path)
        if claim is None:
            claim = self._claims[path] = _Claim()
        claim.holders += 1
        try:
            yield claim
        finally:
            claim.holders -= 1
            if claim.holders == 0:
                del self._claims[path]

    def _found(self, blob: Blob, facts: Facts, content: Source | None, size: int | None) -> Found:
        # Not kept yet, so nothing to date it by but upstream's word.
        record = replace(self._remote.record_of(blob, blob.digest, facts, "", 0), created=0.0)
        return self._remote.shelf.describe(blob, record, content, size=size)


async def complete(source: Source) -> int:
    """Wait until the file is whole and verified; its length. Raises BodyBroken."""
    offset = 0
    while True:
        total = source.total
        # The last byte is given out only when all are right: one wait instead of one for each piece.
        if total is not None and offset < total - 1:
            offset = total - 1
        end = await source.available(offset)
        if end == offset:
            return end
        offset = end
