"""Our own checksum database: what it records, of whom, and whom it tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from kit.modules import GRAPH, TOML, TOOLS, Module
from kit.publishing import EVERYTHING, FakePublications, Rights
from kit.repos import Answer, FakeUpstream, World, body_of
from kit.sumdb import Database
from mxart.errors import UpstreamFailed, UpstreamUnavailable
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.go.format import Go
from mxart.repos.go.notes import SignerKey
from mxart.repos.go.sums import Private, Record
from mxart.repos.go.trees import Tree
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.own_keys import OwnKey, open_log
from mxart.repos.own_sums import OwnSums
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Remote, Rules
from mxart.repos.sources import Way
from mxart.repos.stock import Shelf
from mxart.repos.sums import NoSums, Sums
from mxart.store.published import Ensure, Publication
from mxart.store.record_log import RecordLog

NAME = "sum.example.test"
UPSTREAM_SUMS = SignerKey.generate("sums.example.test")
ONE = Module("example.com/app", "v1.0.0")
OTHER = Module("example.com/app", "v1.0.0", says="other")
ALICE = Caller(name="alice", grants=EVERYTHING)


class Scene:
    """A local repository, a proxy whose upstream has a checksum database, one whose has none, and a group of all."""

    def __init__(self, world: World, folder: Path, records: RecordLog) -> None:
        self.world = world
        self.records = records
        self.key = OwnKey.open(folder, NAME)
        self.own = OwnSums(self.key, records, world.clock)
        world.deputy = self.own
        self.local = world.local(form=Go(), registrar=self.own)
        self.database = Database(signer=UPSTREAM_SUMS)
        self.database.fill(30)
        self.database.knows(*GRAPH)
        self.upstream = world.upstream
        self.has(self.upstream, *GRAPH)
        self.private: tuple[str, ...] = ("corp.example.test",)
        self.mirror = self.proxy("mirror", self.upstream)
        self.believed = FakeUpstream()
        self.plain = world.proxy("plain", form=Go(), upstream=self.believed, verifier=NoSums())
        self.inner = Group("inner", Go(), (self.local, self.mirror), publish_to="own")
        self.group = Group("all", Go(), (self.inner, self.plain))
        members: list[Local | Proxy | Group] = [self.local, self.mirror, self.plain, self.inner, self.group]
        self.own.serve({one.name: one for one in members})

    def has(self, upstream: FakeUpstream, *modules: Module) -> None:
        for module in modules:
            for kind, data in (("mod", module.mod), ("zip", module.zip)):
                upstream.answers[f"{module.base}.{kind}".replace("!", "%21")] = Answer(data)

    def proxy(self, name: str, upstream: FakeUpstream) -> Proxy:
        world, form = self.world, Go()
        direct = FakeUpstream()
        self.direct = direct
        for module in GRAPH:
            path = _escaped(f"lookup/{module.path}@{module.version}")
            direct.answers[path] = Answer(self.database.lookup(module.path, module.version))
        tile = f"tile/8/0/000.p/{len(self.database.log.records)}"
        direct.answers[tile] = Answer(self.database.answer(tile).body)
        shelf = Shelf(name, form, world.stock)
        asking = Remote(name, form, upstream, world.stock, shelf, world.nursery, upstream.origin, Rules(), world.clock)
        there = Remote(name, form, direct, world.stock, shelf, world.nursery, direct.origin, Rules(), world.clock)
        sums = Sums(UPSTREAM_SUMS.verifier, Private(self.private), asking, [Way(there, "")])
        self.own.believe(name, sums)
        return world.proxy(name, form=form, upstream=upstream, verifier=sums)

    async def get(
        self, path: str, repository: Local | Proxy | Group | None = None, caller: Caller = NOBODY, below: str = ""
    ) -> tuple[int, bytes]:
        response, _ = await self.world.ask(repository or self.group, f"{below}/sumdb/{NAME}/{path}", caller=caller)
        return response.status, await body_of(response)

    async def lookup(
        self, module: Module, repository: Local | Proxy | Group | None = None, caller: Caller = NOBODY, below: str = ""
    ) -> tuple[int, str]:
        """The status, and the record's lines, or the words of the refusal."""
        path = _escaped(f"lookup/{module.path}@{module.version}")
        status, data = await self.get(path, repository, caller, below)
        if status != 200:
            return status, data.decode()
        record = Record.parse(data)
        tree = Tree.parse(self.key.signer.verifier.verified(record.note))
        assert record.number < tree.size
        return status, record.text.decode()

    async def put(self, module: Module, method: str = "PUT") -> tuple[int, str]:
        data = module.zip if method == "PUT" else b""
        response = await self.world.send(self.local, method, f"/{module.base}.zip", data, caller=ALICE)
        return response.status, (await body_of(response)).decode()


def _escaped(path: str) -> str:
    return "".join(f"%21{sign.lower()}" if sign.isupper() else sign for sign in path)


def lines(module: Module) -> str:
    """The record of a module, as the tests' own database computes it."""
    database = Database(signer=UPSTREAM_SUMS)
    database.knows(module)
    return database.log.records[0].decode()


@pytest.fixture
def scene(nursery: trio.Nursery, tmp_path: Path) -> Iterator[Scene]:
    with closing(open_log(tmp_path / "log.sqlite")) as records:
        made = Scene(World(nursery), tmp_path, records)
        yield made
        assert made.world.blobs.opened == set()


async def test_what_is_published_is_recorded_before_anybody_looks_it_up(scene: Scene) -> None:
    assert (await scene.put(ONE))[0] == 201
    assert scene.records.size() == 1
    for repository in (scene.local, scene.inner, scene.group):
        assert await scene.lookup(ONE, repository) == (200, lines(ONE))
    assert scene.records.size() == 1
    assert scene.upstream.asked == []
    assert scene.believed.asked == []


async def test_what_upstreams_database_knows_is_taken_from_there_without_the_module(scene: Scene) -> None:
    assert await scene.lookup(TOML) == (200, lines(TOML))
    asked = list(scene.direct.asked)
    assert asked
    assert scene.upstream.asked == []  # no zip, no go.mod
    assert await scene.lookup(TOML) == (200, lines(TOML))
    assert scene.direct.asked == asked


async def test_what_nobody_vouches_for_is_measured_once(scene: Scene) -> None:
    secret = Module("corp.example.test/Secret", "v1.0.0")
    scene.has(scene.believed, ONE)
    scene.has(scene.upstream, secret)
    for module, upstream in ((secret, scene.upstream), (ONE, scene.believed)):
        found = await _many(partial(scene.lookup, module), 12)
        assert found == [(200, lines(module))] * 12
        zips = [path for path in upstream.asked if path.endswith(".zip") and module.base.split("/@v/")[1] in path]
        assert len(zips) == 1
    assert scene.records.size() == 2
    assert not [path for path in scene.direct.asked if "ecret" in path]


async def _many(work: Callable[[], Awaitable[tuple[int, str]]], count: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    async def one() -> None:
        found.append(await work())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return found


async def test_what_is_nowhere_is_not_found_and_not_recorded(scene: Scene) -> None:
    status, text = await scene.lookup(Module("example.com/nowhere", "v1.0.0"))
    assert (status, text) == (404, "own has no example.com/nowhere\n")
    assert scene.records.size() == 0


async def test_nobody_is_passed_over_because_he_is_down(scene: Scene) -> None:
    """What is recorded is so for ever: it is not to hang on the moment which member it was of."""
    scene.has(scene.believed, TOOLS)
    scene.direct.trouble = UpstreamUnavailable("gone fishing")
    assert (await scene.lookup(TOOLS))[0] == 503
    assert scene.records.size() == 0
    scene.direct.trouble = None
    assert await scene.lookup(TOOLS) == (200, lines(TOOLS))


async def test_a_member_that_owns_a_module_is_the_only_one_asked(scene: Scene) -> None:
    assert (await scene.put(ONE))[0] == 201
    later = Module(ONE.path, "v1.1.0")
    scene.has(scene.believed, later)
    assert (await scene.lookup(later))[0] == 404
    assert scene.believed.asked == []


async def test_a_record_never_changes_whoever_has_what_later(scene: Scene) -> None:
    scene.has(scene.believed, ONE)
    assert await scene.lookup(ONE) == (200, lines(ONE))
    status, text = await scene.put(OTHER)
    assert status == 409
    assert "in another repository" in text
    assert await scene.lookup(ONE) == (200, lines(ONE))
    assert (await scene.put(ONE))[0] == 201
    assert await scene.lookup(ONE) == (200, lines(ONE))


async def test_the_very_same_in_another_repository_is_measured_there_once(scene: Scene) -> None:
    scene.has(scene.believed, ONE)
    assert await scene.lookup(ONE) == (200, lines(ONE))
    other = FakeUpstream()
    scene.has(other, ONE)
    second = scene.world.proxy("second", form=Go(), upstream=other, verifier=NoSums())
    for _ in range(3):
        assert await scene.lookup(ONE, second) == (200, lines(ONE))
    assert len(other.asked) == len(set(other.asked))
    assert (await scene.put(ONE))[0] == 201
    scene.world.blobs.reads = 0
    for _ in range(3):
        assert await scene.lookup(ONE) == (200, lines(ONE))  # it is ours now
    assert scene.world.blobs.reads == 0


async def test_what_another_repository_has_otherwise_is_an_alarm_and_tells_nothing(scene: Scene) -> None:
    assert (await scene.put(ONE))[0] == 201
    scene.has(scene.believed, OTHER)
    status, text = await scene.lookup(OTHER, scene.plain)
    assert status == 502
    assert text.startswith("SECURITY: example.com/app@v1.0.0 of plain is not what")
    assert "h1:" not in text
    other = FakeUpstream()
    scene.has(other, ONE)  # the very same is what whoever may read it here has, too
    assert await scene.lookup(ONE, scene.world.proxy("same", form=Go(), upstream=other)) == (200, lines(ONE))


async def test_deleted_versions_stay_known_those_of_an_older_program_too(scene: Scene) -> None:
    before = scene.world.local(form=Go())  # as it was when there was no such database
    response = await scene.world.send(before, "PUT", f"/{ONE.base}.zip", ONE.zip, caller=ALICE)
    assert response.status == 201
    assert scene.records.size() == 0
    status, text = await scene.put(ONE, "DELETE")
    assert (status, scene.records.size()) == (200, 1)
    assert text.startswith(f"deleted: the checksum database {NAME} goes on knowing example.com/app v1.0.0")
    assert (await scene.put(OTHER))[0] == 409
    assert await scene.lookup(ONE) == (200, lines(ONE))
    assert (await scene.put(ONE, "DELETE"))[0] == 404
    assert (await scene.put(ONE))[0] == 201


class _Dying(FakePublications):
    """A process that is killed before it can say what it has remembered."""

    async def publish(self, publication: Publication, ensure: Ensure, *, replace: bool = True) -> None:
        raise ConnectionAbortedError


async def test_what_was_remembered_and_not_published_before_a_kill_is_published_as_it_was(scene: Scene) -> None:
    world = scene.world
    stock = replace(world.stock, publications=_Dying(world.catalog))
    killed = Local("own", Go(), stock, world.clock, registrar=scene.own)
    with pytest.raises(ConnectionAbortedError):
        await world.send(killed, "PUT", f"/{ONE.base}.zip", ONE.zip, caller=ALICE)
    assert scene.records.size() == 1
    response, _ = await world.ask(scene.local, f"/{ONE.base}.zip")
    assert response.status == 404
    assert (await scene.put(OTHER))[0] == 409
    assert (await scene.put(ONE))[0] == 201
    assert await scene.lookup(ONE) == (200, lines(ONE))


async def test_of_two_repositories_that_publish_a_version_at_once_one_wins(scene: Scene) -> None:
    other = scene.world.local("other", form=Go(), registrar=scene.own)
    statuses: list[int] = []

    async def publish(module: Module, to: Local) -> None:
        response = await scene.world.send(to, "PUT", f"/{module.base}.zip", module.zip, caller=ALICE)
        statuses.append(response.status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, ONE, scene.local)
        nursery.start_soon(publish, OTHER, other)
    assert sorted(statuses) == [201, 409]
    assert scene.records.size() == 1
    assert (await scene.lookup(ONE, scene.local))[0] != (await scene.lookup(OTHER, other))[0]


async def test_a_download_that_hangs_keeps_nobody_from_other_look_ups(scene: Scene) -> None:
    later = [Module(ONE.path, f"v1.0.{number}") for number in range(6)]
    scene.has(scene.believed, *later)
    gate = trio.Event()
    for module in later[:5]:
        scene.believed.answers[f"{module.base}.zip"] = Answer(module.zip, body_gate=gate)
    found: list[tuple[int, str]] = []

    async def look(module: Module) -> None:
        found.append(await scene.lookup(module))

    async with trio.open_nursery() as nursery:
        for module in later[:5]:
            nursery.start_soon(look, module)
        await trio.testing.wait_all_tasks_blocked()
        assert await scene.lookup(later[5]) == (200, lines(later[5]))
        assert found == []
        gate.set()
    assert sorted(found) == sorted((200, lines(module)) for module in later[:5])


async def test_what_lost_its_bytes_may_be_deleted(scene: Scene) -> None:
    before = scene.world.local(form=Go())
    await scene.world.send(before, "PUT", f"/{ONE.base}.zip", ONE.zip, caller=ALICE)
    scene.world.blobs.kept.clear()
    scene.world.catalog.writes += 1
    assert await scene.put(ONE, "DELETE") == (200, "deleted\n")
    assert scene.records.size() == 0


# permissions


def reading(*names: str) -> Caller:
    everywhere = {f"{name}:{module.path}" for name in names for module in (ONE, TOML)}
    return Caller(name="bob", grants=Rights(read=everywhere, fetch=everywhere))


async def test_a_look_up_is_for_whoever_may_read_the_module_where_it_is(scene: Scene) -> None:
    assert (await scene.put(ONE))[0] == 201
    assert (await scene.lookup(ONE, scene.group, reading("all", "inner", "own")))[0] == 200
    for caller in (reading(), reading("all"), reading("all", "inner"), reading("all", "inner", "mirror", "plain")):
        status, text = await scene.lookup(ONE, scene.group, caller)
        assert status == 403
        assert "you may not read example.com/app" in text
    assert (await scene.lookup(ONE, scene.plain, reading("plain")))[0] == 404
    assert (await scene.lookup(ONE, scene.plain))[0] == 404


async def test_a_deleted_module_is_shown_to_nobody_who_could_not_read_it(scene: Scene) -> None:
    await scene.put(ONE)
    await scene.put(ONE, "DELETE")
    assert (await scene.lookup(ONE, scene.group, reading("all", "inner", "mirror", "plain")))[0] == 404
    assert (await scene.lookup(ONE, scene.group, reading("all", "inner", "own")))[0] == 200


async def test_who_may_have_nothing_fetched_has_nothing_recorded(scene: Scene) -> None:
    careful = Caller(name="bob", grants=Rights(read={f"{name}:{TOML.path}" for name in ("all", "inner", "mirror")}))
    assert (await scene.lookup(TOML, scene.group, careful))[0] == 403
    assert (scene.records.size(), scene.direct.asked, scene.upstream.asked) == (0, [], [])
    assert (await scene.lookup(TOML))[0] == 200
    assert await scene.lookup(TOML, scene.group, careful) == (200, lines(TOML))


async def test_what_is_only_wanted_if_it_is_kept_is_not_fetched(scene: Scene) -> None:
    assert (await scene.lookup(TOML, scene.mirror, below="/cached-only"))[0] == 404
    assert (scene.direct.asked, scene.upstream.asked) == ([], [])
    for kind in ("mod", "zip"):
        response, _ = await scene.world.ask(scene.mirror, f"/{TOML.base}.{kind}".replace("!", "%21"))
        assert response.status == 200
        await body_of(response)
    asked = list(scene.direct.asked)
    assert await scene.lookup(TOML, scene.mirror, below="/cached-only") == (200, lines(TOML))
    assert scene.direct.asked == asked


async def test_tiles_of_hashes_are_for_everybody_and_those_of_records_for_nobody(scene: Scene) -> None:
    for number in range(3):
        await scene.put(Module(ONE.path, f"v1.0.{number}"))
    stranger = Caller(grants=Rights())
    assert (await scene.get("supported", caller=stranger)) == (200, b"")
    status, note = await scene.get("latest", caller=stranger)
    assert (status, Tree.parse(scene.key.signer.verifier.verified(note)).size) == (200, 3)
    status, hashes = await scene.get("tile/8/0/000.p/3", caller=stranger)
    assert (status, len(hashes)) == (200, 96)
    assert (await scene.get("tile/8/0/000.p/2", caller=stranger))[1] == hashes[:64]
    for path in ("tile/8/0/000", "tile/8/0/000.p/4", "tile/8/1/000.p/1", "tile/8/0/001.p/1"):
        status, text = await scene.get(path, caller=stranger)
        assert (status, b"its tree has 3 records" in text) == (404, True)
    for caller in (stranger, ALICE):
        status, text = await scene.get("tile/8/data/000.p/3", caller=caller)
        assert (status, b"look-ups tell of one each" in text) == (403, True)


async def test_another_database_is_passed_on_as_before(scene: Scene) -> None:
    response, _ = await scene.world.ask(scene.group, "/sumdb/sums.example.test/supported")
    assert response.status == 200
    response, _ = await scene.world.ask(scene.local, "/sumdb/sums.example.test/supported")
    assert response.status == 404


async def test_what_breaks_off_or_is_wrong_is_not_recorded(scene: Scene) -> None:
    scene.has(scene.believed, ONE)
    path = f"{ONE.base}.zip"
    scene.believed.answers[path] = Answer(ONE.zip, broken=UpstreamFailed("it broke"))
    assert (await scene.lookup(ONE))[0] == 502
    scene.world.clock.forward(120)
    scene.believed.answers[path] = Answer(TOML.zip)
    status, text = await scene.lookup(ONE)
    assert status == 502
    assert "has to begin with example.com/app@v1.0.0/" in text or "broke off" in text
    assert scene.records.size() == 0
    scene.world.clock.forward(120)
    scene.believed.answers[path] = Answer(ONE.zip)
    assert (await scene.lookup(ONE))[0] == 200


async def test_a_client_that_leaves_leaves_nothing_open(scene: Scene) -> None:
    scene.has(scene.believed, ONE)
    gate = trio.Event()
    scene.believed.answers[f"{ONE.base}.zip"] = Answer(ONE.zip, body_gate=gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.lookup, ONE)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert scene.world.blobs.opened == set()
    gate.set()
    assert (await scene.lookup(ONE))[0] == 200


async def test_heads_are_marked_before_they_are_shown(scene: Scene) -> None:
    await scene.put(ONE)
    assert scene.key.marked() is None
    await scene.lookup(ONE)
    marked = scene.key.marked()
    assert marked is not None
    assert marked.size == 1
    scene.key.mark.unlink()
    scene.key.mark.mkdir()
    await scene.put(Module(ONE.path, "v1.1.0"))
    assert (await scene.get("latest"))[0] == 507
