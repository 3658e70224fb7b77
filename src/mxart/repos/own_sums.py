"""Our own checksum database: what every version was when it was first known here, for ever.

Theory of operation
-------------------
A client has one checksum database.  So ours tells of what is published in our local repositories, and of everything
else that a repository serves.  What is published is recorded before anybody can see it; whatever else is looked up is
recorded then, by what the repository itself makes of it: the first member of a group that answers for the module, and
where that is a proxy, what upstream's checksum database has proven (repos.sums).  Where there is none, the files
themselves are measured.  A record never changes: a version that was deleted stays recorded, so nothing else is ever
published, or found elsewhere, under its name.

Only whoever may read a module is told of its record, by a repository that could show it to him: records are found for
all repositories together, but a look-up in one of them says nothing of what is in another.  The hashes in tiles tell
nothing of what was hashed, and are for everybody.  The tiles of records would name all modules; no client needs them
(golang.org/x/mod/sumdb, Client), and there are none.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO, Literal

import trio
from msgspec import Struct

from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import BodyBroken, Conflict, Forbidden, NotFound, Problem, StorageFull, Unauthorized, UpstreamFailed
from mxart.message import Headers, Trace
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.go import requests
from mxart.repos.go.errors import TEXT
from mxart.repos.go.paths import escape
from mxart.repos.go.sums import Asked, Sums, SumsDocument, sums_text
from mxart.repos.go.trees import DATA, HEIGHT, WIDTH, Tile, Tree
from mxart.repos.go.zips import BadModule, check_zip, mod_hash
from mxart.repos.group import Group
from mxart.repos.operations import Artifact, Document, Found, Operation
from mxart.repos.own_keys import OwnKey, tree_of
from mxart.repos.publishing import Judgement
from mxart.repos.sums import Sums as Database
from mxart.store.record_log import Entry, Recorded, RecordLog

_log = logging.getLogger("mxart.sumdb")
_MEASURING = 2  # threads that read whole files, in one worker
_BYTES = "application/octet-stream"


class _Head(Struct, frozen=True):
    """A tree, and the note by which it is signed."""

    tree: Tree
    note: bytes


class OwnSums:
    """The database, as one worker has it: `answers.Deputy`, and `publishing.Registrar` of Go's local repositories."""

    def __init__(self, key: OwnKey, records: RecordLog, clock: Callable[[], float] = time.time) -> None:
        self.name = key.name
        self._key = key
        self._records = records
        self._clock = clock
        self._repositories: Mapping[str, Repository] = {}
        self._databases: dict[str, Database] = {}
        self._head: _Head | None = None
        self._measuring = trio.CapacityLimiter(_MEASURING)
        self._turns: dict[str, trio.Lock] = {}

    def serve(self, repositories: Mapping[str, Repository]) -> None:
        """Of these; more may come into the mapping."""
        self._repositories = repositories

    def believe(self, repository: str, database: Database) -> None:
        """What a proxy repository's upstream serves is what this says."""
        self._databases[repository] = database

    def close(self) -> None:
        """Let go of the log. Idempotent."""
        self._records.close()

    # answers

    def answers(self, operation: Operation) -> bool:
        """Whether this is a question to our database, whichever repository it was put to."""
        return isinstance(operation, SumsDocument) and operation.asked.database == self.name

    async def file(self, repository: Repository, document: Document, trace: Trace, caller: Caller) -> Found:
        """See Repository.file. Demands of the caller's grants what the question needs."""
        assert isinstance(document, SumsDocument), "`answers` said so"
        asked = document.asked
        trace.outcome = "local"
        match asked.kind:
            case "supported":
                return _found(b"", TEXT)
            case "latest":
                return _found((await self._signed()).note, TEXT)
            case "tile":
                return _found(self._tile(asked.tile), _BYTES, "public, max-age=86400")
            case "lookup":
                caller.grants.demand("read", repository.name, asked.module)
                recorded = await self._lookup(repository, document, trace, caller)
                head = await self._signed()
                return _found(b"%d\n%s\n%s" % (recorded.number, recorded.text, head.note), TEXT)

    def _tile(self, tile: Tile) -> bytes:
        if tile.level == DATA:
            raise Forbidden(
                f"{self.name} shows no records in tiles: they would name every module that is here;"
                " look-ups tell of one each",
                subject="sumdb",
            )
        hashes = self._records.row(tile.level * HEIGHT, tile.number * WIDTH, tile.width)
        if len(hashes) < tile.width:
            message = f"{self.name} has no {tile.path}: its tree has {self._records.size()} records"
            raise NotFound(message, subject="sumdb")
        return b"".join(hashes)

    async def _lookup(self, repository: Repository, document: SumsDocument, trace: Trace, caller: Caller) -> Recorded:
        asked = document.asked
        leaves = _leaves(repository, _file(asked, "mod"), caller)
        known = self._known(asked, leaves)
        if known is not None:
            return known
        async with self._turn(_name(asked.module, asked.version)):
            return self._known(asked, leaves) or await self._first(repository, leaves, document, trace, caller)

    def _known(self, asked: Asked, leaves: Sequence[Repository]) -> Recorded | None:
        """What is recorded, if one of these has had it."""
        recorded = self._records.find(_name(asked.module, asked.version))
        return recorded if recorded is not None and any(leaf.name in recorded.origins for leaf in leaves) else None

    async def _first(
        self,
        repository: Repository,
        leaves: Sequence[Repository],
        document: SumsDocument,
        trace: Trace,
        caller: Caller,
    ) -> Recorded:
        """Recorded by the word of the first that has it. Whoever fails is not passed over: it is for ever."""
        asked = document.asked
        absent: NotFound | None = None
        for leaf in leaves:
            try:
                sums = await self._sums(leaf, document, trace, caller)
            except NotFound as problem:
                absent = absent or problem
                continue
            found = await self._record(asked.module, asked.version, sums, leaf.name)
            trace.decided("%s@%s: number %d of %s", asked.module, asked.version, found.number, self.name)
            if found.text != sums_text(asked.module, asked.version, sums):
                raise self._contradicts(asked, leaf)
            return found
        raise absent or NotFound(f"{repository.name} has no {asked.module}", subject="sumdb")

    def _contradicts(self, asked: Asked, leaf: Repository) -> UpstreamFailed:
        message = (
            f"SECURITY: {asked.module}@{asked.version} of {leaf.name} is not what {self.name} has known it to be"
            " since it was first seen, in another repository here; a version is one thing for ever"
        )
        _log.error("%s", message)
        return UpstreamFailed(message, subject="sumdb")

    async def _record(self, module: str, version: str, sums: Sums, origin: str) -> Recorded:
        name = _name(module, version)
        return await self._records.append(Entry(name, sums_text(module, version, sums), origin, self._clock()))

    async def _signed(self) -> _Head:
        """The whole tree. Nothing smaller is shown than before: nothing leaves the log."""
        size = self._records.size()
        head = self._head
        if head is not None and head.tree.size >= size:
            return head
        tree = tree_of(self._records, size)
        try:
            await trio.to_thread.run_sync(self._key.note, tree)
        except OSError as error:
            message = f"the tree of {self.name} cannot be noted: {error.strerror}"
            raise StorageFull(message, subject="sumdb") from error
        new = _Head(tree, self._key.signer.sign(str(tree)))
        if self._head is None or self._head.tree.size < size:
            self._head = new
        return new

    # what a repository has

    async def _sums(self, leaf: Repository, document: SumsDocument, trace: Trace, caller: Caller) -> Sums:
        """Of a version. Raises NotFound where the repository does not have it."""
        asked = document.asked
        database = self._databases.get(leaf.name)
        if database is not None and not document.kept and caller.grants.may("fetch", leaf.name, asked.module):
            known = await database.known(asked.module, asked.version, trace)
            if known is not None:
                return known
        return await self._measured(leaf, asked, trace, caller, kept=document.kept)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One task of this worker's at a time for each version: the others find what it has recorded."""
        lock = self._turns.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody else waits for it
                self._turns.pop(name, None)

    async def _measured(
        self, leaf: Repository, asked: Asked, trace: Trace, caller: Caller, *, kept: bool = False
    ) -> Sums:
        """By its files, which come from upstream if need be."""
        found = await leaf.file(_file(asked, "mod", kept=kept), trace, caller)
        mod = found.content
        assert isinstance(mod, bytes), "a document's content is bytes"
        found = await leaf.file(_file(asked, "zip", kept=kept), trace, caller)
        try:
            file, size = await _whole(found)
            check = partial(check_zip, file, size, asked.module, asked.version)
            checksum = await trio.to_thread.run_sync(check, limiter=self._measuring)
        except BadModule as error:
            message = f"the zip of {asked.module}@{asked.version} in {leaf.name} is refused: {error}"
            raise UpstreamFailed(message, subject="zip") from None
        except BodyBroken as error:
            message = f"the zip of {asked.module}@{asked.version} broke off in {leaf.name}: {error}"
            raise UpstreamFailed(message, subject="zip") from None
        finally:
            found.close()
        return Sums(checksum, mod_hash(mod))

    # publishing

    async def enter(self, repository: str, judgement: Judgement) -> None:
        """Record a version that is about to be published. Raises Conflict if it is something else already."""
        module, version = judgement.package, judgement.tag[0]
        mod = next(item.data for item in judgement.derived if item.path.endswith(".mod"))
        sums = Sums(judgement.checksum, mod_hash(mod))
        recorded = await self._record(module, version, sums, repository)
        if recorded.text != sums_text(module, version, sums):
            where = "" if repository in recorded.origins else ", in another repository"
            raise Conflict(
                f"{module} {version} was something else when it was first known here{where}:"
                " publish this as a new version",
                subject="zip",
                detail=f"the checksum database {self.name} keeps what it was for ever, though it may be deleted,"
                " and clients refuse any other content",
            )

    async def leaving(self, repository: str, path: str, trace: Trace) -> str:
        """See that a version that is about to be deleted is recorded. What that means is for the client's user."""
        wanted = requests.read(path)
        module, version = wanted.module, wanted.version
        if self._records.find(_name(module, version)) is None:
            asked = Asked(self.name, "lookup", "", module, version)
            try:
                sums = await self._measured(self._repositories[repository], asked, trace, Caller())
            except NotFound:
                return ""
            except Problem as problem:  # its bytes are lost: it may go all the same
                _log.warning("%s: %s %s is deleted, and was not recorded: %s", repository, module, version, problem)
                return ""
            await self._record(module, version, sums, repository)
        return (
            f"the checksum database {self.name} goes on knowing {module} {version}:"
            " it can be published again as it was, and never with other content"
        )


def _name(module: str, version: str) -> str:
    return f"{module}@{version}"


def _file(asked: Asked, kind: Literal["mod", "zip"], *, kept: bool = False) -> Document | Artifact:
    path = f"{escape(asked.module)}/@v/{escape(asked.version)}.{kind}"
    if kind == "zip":
        return Artifact(asked.module, path, kind, kept=kept)
    return Document(asked.module, path, kind, mutable=False, small=True, kept=kept)


def _leaves(repository: Repository, file: Document | Artifact, caller: Caller) -> Sequence[Repository]:
    """Who answers for a module, in order: as a group asks its members, and only those that the caller may read.

    Raises Unauthorized or Forbidden where that is nobody.
    """
    if not isinstance(repository, Group):
        return (repository,)
    found: list[Repository] = []
    refused: Problem | None = None
    for member in repository.candidates(file, caller):
        try:
            found += _leaves(member, file, caller)
        except (Unauthorized, Forbidden) as problem:
            refused = refused or problem
    if not found and refused is not None:
        raise refused
    return found


def _found(data: bytes, media_type: str, caching: str = "no-cache") -> Found:
    digest = Digest.of(data)
    fields = (("content-type", media_type), ("x-content-type-options", "nosniff"), ("cache-control", caching))
    return Found(digest, len(data), data, Headers(fields), f'"{digest.hex[:32]}"')


async def _whole(found: Found) -> tuple[BinaryIO, int]:
    """A file to read, once all of it is there; the source stays the caller's. Raises BodyBroken."""
    content = found.content
    if isinstance(content, bytes):
        return io.BytesIO(content), len(content)
    assert content is not None, "it was asked for by GET"
    offset = 0
    while (end := await content.available(offset)) > offset:
        offset = end
    return io.BufferedReader(_Reading(content, offset), 256 << 10), offset


class _Reading(io.RawIOBase):
    """A source as a file of its own: others read from the same descriptor."""

    def __init__(self, source: Source, size: int) -> None:
        self._descriptor = source.fileno()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's buffer has no assignment
        data = os.pread(self._descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
