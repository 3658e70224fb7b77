"""In-memory stand-ins for the store and the upstream: they keep the protocols' promises, and count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO

import trio
from msgspec.structs import replace

from kit.bodies import GivenBody
from kit.changing import FakeChanges
from kit.publishing import FakePublications, FakeUploads
from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import BodyBroken, NotFound, Problem, StorageFull, UpstreamFailed
from mxart.message import Headers, Peer, Request, Response, Trace
from mxart.repos.answers import Deputy, answer
from mxart.repos.base import Format, Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.go.format import Go
from mxart.repos.local import Local
from mxart.repos.oci.format import Oci
from mxart.repos.proxy import Proxy
from mxart.repos.publishing import Registrar
from mxart.repos.remote import Rules, Verifier
from mxart.repos.stock import Memory, Stock
from mxart.store.base import FileRecord, Joined, Naming, Origin, Sink, Unjudged, VersionRecord
from mxart.upstream.base import Ask, Reply


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


class MemoryFile:
    """A Source over bytes that may still grow. The last byte is withheld until the end is verified."""

    def __init__(self, growing: Growing, opened: set[MemoryFile]) -> None:
        self._growing = growing
        self._opened = opened
        self._copy: IO[bytes] | None = None
        opened.add(self)

    def fileno(self) -> int:
        """Of a copy, made when somebody wants to read it that way; it goes with the last reader."""
        if self._copy is None:
            self._copy = TemporaryFile()  # noqa: SIM115 closed below
            self._copy.write(self._growing.data)
            self._copy.flush()
        return self._copy.fileno()

    @property
    def total(self) -> int | None:
        return self._growing.total

    def ready(self, offset: int) -> int:
        return max(offset, self._growing.shown())

    async def available(self, offset: int) -> int:
        await trio.lowlevel.checkpoint()
        while True:
            end = self._growing.shown()
            if end > offset or self._growing.complete:
                return max(end, offset)
            await self._growing.change.wait()

    def read(self, offset: int, end: int) -> bytes:
        assert end <= self._growing.shown()
        return bytes(self._growing.data[offset:end])

    def close(self) -> None:
        self._opened.discard(self)
        if self._copy is not None:
            self._copy.close()
            self._copy = None


class Growing:
    """A download, or a finished file."""

    def __init__(self, data: bytes = b"", *, complete: bool = False) -> None:
        self.data = bytearray(data)
        self.total: int | None = len(data) if complete else None
        self.headers: Headers | None = Headers() if complete else None
        self.complete = complete
        self.digest: Digest | None = None
        self.problem: Problem | None = None
        self.change = trio.Event()

    def shown(self) -> int:
        if self.problem is not None:
            raise BodyBroken(self.problem.message)
        return len(self.data) if self.complete else max(0, len(self.data) - 1)

    def tell(self) -> None:
        self.change.set()
        self.change = trio.Event()


class _Sink:
    def __init__(self, growing: Growing) -> None:
        self._growing = growing

    @property
    def offset(self) -> int:
        return len(self._growing.data)

    @property
    def headers(self) -> Headers | None:
        return self._growing.headers

    def begin(self, total: int | None, headers: Headers) -> None:
        self._growing.total = total
        self._growing.headers = headers
        self._growing.tell()

    async def write(self, chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._growing.data += chunk
        self._growing.tell()


class FakeBlobs:
    """`Blobs` in a dict. `opened` are the sources that nobody has closed yet; `full` makes every put fail."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}
        self.opened: set[MemoryFile] = set()
        self.full = False
        self.reads = 0
        self.opens = 0

    def open(self, digest: Digest) -> Source | None:
        self.opens += 1
        data = self.kept.get(digest)
        return None if data is None else MemoryFile(Growing(data, complete=True), self.opened)

    async def read(self, digest: Digest, max_bytes: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        data = self.kept.get(digest)
        return data if data is not None and len(data) <= max_bytes else None

    async def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise StorageFull("no space left")
        own = Digest.of(data, digest.algorithm if digest is not None else "sha256")
        if digest is not None and own != digest:
            raise ValueError(f"{own} is not {digest}")
        self.kept[own] = data
        return own

    def has(self, digest: Digest) -> bool:
        return digest in self.kept


class FakeTransfers:
    """`Transfers` in memory, in a nursery of the server's."""

    def __init__(self, blobs: FakeBlobs, nursery: trio.Nursery) -> None:
        self._blobs = blobs
        self._nursery = nursery
        self.running: dict[Digest, Growing] = {}
        self.named: dict[str, Growing] = {}
        self.leftovers: dict[Digest, tuple[bytes, Headers]] = {}  # partial files of a process that was killed

    async def join(self, digest: Digest, size: int | None, origin: Origin) -> Joined:
        stored = self._blobs.open(digest)
        if stored is not None:
            return Joined(stored, Headers(), started=False)
        growing = self.running.get(digest)
        started = growing is None
        if growing is None:
            data, headers = self.leftovers.pop(digest, (b"", None))
            growing = self.running[digest] = Growing(data)
            growing.headers = headers
            self._nursery.start_soon(self._run, digest, growing, origin)
        while growing.headers is None:
            if growing.problem is not None:
                raise growing.problem
            await growing.change.wait()
        return Joined(MemoryFile(growing, self._blobs.opened), growing.headers, started)

    async def join_named(self, key: str, origin: Origin, naming: Naming) -> Joined:
        digest = naming.find()
        stored = self._blobs.open(digest) if digest is not None else None
        if stored is not None:
            return Joined(stored, Headers(), started=False, digest=digest)
        growing = self.named.get(key)
        started = growing is None
        if growing is None:
            growing = self.named[key] = Growing()
            self._nursery.start_soon(self._run_named, key, growing, origin, naming)
        while not growing.data and not growing.complete:
            if growing.problem is not None:
                raise growing.problem
            await growing.change.wait()
        assert growing.headers is not None
        return Joined(MemoryFile(growing, self._blobs.opened), growing.headers, started, growing.digest)

    async def _run_named(self, key: str, growing: Growing, origin: Origin, naming: Naming) -> None:
        try:
            sink: Sink = _Sink(growing)
            await origin(sink)
            data = bytes(growing.data)
            assert growing.headers is not None
            digest = Digest.of(data)
            with BytesIO(data) as file:
                await naming.judge(Unjudged(file, len(data), digest, growing.headers))
            growing.digest = digest
            growing.complete = True
            growing.total = len(data)
            growing.tell()
            await naming.record(digest, len(data), growing.headers)
            self._blobs.kept[digest] = data
        except StorageFull:
            pass  # not kept
        except Problem as problem:
            growing.problem = problem
        finally:
            del self.named[key]
            growing.tell()

    async def _run(self, digest: Digest, growing: Growing, origin: Origin) -> None:
        try:
            sink: Sink = _Sink(growing)
            await origin(sink)
            if Digest.of(bytes(growing.data), digest.algorithm) != digest:
                raise UpstreamFailed("the digest is wrong")
            growing.complete = True
            growing.total = len(growing.data)
            self._blobs.kept[digest] = bytes(growing.data)
        except Problem as problem:
            growing.problem = problem
        finally:
            del self.running[digest]
            growing.tell()


class FreeTurns:
    """A single worker: every name is free."""

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        yield


class FakeCatalog:
    """`Catalog` in dicts. Every write moves the generation."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], FileRecord] = {}
        self.tag_names: dict[tuple[str, str], dict[str, VersionRecord]] = {}
        self.absent: dict[tuple[str, str], float] = {}
        self.uses: Counter[tuple[str, str]] = Counter()
        self.writes = 0

    def generation(self) -> int:
        return self.writes

    def file(self, repository: str, path: str) -> FileRecord | None:
        return self.files.get((repository, path))

    async def put_file(self, record: FileRecord) -> None:
        await trio.lowlevel.checkpoint()
        self.files[record.repository, record.path] = record
        self.writes += 1

    async def forget_file(self, repository: str, path: str) -> None:
        await trio.lowlevel.checkpoint()
        self.files.pop((repository, path), None)
        self.writes += 1

    async def put_tag(self, repository: str, package: str, tag: str, record: FileRecord) -> None:
        await self.put_file(record)
        tags = self.tag_names.setdefault((repository, package), {})
        tags[tag] = VersionRecord(tag, record.digest, record.created)

    def tags(self, repository: str, package: str, after: str, limit: int) -> list[VersionRecord]:
        tags = self.tag_names.get((repository, package), {})
        return [tags[name] for name in sorted(tags) if name > after][:limit]

    def has_package(self, repository: str, package: str) -> bool:
        return any(key == repository and record.package == package for (key, _), record in self.files.items())

    def packages(self, repository: str, after: str, limit: int) -> list[str]:
        names = {record.package for (key, _), record in self.files.items() if key == repository}
        return [name for name in sorted(names) if name > after][:limit]

    def missing(self, repository: str, path: str, now: float) -> bool:
        return self.absent.get((repository, path), 0.0) > now

    async def put_missing(self, repository: str, path: str, until: float) -> None:
        await trio.lowlevel.checkpoint()
        self.absent[repository, path] = until
        self.writes += 1

    def used(self, repository: str, path: str, now: float) -> None:
        self.uses[repository, path] += 1


@dataclass
class Answer:
    """What the fake upstream says to one path. A HEAD gets the same fields and no body."""

    body: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200
    problem: Problem | None = None  # raised before any head
    broken: Problem | None = None  # raised in place of the body's second half
    gate: trio.Event | None = None  # the head waits for it
    body_gate: trio.Event | None = None  # the body's second half waits for it
    origin: str = "https://registry.example"  # the mirror that says it


class _Reply:
    def __init__(self, method: str, answer: Answer) -> None:
        self.origin = answer.origin
        self.status = answer.status
        self.headers = Headers(answer.fields)
        self._answer = answer
        half = len(answer.body) // 2
        self._chunks = [answer.body[:half], answer.body[half:]] if method == "GET" else []
        self._sent = 0

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._chunks:
            self._sent += 1
            if self._sent == 2:
                if self._answer.body_gate is not None:
                    await self._answer.body_gate.wait()
                if self._answer.broken is not None:
                    raise self._answer.broken
            chunk = self._chunks.pop(0)
            if chunk:
                return chunk
        return b""


class FakeUpstream:
    """A registry that remembers what it was asked. `trouble` answers everything with one Problem."""

    name = "registry.example"
    site = "https://registry.example"

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.asks: list[Ask] = []
        self.trouble: Problem | None = None
        self.open_replies = 0

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        self.asked.append(f"{ask.method} {ask.path}")
        self.asks.append(ask)
        await trio.lowlevel.checkpoint()
        if self.trouble is not None:
            raise self.trouble
        answer = self.answers.get(ask.path) or Answer(b"404 page not found\n", status=404)
        if answer.status == 404 and 404 not in ask.expects:
            raise NotFound(f"{self.name} has no {ask.path}")
        if answer.status not in (200, *ask.expects):
            raise UpstreamFailed(f"{self.name} answers {answer.status} to {ask.path}")
        if answer.gate is not None:
            await answer.gate.wait()
        if answer.problem is not None:
            raise answer.problem
        self.open_replies += 1
        try:
            yield _Reply(ask.method, answer)
        finally:
            self.open_replies -= 1

    def origin(self, ask: Ask) -> Origin:
        """What upstream.download does, without its resuming."""

        async def deliver(sink: Sink) -> None:
            if sink.headers is not None and sink.offset == int(sink.headers.get("content-length") or -1):
                sink.begin(sink.offset, sink.headers)
            else:
                await transfer(sink)

        async def transfer(sink: Sink) -> None:
            async with self.open(ask) as reply:
                length = reply.headers.get("content-length")
                sink.begin(int(length) if length is not None else None, reply.headers)
                skip = sink.offset
                while chunk := await reply.receive():
                    await sink.write(chunk[skip:])
                    skip = max(0, skip - len(chunk))

        return deliver

    def count(self, method: str) -> int:
        return sum(line.startswith(method + " ") for line in self.asked)

    # what a registry holds

    def add_manifest(self, name: str, data: bytes, *tags: str, media_type: str) -> Digest:
        digest = Digest.of(data)
        fields = [
            ("content-type", media_type),
            ("content-length", str(len(data))),
            ("docker-content-digest", str(digest)),
        ]
        for reference in (*tags, str(digest)):
            self.answers[f"v2/{name}/manifests/{reference}"] = Answer(data, list(fields))
        return digest

    def add_blob(self, name: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        fields = [("content-type", "application/octet-stream"), ("content-length", str(len(data)))]
        self.answers[f"v2/{name}/blobs/{digest}"] = Answer(data, fields)
        return digest


def manifest(mark: str = "", media_type: str = "application/vnd.oci.image.manifest.v1+json") -> bytes:
    """A manifest that is well formed; `mark` makes it different from others. Its white space must survive."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "0" * 64, "size": 2},
            "layers": [],
            "annotations": {"mark": mark},
            "unknownField": [1.50, "ü"],
        },
        indent=3,
        ensure_ascii=False,
    ).encode()


def request(method: str, target: str, *fields: tuple[str, str]) -> Request:
    return Request(method, target, "registry.test", Headers(fields), Peer("127.0.0.1", 4711))


async def body_of(response: Response) -> bytes:
    """Everything that a client would receive; closes the body. Raises BodyBroken as the wire would learn it."""
    pieces: list[bytes] = []
    try:
        for segment in response.body.segments:
            if isinstance(segment, bytes):
                pieces.append(segment)
                continue
            source = segment.source
            assert isinstance(source, MemoryFile)
            offset = segment.offset
            end = None if segment.length is None else offset + segment.length
            while end is None or offset < end:
                until = await source.available(offset)
                if until == offset:
                    break
                if end is not None:
                    until = min(until, end)
                pieces.append(source.read(offset, until))
                offset = until
    finally:
        response.body.close()
    return b"".join(pieces)


def fields_of(response: Response, *names: str) -> list[str | None]:
    return [response.headers.get(name) for name in names]


class SlowDisk(FakeBlobs):
    """`put` takes as long as the test wants, and then fails as it wants."""

    def __init__(self) -> None:
        super().__init__()
        self.turning = trio.Event()
        self.begun = 0
        self.problem: Problem | None = None

    async def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        self.begun += 1
        await self.turning.wait()
        if self.problem is not None:
            raise self.problem
        return await super().put(data, digest)


class Alone(Go):
    """A format whose large files have nothing beside them."""

    gathering = None


class World:
    """One worker's parts, and repositories made of them; `upstream` is what every proxy asks unless told otherwise."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.clock = Clock()
        self.blobs = FakeBlobs()
        self.catalog = FakeCatalog()
        self.transfers = FakeTransfers(self.blobs, nursery)
        self.publications = FakePublications(self.catalog)
        self.changes = FakeChanges(self.catalog)
        self.uploads = FakeUploads(self.blobs)
        self.upstream = FakeUpstream()
        self.stock = self.worker()
        self.deputy: Deputy | None = None

    def worker(self) -> Stock:
        """The store as another worker sees it: the same bytes and names, a memory of its own."""
        return Stock(
            self.blobs,
            self.transfers,
            self.catalog,
            self.publications,
            self.changes,
            self.uploads,
            FreeTurns(),
            Memory(),
        )

    def proxy(
        self,
        name: str = "hub",
        *,
        url: str = "https://registry.example",
        upstream: FakeUpstream | None = None,
        rules: Rules | None = None,
        stock: Stock | None = None,
        form: Format | None = None,
        verifier: Verifier | None = None,
    ) -> Proxy:
        upstream = upstream or self.upstream
        return Proxy(
            name,
            form or Oci((url,)),
            upstream,
            stock or self.stock,
            nursery=self.nursery,
            origin=upstream.origin,
            rules=rules or Rules(),
            clock=self.clock,
            verifier=verifier,
        )

    def local(
        self,
        name: str = "own",
        lends: Callable[[str], bool] = lambda repository: False,
        form: Format | None = None,
        max_upload: int | None = None,
        registrar: Registrar | None = None,
    ) -> Local:
        return Local(name, form or Oci(), self.stock, self.clock, lends, max_upload, registrar=registrar)

    def publish(self, repository: str, package: str, path: str, data: bytes, media_type: str) -> Digest:
        """What a push will leave behind: a blob and a name, and a tag where the path ends in one."""
        digest = Digest.of(data)
        now = self.clock()
        self.blobs.kept[digest] = data
        record = FileRecord(
            repository, package, path.format(digest), digest, len(data), media_type, created=now, validated=now
        )
        self.catalog.files[repository, record.path] = record
        reference = record.path.rpartition("/")[2]
        if "/manifests/" in record.path and ":" not in reference:
            tags = self.catalog.tag_names.setdefault((repository, package), {})
            tags[reference] = VersionRecord(reference, digest, now)
        self.catalog.writes += 1
        return digest

    async def ask(
        self,
        repository: Repository,
        target: str,
        *fields: tuple[str, str],
        method: str = "GET",
        caller: Caller = NOBODY,
    ) -> tuple[Response, Trace]:
        """The way of the server: parse, answer, word what goes wrong."""
        asked = request(method, target, *fields)
        return await self._answer(repository, asked, asked.path, caller), asked.trace

    async def send(
        self,
        repository: Repository,
        method: str,
        target: str,
        body: bytes | GivenBody = b"",
        *fields: tuple[str, str],
        below: str = "",
        caller: Caller = NOBODY,
    ) -> Response:
        """The same with a body. `below` is what the router leaves of the path."""
        sent = body if isinstance(body, GivenBody) else GivenBody(body)
        asked = replace(request(method, target, *fields), body=sent)
        return await self._answer(repository, asked, below or asked.path, caller)

    async def _answer(self, repository: Repository, asked: Request, path: str, caller: Caller) -> Response:
        try:
            operation = repository.format.parse(asked.method, path, asked.query, asked.headers)
            return await answer(repository, operation, asked, caller, deputy=self.deputy)
        except Problem as problem:
            return repository.format.word(problem)


def code_of(response: Response) -> str:
    """The code of an error body of the registry API."""
    (segment,) = response.body.segments
    assert isinstance(segment, bytes)
    (error,) = json.loads(segment)["errors"]
    assert error["message"]
    return str(error["code"])
