"""What a checksum database says of upstream's modules: asked, proven, kept, and passed on to clients.

A look-up is kept for good once its signature, the place of its tree on the line (timeline) and the place of its record
in the tree are proven; from then on nobody need be asked, so modules are verified offline as well.  Private modules are
never named to the database, whoever asks: the go command cannot learn from a proxy which ones are, so it is told.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import Forbidden, NotFound, Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.flights import Flights, free_turn
from mxart.repos.go import requests
from mxart.repos.go.notes import VerifierKey
from mxart.repos.go.sums import MAX_LOOKUP, Asked, Private, Record, SumsDocument, lookup_path
from mxart.repos.go.sums import Sums as Checksums
from mxart.repos.go.trees import DATA, HASH, Tile, record_hash, records_of
from mxart.repos.operations import Artifact, Document, Found
from mxart.repos.remote import OFFLINE_WARNING, Received, Remote, flight_of, stale_warning
from mxart.repos.sources import Sources, Way
from mxart.repos.timeline import BYTES, TEXT, Head, Timeline
from mxart.store.base import FileRecord

_HELD = 30.0  # seconds until what was found wrong is fetched again; never longer than the negative ttl
_MAX_HELD = 1024
_log = logging.getLogger("mxart.sumdb")


class NoSums(Struct, frozen=True):
    """`sumdb = "off"`: upstream is believed, and clients ask the database elsewhere. See remote.Verifier."""

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        """Nobody is asked."""

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> Found | None:
        if isinstance(document, SumsDocument):
            raise NotFound("no checksum database is passed on here", subject="sumdb")
        return None


class Sums:
    """See remote.Verifier. One database, as one repository's proxy sees it."""

    def __init__(self, key: VerifierKey, private: Private, remote: Remote, ways: Sequence[Way]) -> None:
        """`remote` is the repository's own; `ways` lead to the database."""
        self._name = key.name
        self._private = private
        self._remote = remote
        self._sources = Sources(ways)
        self._timeline = Timeline(key, remote, self._sources)
        self._lookups: Flights[bytes] = Flights(remote.nursery, free_turn)
        self._heads: Flights[Head] = Flights(remote.nursery, free_turn)
        self._wrong: OrderedDict[str, tuple[float, UpstreamFailed]] = OrderedDict()
        self._asked_at = float("-inf")  # when upstream was last asked for its newest tree

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        checksum = received.checksum
        wanted = requests.read(operation.path)
        module, version = wanted.module, wanted.version
        if module in self._private:
            return
        try:
            record = Record.parse(await self._lookup(module, version, Trace()))
        except NotFound:
            raise UpstreamFailed(
                f"{self._name} does not know {module}@{version}, so nobody can tell whether this is it;"
                " if it is yours, name it in `private` of the repository",
                subject=operation.subject,
            ) from None
        sums = record.sums(module, version)
        right = sums.mod if wanted.kind == "mod" else sums.zip
        if checksum == right:
            return
        what = "go.mod" if wanted.kind == "mod" else "zip"
        message = (
            f"SECURITY: upstream's {what} of {module}@{version} is not the one that {self._name} knows:"
            f" it has {checksum}, and should have {right}"
        )
        _log.error("%s: %s; it is not kept", self._remote.name, message)
        problem = UpstreamFailed(message, subject=operation.subject)
        self._wrong.pop(operation.path, None)
        self._wrong[operation.path] = (self._remote.clock(), copy.copy(problem))
        if len(self._wrong) > _MAX_HELD:
            self._wrong.popitem(last=False)
        raise problem

    async def known(self, module: str, version: str, trace: Trace) -> Checksums | None:
        """What the database says of a version; None: it is not asked about it, for that is private.

        Raises NotFound where it does not know it, and as `verify` does.
        """
        if module in self._private:
            return None
        return Record.parse(await self._lookup(module, version, trace)).sums(module, version)

    def _refuse_wrong(self, path: str) -> None:
        """Raise again what was found wrong a moment ago: it is not fetched for everybody who asks again."""
        if (entry := self._wrong.get(path)) is None:
            return
        since, problem = entry
        if 0 <= self._remote.clock() - since < min(_HELD, self._remote.rules.negative_ttl):
            raise copy.copy(problem)
        del self._wrong[path]

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> Found | None:
        if not isinstance(document, SumsDocument):
            self._refuse_wrong(document.path)
            return None
        asked = document.asked
        if asked.module and asked.module in self._private:
            patterns = ",".join(self._private.patterns)
            raise Forbidden(
                f"{asked.module} is private here, and its name is told to no checksum database but this server's own"
                f" (`mxart setup go` prints its GOSUMDB): else set GONOSUMDB={patterns}"
                " (GOPRIVATE would lead the go command past this server, too)",
                subject="sumdb",
            )
        if asked.database != self._name:
            raise NotFound(f"{asked.database[:200]} is not passed on here, {self._name} is", subject="sumdb")
        match asked.kind:
            case "supported":
                return self._describe(document, b"", TEXT)
            case "lookup":
                return await self._lookup_found(document, remote, trace)
            case "latest":
                return await self._latest(document, remote, trace)
            case "tile":
                return await self._tile(document, remote, trace)

    # look-ups

    async def _lookup_found(self, document: SumsDocument, remote: Remote, trace: Trace) -> Found:
        asked = document.asked
        known = remote.shelf.look(document.path)
        if known is not None and (found := await remote.shelf.take(document, known, remote.clock())) is not None:
            trace.outcome = "hit"
            return found
        _refuse_offline(remote, asked)
        trace.outcome = "miss"
        return self._describe(document, await self._lookup(asked.module, asked.version, trace), TEXT)

    async def _lookup(self, module: str, version: str, trace: Trace) -> bytes:
        """A proven one. Raises NotFound, UpstreamFailed, UpstreamUnavailable, UpstreamTimeout."""
        remote = self._remote
        path = f"sumdb/{self._name}/{lookup_path(module, version)}"
        record = remote.stock.catalog.file(remote.name, path)
        if record is not None:
            data = await remote.stock.blobs.read(record.digest, MAX_LOOKUP)
            if data is not None:
                remote.stock.catalog.used(remote.name, path, remote.clock())
                return data
        remote.refuse_missing(path, "sumdb", trace)
        self._timeline.refuse_forked()
        work = partial(self._obtain, module, version, path, trace)
        data, _ = await self._lookups.join_early(flight_of(path, trace), work)
        return data

    async def _obtain(self, module: str, version: str, path: str, trace: Trace, tell: Callable[[bytes], None]) -> bytes:
        """From the database. It is told when it is proven, and kept behind (module behind)."""
        remote = self._remote
        try:
            data = await self._sources.fetch(lookup_path(module, version), MAX_LOOKUP, trace)
        except NotFound:
            await remote.note_missing(path)
            raise
        try:
            record = Record.parse(data)
            record.sums(module, version)
        except ValueError as error:
            raise self._bad(f"{module}@{version}", str(error)) from None
        head = await self._timeline.admit(record.note, trace)
        if record.number >= head.tree.size:
            raise self._bad(f"{module}@{version}", f"a tree of {head.tree.size} records has no {record.number}")
        proven = await self._timeline.prove(head, [(0, record.number)], (), trace)
        if proven.hashes != [record_hash(record.text)]:
            raise self._bad(f"{module}@{version}", f"the record is not number {record.number} of its signed tree")
        behind = remote.stock.behind
        if not behind.begin(remote.name, path):
            await self._keep(path, data)
            return data
        try:
            tell(data)
            await self._keep(path, data)
        finally:
            behind.end(remote.name, path)
        return data

    async def _keep(self, path: str, data: bytes) -> None:
        remote = self._remote
        with remote.tolerant(path):
            digest = await remote.stock.blobs.put(data)
            now = remote.clock()
            await remote.stock.catalog.put_file(
                FileRecord(
                    remote.name, f"sumdb/{self._name}", path, digest, len(data), TEXT, created=now, validated=now
                )
            )

    def _bad(self, what: str, why: str) -> UpstreamFailed:
        return UpstreamFailed(f"what {self._name} says of {what} is not to be believed: {why}", subject="sumdb")

    # the tree

    async def _latest(self, document: SumsDocument, remote: Remote, trace: Trace) -> Found:
        head = await self._timeline.head()
        if remote.rules.offline:
            if head is None:
                _refuse_offline(remote, document.asked)
            else:
                return self._describe(document, head.note, TEXT, OFFLINE_WARNING)
        fresh = 0 <= remote.clock() - self._asked_at < remote.rules.ttl
        if head is not None and fresh:
            return self._describe(document, head.note, TEXT)
        try:
            return self._describe(document, (await self._newest(trace)).note, TEXT)
        except Problem as problem:
            if head is None:
                raise
            trace.outcome = "stale"
            return self._describe(document, head.note, TEXT, stale_warning(problem))

    async def _newest(self, trace: Trace) -> Head:
        """Upstream's newest tree, or ours if that is newer. Raises UpstreamFailed, and as Sources.fetch does."""

        async def work() -> Head:
            head = await self._timeline.admit(await self._sources.fetch("latest", MAX_LOOKUP, trace), trace)
            self._asked_at = self._remote.clock()
            return head

        self._timeline.refuse_forked()
        try:
            head, _ = await self._heads.join(flight_of("latest", trace), work)
        except NotFound:
            raise UpstreamFailed(f"{self._name} has no newest tree", subject="sumdb") from None
        return head

    async def _tile(self, document: SumsDocument, remote: Remote, trace: Trace) -> Found:
        """Proven for the newest tree, and cut: what a tile begins with never changes."""
        tile = document.asked.tile
        hashes = Tile(max(0, tile.level), tile.number, tile.width)
        kept = None if tile.level == DATA else await self._timeline.kept(hashes)
        if kept is not None:
            trace.outcome = "hit"
            return self._describe(document, kept, BYTES)
        _refuse_offline(remote, document.asked)
        trace.outcome = "miss"
        self._timeline.refuse_forked()
        head = await self._timeline.head()
        if head is None or not _has(head, hashes):
            head = await self._newest(trace)
        if not _has(head, hashes):
            raise NotFound(f"{self._name} has no {tile.path}: its tree has {head.tree.size} records", subject="sumdb")
        proven = await self._timeline.prove(head, (), [hashes], trace)
        data = next(data for found, data in proven.tiles.items() if found.full == hashes.full)
        data = data[: hashes.width * HASH]
        if tile.level != DATA:
            return self._describe(document, data, BYTES)
        texts = await self._timeline.records(tile, trace)
        return self._describe(document, self._records(tile, texts, data), TEXT)

    def _records(self, tile: Tile, texts: bytes, hashes: bytes) -> bytes:
        """As many records as the tile has, each of which has the hash that the tree says."""
        try:
            records = records_of(texts)[: tile.width]
        except ValueError as error:
            raise self._bad(tile.path, str(error)) from None
        if b"".join(map(record_hash, records)) != hashes:
            raise self._bad(tile.path, "the records are not those of its signed tree")
        return b"".join(record + b"\n" for record in records)

    def _describe(self, document: SumsDocument, data: bytes, media_type: str, warning: str = "") -> Found:
        remote = self._remote
        now = remote.clock()
        digest = Digest.of(data)
        record = FileRecord(remote.name, document.package, document.path, digest, len(data), media_type, validated=now)
        return remote.shelf.describe(document, record, data, size=len(data), warning=warning, now=now)


def _has(head: Head, tile: Tile) -> bool:
    found = tile.within(head.tree.size)
    return found is not None and found.width >= tile.width


def _refuse_offline(remote: Remote, asked: Asked) -> None:
    if remote.rules.offline:
        message = f"repository {remote.name} is offline, and {asked.path} is not kept here"
        raise UpstreamUnavailable(message, subject="sumdb")
