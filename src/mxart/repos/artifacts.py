"""Artifacts through a proxy: streamed as blobs are, and judged before anybody has the last of them.

The name does not tell the digest, so downloads and what earlier processes left of them belong to one repository's
name: nothing is shared with other repositories, and no name need be confirmed.  Whoever writes a download (one worker
of all) judges it: by the format, in a thread, and by the repository's verifier.  Only then it has a digest that means
something, the catalog gets its name, and the readers the last piece.  A file that never had its name recorded is not
kept (see store.base.Naming).

What was judged wrong is not fetched again at once: clients that were cut ask again, and are told why.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Mapping

import trio
from msgspec.structs import replace

from mxart.digest import Digest
from mxart.errors import NotFound, Problem, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers, Tap, Trace
from mxart.repos.beside import Beside
from mxart.repos.documents import Documents
from mxart.repos.flights import Flights
from mxart.repos.operations import Artifact, Facts, Found
from mxart.repos.remote import Received, Remote, asked_by, flight_of
from mxart.repos.roles import having
from mxart.store.base import Joined, Origin, Sink, Unjudged

_JUDGES = 4  # threads of one repository that read whole files, in one worker
_HELD = 30.0  # seconds until what was judged wrong is fetched again; never longer than the negative ttl
_MAX_HELD = 1024


class _Reading:
    """A sink that reads upstream's head before anybody else does: what cannot be the file is not begun."""

    __slots__ = ("_artifact", "_remote", "_sink")

    def __init__(self, sink: Sink, remote: Remote, artifact: Artifact) -> None:
        self._sink = sink
        self._remote = remote
        self._artifact = artifact

    @property
    def offset(self) -> int:
        return self._sink.offset

    @property
    def headers(self) -> Headers | None:
        return self._sink.headers

    def begin(self, total: int | None, headers: Headers) -> None:
        self._remote.format.facts(self._artifact, headers)
        self._sink.begin(total, headers)

    async def write(self, chunk: bytes) -> None:
        await self._sink.write(chunk)

    async def draw(self, tap: Tap) -> None:
        await self._sink.draw(tap)


class Artifacts:
    """The artifacts of one proxy repository."""

    def __init__(self, remote: Remote, documents: Documents) -> None:
        self._remote = remote
        self._documents = documents
        self._heads: Flights[Facts] = Flights(remote.nursery, remote.turn)
        self._judges = trio.CapacityLimiter(_JUDGES)
        self._wrong: OrderedDict[str, tuple[float, Problem]] = OrderedDict()
        # What was found right lately: it is told before its name is in the catalog.
        self._right: OrderedDict[str, tuple[Digest, str]] = OrderedDict()

    async def find(self, artifact: Artifact, trace: Trace) -> Found:
        """See Repository.file."""
        remote = self._remote
        known = remote.shelf.look(artifact.path)
        if known is not None:
            if (found := await remote.shelf.take(artifact, known, remote.clock())) is not None:
                trace.outcome = "hit"
                trace.decided("%s: kept", artifact.path)
                return found
        else:
            remote.refuse_missing(artifact.path, artifact.subject, trace)
        remote.refuse_offline(artifact.path, artifact.subject)
        self._refuse_wrong(artifact, trace)
        try:
            return await (self._head(artifact, trace) if artifact.head else self._download(artifact, trace))
        except NotFound:
            await remote.note_missing(artifact.path)
            raise

    async def _head(self, artifact: Artifact, trace: Trace) -> Found:
        """Upstream's word on it: a question for the head starts no download."""
        remote = self._remote

        async def work() -> Facts:
            async with remote.open(remote.ask(artifact, "HEAD"), trace) as reply:
                return remote.format.facts(artifact, reply.headers)

        facts, _ = await self._heads.join(flight_of(artifact.path, trace), work)
        trace.outcome = "miss"
        return remote.shelf.announce(artifact, facts, None, facts.size)

    async def _download(self, artifact: Artifact, trace: Trace) -> Found:
        remote = self._remote
        key = f"{remote.name}\0{flight_of(artifact.path, trace)}"
        beside = Beside(remote, self._documents, artifact, trace)
        name = _Name(self, remote, artifact, beside, trace)
        began = time.perf_counter()
        try:
            joined = await remote.stock.transfers.join_named(key, self._origin(artifact, trace), name)
        finally:
            trace.upstream_seconds += time.perf_counter() - began
        if joined.started:
            beside.begin()
        trace.outcome = "miss" if joined.started else "joined"
        trace.decided("%s: a download %s", artifact.path, "was begun" if joined.started else "under way was joined")
        try:
            return self._found(artifact, joined)
        except BaseException:
            joined.source.close()
            raise

    def _found(self, artifact: Artifact, joined: Joined) -> Found:
        remote = self._remote
        source, digest = joined.source, joined.digest
        known = remote.shelf.look(artifact.path) if digest is not None else None
        if known is not None and known.record.digest == digest:
            return remote.shelf.describe(artifact, known.record, source, size=source.total)
        judged, checksum = self._right.get(artifact.path, (None, ""))
        facts = replace(remote.format.facts(artifact, joined.headers), digest=digest)
        if digest is not None and judged == digest:
            facts = replace(facts, checksum=checksum)
        return remote.shelf.announce(artifact, facts, source, source.total)

    def _origin(self, artifact: Artifact, trace: Trace) -> Origin:
        """Asks upstream anew at each call, as the one whose request it is."""
        remote = self._remote

        async def origin(sink: Sink) -> None:
            trace.upstream_requests += 1
            fetch = remote.origin(asked_by(remote.ask(artifact, "GET"), trace))
            await fetch(_Reading(sink, remote, artifact))

        return origin

    async def judge(
        self, artifact: Artifact, unjudged: Unjudged, beside: Mapping[str, bytes]
    ) -> tuple[str, Problem | None]:
        """What the format says of a whole file: its checksum, and what does not agree with the files beside it.

        Raises UpstreamFailed.
        """
        kind = self._remote.format

        def work() -> tuple[str, Problem | None]:
            checksum = having(kind.judging).judge(artifact, unjudged)
            try:
                if beside:
                    having(kind.gathering).agree(artifact, unjudged, beside)
            except Problem as problem:
                return checksum, problem
            return checksum, None

        # Not abandoned when cancelled: the file is in use until the thread is back.
        return await trio.to_thread.run_sync(work, limiter=self._judges)

    def is_right(self, path: str, digest: Digest, checksum: str) -> None:
        """A file was judged, and is about to get its name."""
        self._right.pop(path, None)
        self._right[path] = (digest, checksum)
        if len(self._right) > _MAX_HELD:
            self._right.popitem(last=False)

    def is_wrong(self, path: str, problem: Problem) -> None:
        """A file was judged."""
        self._wrong.pop(path, None)
        # A copy has no traceback, with all that it holds.
        self._wrong[path] = (self._remote.clock(), copy.copy(problem))
        if len(self._wrong) > _MAX_HELD:
            self._wrong.popitem(last=False)

    def _refuse_wrong(self, artifact: Artifact, trace: Trace) -> None:
        """Raise what was found wrong with it, if that was a moment ago."""
        since, problem = self._wrong.get(artifact.path, (0.0, None))
        if problem is None:
            return
        if not 0 <= self._remote.clock() - since < min(_HELD, self._remote.rules.negative_ttl):
            del self._wrong[artifact.path]
            return
        trace.outcome = "refused"
        trace.decided("%s: what upstream sent a moment ago was wrong", artifact.path)
        raise copy.copy(problem)


class _Name:
    """`store.base.Naming` of one artifact. `artifacts` is told what became of it."""

    __slots__ = ("_artifact", "_artifacts", "_beside", "_checksum", "_remote", "_trace")

    def __init__(self, artifacts: Artifacts, remote: Remote, artifact: Artifact, beside: Beside, trace: Trace) -> None:
        self._artifacts = artifacts
        self._remote = remote
        self._artifact = artifact
        self._beside = beside
        self._trace = trace
        self._checksum = ""  # once it is judged

    def find(self) -> Digest | None:
        record = self._remote.stock.catalog.file(self._remote.name, self._artifact.path)
        return record.digest if record is not None else None

    async def judge(self, unjudged: Unjudged) -> None:
        artifact = self._artifact
        try:
            beside = await self._beside.data()
            self._checksum, problem = await self._artifacts.judge(artifact, unjudged, beside)
            received = Received(unjudged.digest, self._checksum, unjudged.headers, self._trace)
            # Whoever knows what it must be is heard first: of two that do not agree he says which one is wrong.
            await self._remote.verify(artifact, received)
            if problem is not None:
                raise problem
        except (UpstreamUnavailable, UpstreamTimeout):
            raise
        except Problem as problem:
            self._artifacts.is_wrong(artifact.path, problem)
            raise
        self._artifacts.is_right(artifact.path, unjudged.digest, self._checksum)

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        remote = self._remote
        await self._beside.kept()
        facts = replace(remote.format.facts(self._artifact, headers), checksum=self._checksum)
        await remote.put(remote.record_of(self._artifact, digest, facts, remote.upstream.name, size))
