"""Large files whose names tell no digest, through the kinds: one download, judged before anybody has all of it."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kit.modules import TOML, Module
from kit.repos import Alone, Answer, FakeUpstream, World, body_of, fields_of, request
from mxart.digest import Digest
from mxart.errors import (
    BodyBroken,
    StorageFull,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mxart.message import Trace
from mxart.repos.base import Repository
from mxart.repos.group import Group
from mxart.repos.operations import Artifact, Document
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Received, Remote, Rules

BIG = Module("example.com/big", "v1.0.0", extra={"noise.bin": random.Random(1).randbytes(300_000)})
DATA = BIG.zip
TARGET = f"/{BIG.base}.zip"
WRONG = UpstreamFailed("example.com/big@v1.0.0: the checksum database knows another file")


class Database:
    """A verifier that believes everybody, unless it is told what to raise."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.says: Exception | None = None
        self.gate: trio.Event | None = None

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        self.asked.append((operation.path, received.checksum))
        if self.gate is not None:
            await self.gate.wait()
        if self.says is not None:
            raise self.says

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> None:
        """It has no documents of its own."""


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def mirror(world: World, database: Database) -> Proxy:
    return proxy(world, database)


def proxy(world: World, database: Database | None = None, name: str = "mirror", rules: Rules | None = None) -> Proxy:
    return world.proxy(name, form=Alone(), rules=rules, verifier=database)


def serve(upstream: FakeUpstream, module: Module = BIG, data: bytes | None = None) -> Answer:
    body = module.zip if data is None else data
    fields = [
        ("content-type", "application/zip"),
        ("content-length", str(len(body))),
        ("last-modified", "Wed, 03 Jan 2024 03:04:05 GMT"),
    ]
    answer = upstream.answers[f"{module.base}.zip".replace("!", "%21")] = Answer(body, fields)
    return answer


async def get(world: World, repository: Repository, target: str = TARGET) -> tuple[int, bytes, str]:
    response, trace = await world.ask(repository, target)
    return response.status, await body_of(response), trace.outcome


async def recorded(world: World) -> None:
    """Until the file is judged, which happens in a thread, and kept."""
    while not world.blobs.kept:
        await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_cold_artifact_is_one_get_and_a_warm_one_none(world: World, mirror: Proxy, database: Database) -> None:
    serve(world.upstream)
    response, trace = await world.ask(mirror, TARGET)
    # While it arrives, nobody knows its digest; all else is said.
    assert fields_of(response, "content-type", "content-length", "etag", "cache-control", "accept-ranges") == [
        "application/zip",
        None,  # the wire's
        None,
        "max-age=31536000, immutable",
        "bytes",
    ]
    assert response.headers.get("last-modified") == "Wed, 03 Jan 2024 03:04:05 GMT"
    assert response.body.length == len(DATA)
    assert (await body_of(response), trace.outcome) == (DATA, "miss")
    await trio.testing.wait_all_tasks_blocked()
    world.clock.forward(10_000_000)
    response, trace = await world.ask(mirror, TARGET)
    assert (await body_of(response), trace.outcome) == (DATA, "hit")
    assert response.headers.get("etag") == f'"{Digest.of(DATA)}"'
    assert len(world.upstream.asked) == 1
    assert [path for path, checksum in database.asked if checksum.startswith("h1:")] == [f"{BIG.base}.zip"]
    record = world.catalog.files["mirror", f"{BIG.base}.zip"]
    assert (record.package, record.digest, record.size) == ("example.com/big", Digest.of(DATA), len(DATA))
    assert (f"{BIG.base}.zip", record.checksum) in database.asked
    assert not world.blobs.opened


async def test_the_first_bytes_are_there_before_the_last_have_come(world: World, mirror: Proxy) -> None:
    answer = serve(world.upstream)
    answer.body_gate = trio.Event()
    with trio.fail_after(5):
        response, _ = await world.ask(mirror, TARGET)
        (segment,) = response.body.segments
        assert not isinstance(segment, bytes)
        assert await segment.source.available(0) > 0
    answer.body_gate.set()
    assert await body_of(response) == DATA


async def test_many_clients_at_once_are_one_get_and_one_judgement(
    world: World, mirror: Proxy, database: Database
) -> None:
    answer = serve(world.upstream)
    answer.gate = trio.Event()
    outcomes: list[str] = []

    async def client(span: str) -> None:
        response, trace = await world.ask(mirror, TARGET, ("range", span))
        first, last = (int(end) for end in span.removeprefix("bytes=").split("-"))
        assert (response.status, await body_of(response)) == (206, DATA[first : last + 1])
        outcomes.append(trace.outcome)

    async with trio.open_nursery() as clients:
        for number in range(16):
            clients.start_soon(client, f"bytes={number * 1000}-{number * 1000 + 70000}")
        await trio.testing.wait_all_tasks_blocked()
        answer.gate.set()
    assert sorted(outcomes) == ["joined"] * 15 + ["miss"]
    assert [ask.method for ask in world.upstream.asks] == ["GET"]
    await recorded(world)
    assert len(database.asked) == 1
    assert not world.blobs.opened


async def test_nobody_has_the_last_byte_before_the_database_has_spoken(
    world: World, mirror: Proxy, database: Database
) -> None:
    serve(world.upstream)
    database.gate = trio.Event()
    response, _ = await world.ask(mirror, TARGET)
    (segment,) = response.body.segments
    assert not isinstance(segment, bytes)
    while not database.asked:
        await trio.testing.wait_all_tasks_blocked(0.001)
    assert segment.source.ready(0) < len(DATA)
    assert not world.catalog.files
    database.gate.set()
    assert await body_of(response) == DATA


async def test_what_the_database_does_not_know_so_is_cut_not_kept_and_the_next_is_told_why(
    world: World, mirror: Proxy, database: Database
) -> None:
    serve(world.upstream)
    database.says = WRONG
    response, _ = await world.ask(mirror, TARGET)
    with pytest.raises(BodyBroken):
        await body_of(response)
    await trio.testing.wait_all_tasks_blocked()
    assert not world.catalog.files
    assert not world.blobs.kept
    for method in ("GET", "HEAD"):
        response, trace = await world.ask(mirror, TARGET, method=method)
        assert (response.status, trace.outcome) == (502, "refused")
        if method == "GET":
            assert b"the checksum database knows another file" in await body_of(response)
    assert world.upstream.asked == [f"GET {BIG.base}.zip"]
    # Upstream is asked again a little later: it may have mended its ways.
    world.clock.forward(31)
    database.says = None
    assert await get(world, mirror) == (200, DATA, "miss")


async def test_a_file_that_is_no_zip_of_the_module_is_refused(world: World, mirror: Proxy, database: Database) -> None:
    serve(world.upstream, data=TOML.zip)
    response, _ = await world.ask(mirror, TARGET)
    with pytest.raises(BodyBroken):
        await body_of(response)
    await trio.testing.wait_all_tasks_blocked()
    status, body, _ = await get(world, mirror)
    assert status == 502
    assert b"is refused" in body
    assert database.asked == []


async def test_a_page_of_some_portal_is_no_file(world: World, mirror: Proxy) -> None:
    answer = serve(world.upstream, data=b"<html>log in" * 10_000)
    answer.fields[0] = ("content-type", "text/html")
    status, _, _ = await get(world, mirror)
    assert status == 502
    await trio.testing.wait_all_tasks_blocked()
    assert not world.catalog.files


async def test_when_the_database_is_down_the_file_is_cut_and_asked_about_again(
    world: World, mirror: Proxy, database: Database
) -> None:
    serve(world.upstream)
    database.says = UpstreamTimeout("the checksum database does not answer")
    response, _ = await world.ask(mirror, TARGET)
    with pytest.raises(BodyBroken):
        await body_of(response)
    await trio.testing.wait_all_tasks_blocked()
    database.says = None
    status, body, _ = await get(world, mirror)
    assert (status, body) == (200, DATA)


async def test_documents_are_verified_too_before_they_are_kept(world: World, mirror: Proxy, database: Database) -> None:
    world.upstream.answers[f"{BIG.base}.mod"] = Answer(BIG.mod)
    database.says = WRONG
    status, body, _ = await get(world, mirror, f"/{BIG.base}.mod")
    assert status == 502
    assert b"the checksum database knows another file" in body
    assert not world.catalog.files
    database.says = None
    assert (await get(world, mirror, f"/{BIG.base}.mod"))[:2] == (200, BIG.mod)
    assert [path for path, _ in database.asked] == [f"{BIG.base}.mod"] * 2


async def test_the_head_of_a_cold_artifact_starts_no_download(world: World, mirror: Proxy) -> None:
    serve(world.upstream)
    response, trace = await world.ask(mirror, TARGET, method="HEAD")
    assert (response.status, response.body.length, trace.outcome) == (200, len(DATA), "miss")
    response.body.close()
    assert [ask.method for ask in world.upstream.asks] == ["HEAD"]
    assert not world.transfers.named
    assert not world.catalog.files
    await get(world, mirror)
    await trio.testing.wait_all_tasks_blocked()
    response, trace = await world.ask(mirror, TARGET, method="HEAD")
    assert (response.body.length, trace.outcome) == (len(DATA), "hit")
    response.body.close()
    assert not world.blobs.opened


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_not_found_is_remembered_for_a_while(world: World, mirror: Proxy, method: str) -> None:
    for outcome in ("", "negative"):
        response, trace = await world.ask(mirror, TARGET, method=method)
        assert (response.status, trace.outcome) == (404, outcome)
    assert len(world.upstream.asked) == 1
    serve(world.upstream)
    world.clock.forward(61)
    assert (await get(world, mirror))[:2] == (200, DATA)


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (UpstreamFailed("broken"), 502),
        (UpstreamUnavailable("busy"), 503),
        (UpstreamTimeout("slow"), 504),
        (UpstreamDenied("not you"), 502),
    ],
)
async def test_upstreams_trouble_is_told_as_what_it_is_and_never_as_not_found(
    world: World, mirror: Proxy, problem: UpstreamFailed, status: int
) -> None:
    world.upstream.trouble = problem
    for method in ("GET", "HEAD"):
        response, _ = await world.ask(mirror, TARGET, method=method)
        assert response.status == status
    world.upstream.trouble = None
    serve(world.upstream)
    assert await get(world, mirror) == (200, DATA, "miss")


async def test_offline_what_is_kept_is_served_and_nothing_else(world: World, mirror: Proxy) -> None:
    serve(world.upstream)
    offline = proxy(world, rules=Rules(offline=True))
    assert (await get(world, offline))[0] == 503
    await get(world, mirror)
    await trio.testing.wait_all_tasks_blocked()
    assert await get(world, offline) == (200, DATA, "hit")


async def test_who_wants_only_what_is_kept_causes_no_download(world: World, mirror: Proxy) -> None:
    serve(world.upstream)
    kept = f"/cached-only{TARGET}"
    assert (await get(world, mirror, kept))[0] == 404
    assert world.upstream.asked == []
    await get(world, mirror)
    await trio.testing.wait_all_tasks_blocked()
    assert (await get(world, mirror, kept))[:2] == (200, DATA)


async def test_the_download_goes_on_when_its_only_client_leaves(world: World, mirror: Proxy) -> None:
    answer = serve(world.upstream)
    answer.body_gate = trio.Event()
    response, _ = await world.ask(mirror, TARGET)
    response.body.close()
    answer.body_gate.set()
    await recorded(world)
    world.upstream.trouble = UpstreamTimeout("gone")
    assert await get(world, mirror) == (200, DATA, "hit")


async def test_repositories_do_not_learn_from_each_other(world: World, mirror: Proxy) -> None:
    serve(world.upstream)
    await get(world, mirror)
    await trio.testing.wait_all_tasks_blocked()
    private = FakeUpstream()
    other = world.proxy("other", form=Alone(), upstream=private)
    assert (await get(world, other))[0] == 404
    serve(private)
    world.clock.forward(61)
    assert await get(world, other) == (200, DATA, "miss")


async def test_a_file_that_cannot_be_recorded_is_served_all_the_same(
    world: World, mirror: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise StorageFull("no space left")

    monkeypatch.setattr(world.catalog, "put_file", full)
    serve(world.upstream)
    for _ in range(2):
        assert (await get(world, mirror))[:2] == (200, DATA)
        await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.kept


async def test_a_name_whose_bytes_are_lost_is_fetched_again(world: World, mirror: Proxy) -> None:
    serve(world.upstream)
    await get(world, mirror)
    await trio.testing.wait_all_tasks_blocked()
    world.blobs.kept.clear()
    assert (await get(world, proxy(world)))[:2] == (200, DATA)
    assert world.upstream.count("GET") == 2


async def test_what_came_by_other_instances_does_not_join_what_waits_for_them(world: World, mirror: Proxy) -> None:
    answer = serve(world.upstream)
    answer.gate = trio.Event()
    async with trio.open_nursery() as clients:
        clients.start_soon(get, world, mirror)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.transfers.named) == 1
        relayed = request("GET", TARGET)
        relayed.trace.came_by = ("other",)
        operation = mirror.format.parse("GET", TARGET, "", relayed.headers)
        assert isinstance(operation, Artifact)
        clients.start_soon(mirror.file, operation, relayed.trace)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.transfers.named) == 2
        answer.gate.set()


# The other kinds


def publish(world: World, repository: str) -> None:
    world.publish(repository, "example.com/big", f"{BIG.base}.zip", DATA, "application/zip")


async def test_a_local_repository_answers_from_its_catalog(world: World) -> None:
    own = world.local("own", form=Alone())
    assert (await get(world, own))[0] == 404
    publish(world, "own")
    for method in ("GET", "HEAD"):
        response, trace = await world.ask(own, TARGET, method=method)
        assert (response.status, response.body.length, trace.outcome) == (200, len(DATA), "local")
        response.body.close()
    world.blobs.kept.clear()
    response, _ = await world.ask(world.local("own", form=Alone()), TARGET)
    assert response.status == 500


async def test_a_group_asks_the_owner_alone_and_else_its_members_in_order(world: World, mirror: Proxy) -> None:
    own = world.local("own", form=Alone())
    group = Group("go", Alone(), [own, mirror])
    serve(world.upstream)
    assert await get(world, group) == (200, DATA, "miss")
    publish(world, "own")
    assert await get(world, group) == (200, DATA, "local")
    other = f"/{BIG.base.replace('v1.0.0', 'v1.1.0')}.zip"
    assert (await get(world, group, other))[0] == 404
    assert world.upstream.count("GET") == 1


async def test_a_group_tells_a_wrong_file_rather_than_not_found(
    world: World, mirror: Proxy, database: Database
) -> None:
    serve(world.upstream)
    database.says = WRONG
    group = Group("go", Alone(), [world.local("own", form=Alone()), mirror])
    with pytest.raises(BodyBroken):
        await get(world, group)
    await trio.testing.wait_all_tasks_blocked()
    assert (await get(world, group))[0] == 502
