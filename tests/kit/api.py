"""The API of one worker on a real catalog, asked as the wire would ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import trio

from kit.schemas import faults
from kit.wire import PEER
from mxart.access import schema
from mxart.access.audit import Audit
from mxart.access.base import ACTIONS, Action
from mxart.access.control import Access, rules_of
from mxart.access.directory import Directory
from mxart.access.management import Management
from mxart.app_space import retire_one
from mxart.config import Config
from mxart.config_file import decode
from mxart.digest import Digest
from mxart.errors import Forbidden, Problem
from mxart.message import Headers, Request, Response
from mxart.metrics import Metrics
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.local import Local
from mxart.repos.oci.format import Oci
from mxart.repos.stock import Memory, Stock
from mxart.server.handler import Gate
from mxart.server.metrics import families
from mxart.server.own import OwnPages
from mxart.server.routes import Routes
from mxart.store.base import FileRecord
from mxart.store.blobs import DiskBlobs
from mxart.store.catalog import SqliteCatalog
from mxart.store.changing import SqliteChanges
from mxart.store.contents import Contents
from mxart.store.paths import DataPaths, JobPaths, StorePaths
from mxart.store.publications import SqlitePublications
from mxart.store.space.task import Freed, Report, Retired, Tell
from mxart.store.transfers import DiskTransfers
from mxart.store.turns import FileTurns
from mxart.store.uploads import DiskUploads
from mxart.upstream.dial import Dialer
from mxart.web.api import Api
from mxart.web.jobs import Jobs
from mxart.web.openapi import document
from mxart.web.prefix import PREFIX
from mxart.web.replication import Copying
from mxart.web.table import Services, make_api

CONFIG = """
[replicate]
targets = ["http://127.0.0.1:9"]
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry.example"
max_bytes = "1GiB"
hosts = ["docker.io"]
path = "/docker.io"
[repository.own]
format = "oci"
kind = "local"
path = "/"
quota = "1MiB"
retention = [{ packages = "team/**", tags = "v*", keep = 2 }]
[repository.all]
format = "oci"
kind = "group"
members = ["own", "hub"]
[[permission]]
repository = "own"
path = "secret/**"
users = ["adam"]
actions = ["read"]
[[permission]]
repository = "own"
path = "secret/**"
groups = "anonymous"
effect = "deny"
actions = ["publish", "overwrite"]
"""


class Sent:
    """A request body that is there at once; `read` says how much of it was taken."""

    def __init__(self, data: bytes, length: int | None) -> None:
        self.length = length
        self._left = data
        self.read = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        part, self._left = self._left[:max_bytes], self._left[max_bytes:]
        self.read += len(part)
        return part


@dataclass(frozen=True)
class Told:
    """What the API answered."""

    status: int
    headers: Headers
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def detail(self) -> str:
        """Of a problem."""
        assert self.headers.get("content-type") == "application/problem+json", self.text
        told = self.json
        assert told["status"] == self.status
        return str(told["detail"])


class ApiWorld:
    """One worker's API, and what it stands on."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.paths = DataPaths(config.data)
        self.paths.create()
        self.catalog = SqliteCatalog(self.paths.catalog)
        self.publications = SqlitePublications(self.catalog)
        self.contents = Contents(self.paths.catalog)
        store = StorePaths(self.paths.store)
        store.create()
        blobs = DiskBlobs(store)
        stock = Stock(
            blobs,
            DiskTransfers(store, blobs),
            self.catalog,
            self.publications,
            SqliteChanges(self.catalog),
            DiskUploads(store),
            FileTurns(self.paths.turns),
            Memory(),
        )
        self.local = Local("own", Oci(), stock)
        self.repositories: dict[str, Repository] = {"own": self.local}
        self.metrics = Metrics(families(config.repositories), 1)
        schema.prepare(self.paths.access)
        self.directory = Directory(self.paths.access)
        self.management = Management(self.directory, self.paths.admin_password)
        self.management.make_administrator()
        self.audit = Audit(self.paths.audit, 100_000, lambda: self.now)
        self.now = 1_800_000_000.0
        self.jobs = Jobs(JobPaths(config.data))
        self.rounds: list[tuple[float | None, bool]] = []
        access = Access(rules_of(config))
        copying = Copying(
            Dialer(config.upstreams), config.data / "replications", config.replicate, access, self.directory
        )
        services = Services(
            config,
            self.contents,
            self.repositories,
            self.jobs,
            collect=self._collect,
            retire=partial(retire_one, config),
            copying=copying,
            management=self.management,
            access=access,
            audit=self.audit,
        )
        self.api = make_api(services)
        own = OwnPages(self.metrics, lambda: True, lambda: b"")
        self.gate = Gate(Routes([]), {}, own, self.metrics, api=self._there)
        described = msgspec.to_builtins(document(self.api.table.operations, "1"))
        self.document: dict[str, Any] = described
        self.called: set[str] = set()

    async def _there(self) -> Api:
        return self.api

    async def _collect(self, grace: float | None, dry_run: bool, tell: Tell) -> Report:
        """A round that takes something away."""
        self.rounds.append((grace, dry_run))
        await trio.lowlevel.checkpoint()
        tell(1, 1, "own")
        return Report(
            dry_run,
            retired={"own": Retired(4, 3)},
            names={"own": Freed(2, 300)},
            evicted={"hub": Freed(1, 50)},
            blobs={"default": Freed(3, 350)},
        )

    async def handle(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        fields: Iterable[tuple[str, str]] = (),
        *,
        length: int | None = -1,
        caller: Caller | None = None,
    ) -> Response:
        """A request as it comes off the wire; `path` is below PREFIX. `length` -1: that of the body.

        With a `caller` it is past the door, where that is told from credentials.
        """
        data = body or b""
        sent = Sent(data, len(data) if length == -1 else length)
        request = Request(method, f"{PREFIX}{path}", "mxart.test:8080", Headers(fields), PEER, body=sent)
        if caller is None:
            return await self.gate.handle(request)
        try:
            return await self.api.answer(request, caller)
        except Problem as problem:
            return self.api.word(problem)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        fields: Iterable[tuple[str, str]] = (),
        *,
        caller: Caller | None = None,
    ) -> Told:
        """A call, whose answer is checked against what the document promises."""
        fields = list(fields)
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields.append(("content-type", "application/json"))
        response = await self.handle(method, path, data, fields, caller=caller)
        text = b"".join(part for part in response.body.segments if isinstance(part, bytes)).decode()
        told = Told(response.status, response.headers, text)
        self._check(method, path, told)
        return told

    def _check(self, method: str, path: str, told: Told) -> None:
        schemas = self.document["components"]["schemas"]
        if told.status >= 400:
            assert not faults(told.json, {"$ref": "#/components/schemas/ProblemDetails"}, schemas)
            return
        match = self.api.table.find(path.partition("?")[0])
        assert match is not None
        line = match.of(method)
        assert line is not None
        self.called.add(line.name)
        promised = self.document["paths"][line.path][line.method.lower()]["responses"]
        if told.status == 304 or "content" not in promised[str(told.status)]:
            assert told.text == ""
            return
        content = promised[str(told.status)]["content"][told.headers.get("content-type") or ""]
        assert not faults(told.json, content["schema"], schemas)

    async def keep(
        self, repository: str, package: str, tag: str, data: bytes = b"{}", *, created: float = 1_800_000_000.0
    ) -> Digest:
        """What a push or a pull leaves in the catalog."""
        digest = Digest.of(data)
        record = FileRecord(
            repository,
            package,
            f"{package}/manifests/{tag}",
            digest,
            len(data),
            "application/vnd.oci.image.manifest.v1+json",
            created=created,
        )
        await self.catalog.put_tag(repository, package, tag, record)
        return digest


@dataclass(frozen=True)
class Only:
    """May do these actions in paths that begin so, and nothing else."""

    prefix: str = ""
    actions: tuple[Action, ...] = ("read",)
    delegated: bool = False

    def may(self, action: Action, repository: str, path: str) -> bool:
        return action in self.actions and path.startswith(self.prefix)

    def demand(self, action: Action, repository: str, path: str) -> None:
        if not self.may(action, repository, path):
            raise Forbidden(f"no {action} of {path or 'all'} in {repository}")

    def sees(self, repository: str, path: str) -> bool:
        return self.may("read", repository, path)


ADMIN = Caller(name="admin", grants=Only(actions=ACTIONS))
EVE = Caller(name="eve", grants=Only())


@asynccontextmanager
async def api_world(data: Path, config: str = CONFIG) -> AsyncIterator[ApiWorld]:
    world = ApiWorld(decode(config, file="test.toml", environment={}, data=str(data)))
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(world.jobs.run)
                yield world
                await world.jobs.stop()
    finally:
        world.contents.close()
        world.directory.close()
        world.audit.close()
        await world.catalog.aclose(0.0)


def part(name: str) -> str:
    """A parameter of a path, escaped."""
    return quote(name, safe="")
