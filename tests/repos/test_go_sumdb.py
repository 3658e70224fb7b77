"""A checksum database through a proxy: what is proven is kept and passed on, and nothing else is believed."""

from __future__ import annotations

import copy
import logging
from urllib.parse import unquote

import pytest
import trio
import trio.testing

from kit.modules import GRAPH, TOML, TOOLS, Module
from kit.repos import Answer, FakeUpstream, SlowDisk, World, body_of
from kit.sumdb import Database
from mxart.errors import BodyBroken, UpstreamTimeout, UpstreamUnavailable
from mxart.repos.go.format import Go
from mxart.repos.go.notes import SignerKey
from mxart.repos.go.sums import Private
from mxart.repos.go.trees import Tree
from mxart.repos.group import Group
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Remote, Rules
from mxart.repos.sources import Way
from mxart.repos.stock import Shelf
from mxart.repos.sums import NoSums, Sums

NAME = "sums.example.test"
SIGNER = SignerKey.generate(NAME)
SECRET = Module("corp.example.test/Secret/x", "v1.0.0")


class _Answers(dict[str, Answer]):
    """Those of the test, else the database's below its prefix."""

    def __init__(self, database: Database, prefix: str) -> None:
        super().__init__()
        self.database = database
        self.prefix = prefix

    def get(self, path: str, default: Answer | None = None) -> Answer | None:  # type: ignore[override]
        if path in self or not path.startswith(self.prefix):
            return super().get(path, default)
        said = self.database.answer(unquote(path.removeprefix(self.prefix)))
        return Answer(said.body, [("content-type", said.media_type)], said.status)


class Scene:
    """A proxy of modules, its upstream, and the database at a URL of its own."""

    def __init__(self, world: World, *, private: tuple[str, ...] = (), through: bool = False) -> None:
        self.world = world
        self.signer = SIGNER
        self.database = Database(signer=SIGNER)
        self.database.fill(300)
        self.database.knows(TOML, TOOLS)
        self.database.fill(20)
        self.upstream = world.upstream
        for module in (*GRAPH, SECRET):
            for kind, data in (("mod", module.mod), ("zip", module.zip)):
                self.upstream.answers[f"{module.base}.{kind}".replace("!", "%21")] = Answer(data)
        self.direct = FakeUpstream()
        self.answers = self.direct.answers = _Answers(self.database, "")
        self.private = private
        self.through = through
        self.mirror = self.proxy()

    def proxy(self, name: str = "mirror", rules: Rules | None = None) -> Proxy:
        """The repository, as another process or configuration has it."""
        world, stock, form = self.world, self.world.worker(), Go()
        rules = rules or Rules()
        shelf = Shelf(name, form, stock)
        asking = Remote(
            name, form, self.upstream, stock, shelf, world.nursery, self.upstream.origin, rules, world.clock
        )
        direct = Remote(name, form, self.direct, stock, shelf, world.nursery, self.direct.origin, rules, world.clock)
        ways = [Way(direct, "")] if not self.through else [Way(asking, f"sumdb/{NAME}/"), Way(direct, "")]
        sums = Sums(self.signer.verifier, Private(self.private), asking, ways)
        return world.proxy(name, form=form, rules=rules, stock=stock, verifier=sums)

    async def get(self, path: str, mirror: Proxy | Group | None = None) -> tuple[int, bytes]:
        response, _ = await self.world.ask(mirror or self.mirror, f"/{path}")
        return response.status, await body_of(response)

    async def sums(self, path: str, mirror: Proxy | Group | None = None) -> tuple[int, bytes]:
        return await self.get(f"sumdb/{NAME}/{path}", mirror)


@pytest.fixture
def scene(nursery: trio.Nursery) -> Scene:
    return Scene(World(nursery))


LOOKUP = "lookup/example.com/!burnt!wood/!toml@v1.2.0"


async def test_what_the_database_says_is_passed_on_word_for_word(scene: Scene) -> None:
    database = scene.database
    assert await scene.sums("supported") == (200, b"")
    assert await scene.sums(LOOKUP) == (200, database.lookup(TOML.path, TOML.version))
    assert await scene.sums("latest") == (200, database.note())
    size = len(database.log.records)
    for path in (
        "tile/8/0/000",
        "tile/8/0/000.p/7",
        f"tile/8/0/001.p/{size - 256}",
        "tile/8/0/001.p/3",
        "tile/8/1/000.p/1",
    ):
        assert await scene.sums(path) == (200, database.answer(path).body)
    for path in ("tile/8/data/000", "tile/8/data/000.p/9", f"tile/8/data/001.p/{size - 256}"):
        assert await scene.sums(path) == (200, database.answer(path).body)


async def test_other_databases_are_not_passed_on_and_odd_questions_are_told(scene: Scene) -> None:
    assert (await scene.get("sumdb/sum.golang.org/supported"))[0] == 404
    assert (await scene.get("sumdb/sum.golang.org/lookup/example.com/m@v1.0.0"))[0] == 404
    for path, status in {
        "lookup/example.com/Upper@v1.0.0": 400,
        "lookup/example.com/m": 400,
        "lookup/example.com/m@main": 400,
        "lookup/example.com/m@v2.0.0": 400,
        "lookup/@v1.0.0": 400,
        "tile/8/0/1": 400,
        "tile/9/0/000": 400,
        "tile/8/0/999": 404,
        "tile/8/7/000": 404,
        "tile/8/data/999": 404,
        "nothing": 404,
        "": 404,
    }.items():
        assert (await scene.sums(path))[0] == status, path
    assert (await scene.get("sumdb/"))[0] == 404
    assert (await scene.get("sumdb"))[0] == 404
    assert not any("lookup" in path for path in scene.database.asked)
    response, _ = await scene.world.ask(scene.mirror, f"/sumdb/{NAME}/latest", method="PUT")
    assert response.status == 405


async def test_the_database_is_asked_once_and_never_again_whatever_is_wanted_offline(scene: Scene) -> None:
    answers = {}
    for path in ("supported", LOOKUP, "latest", "tile/8/0/000", "tile/8/0/001.p/5"):
        answers[path] = await scene.sums(path)
    asked = len(scene.direct.asked)
    assert await scene.sums(LOOKUP) == answers[LOOKUP]
    scene.world.clock.forward(10_000_000)
    assert await scene.sums(LOOKUP) == answers[LOOKUP]
    assert len(scene.direct.asked) == asked
    offline = scene.proxy(rules=Rules(offline=True))
    for path, answer in answers.items():
        assert await scene.sums(path, offline) == answer
    assert (await scene.sums("lookup/example.com/tools/v2@v2.3.0", offline))[0] == 503
    assert (await scene.sums("tile/8/data/000", offline))[0] == 503
    assert len(scene.direct.asked) == asked


async def test_many_who_ask_at_once_ask_the_database_once(scene: Scene) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(scene.sums, LOOKUP)
    assert scene.direct.asked.count("GET " + LOOKUP.replace("!", "%21")) == 1


async def test_nobody_waits_for_what_was_proven_to_be_kept(nursery: trio.Nursery) -> None:
    world = World(nursery)
    disk = world.blobs = SlowDisk()
    disk.turning.set()
    scene = Scene(world)
    assert (await scene.sums(LOOKUP))[0] == 200  # with it a newer tree is known, which is on disk before anything else
    await trio.testing.wait_all_tasks_blocked()
    disk.turning = trio.Event()
    asked = len(scene.direct.asked)
    path = "lookup/example.com/tools/v2@v2.3.0"
    for _ in range(3):
        assert await scene.sums(path) == (200, scene.database.lookup(TOOLS.path, TOOLS.version))
        assert await scene.get(f"{TOOLS.base}.mod") == (200, TOOLS.mod)
    assert scene.direct.asked[asked:] == [f"GET {path}"]
    disk.turning.set()
    await trio.testing.wait_all_tasks_blocked()
    scene.direct.trouble = scene.upstream.trouble = UpstreamUnavailable("gone")
    assert (await scene.sums(path))[0] == 200
    assert (await scene.sums("tile/8/0/001.p/66"))[0] == 200
    assert (await scene.get(f"{TOOLS.base}.mod"))[0] == 200


async def test_files_of_a_version_are_kept_if_they_are_those_that_the_database_knows(scene: Scene) -> None:
    assert await scene.get(f"{TOML.base}.mod") == (200, TOML.mod)
    assert await scene.get(f"{TOML.base}.zip") == (200, TOML.zip)
    scene.direct.trouble = UpstreamUnavailable("gone")
    other = scene.proxy("other")
    assert (await scene.get(f"{TOML.base}.mod", other))[0] == 503
    assert await scene.get(f"{TOML.base}.mod") == (200, TOML.mod)


async def test_another_go_mod_than_the_database_knows_is_refused_in_words(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{TOML.base}.mod".replace("!", "%21")
    scene.upstream.answers[path] = Answer(TOML.mod + b"\n// retagged\n")
    status, text = await scene.get(f"{TOML.base}.mod")
    assert status == 502
    assert text.startswith(b"SECURITY: upstream's go.mod of example.com/BurntWood/Toml@v1.2.0 is not the one that")
    assert any(record.levelno == logging.ERROR and "SECURITY" in record.message for record in caplog.records)
    scene.upstream.answers[path] = Answer(TOML.mod)
    assert (await scene.get(f"{TOML.base}.mod"))[0] == 502
    assert scene.upstream.asked.count(f"GET {path}") == 1
    scene.world.clock.forward(60)
    assert await scene.get(f"{TOML.base}.mod") == (200, TOML.mod)


async def test_another_zip_than_the_database_knows_breaks_off_and_is_not_kept(scene: Scene) -> None:
    path = f"{TOML.base}.zip".replace("!", "%21")
    changed = Module(TOML.path, TOML.version, extra={"backdoor.go": b"package toml\n"})
    scene.upstream.answers[path] = Answer(changed.zip)
    with pytest.raises(BodyBroken):
        await scene.get(f"{TOML.base}.zip")
    status, text = await scene.get(f"{TOML.base}.zip")
    assert status == 502
    assert text.startswith(b"SECURITY: upstream's zip of example.com/BurntWood/Toml@v1.2.0 is not the one that")
    assert not any(path.endswith(".zip") for _, path in scene.world.catalog.files)
    scene.upstream.answers[path] = Answer(TOML.zip)
    scene.world.clock.forward(60)
    assert await scene.get(f"{TOML.base}.zip") == (200, TOML.zip)


async def test_tiles_that_were_kept_for_another_key_are_in_nobodys_way(scene: Scene) -> None:
    assert (await scene.sums(LOOKUP))[0] == 200
    stranger = SignerKey.generate(NAME)
    scene.signer = stranger
    scene.answers.database = other = forked(scene)
    other.signer = stranger
    mirror = scene.proxy()
    path = "lookup/example.com/tools/v2@v2.3.0"
    assert await scene.sums(path, mirror) == (200, other.lookup(TOOLS.path, TOOLS.version))


async def test_what_the_database_does_not_know_is_not_believed(scene: Scene) -> None:
    app = GRAPH[0]
    status, text = await scene.get(f"{app.base}.mod")
    assert status == 502
    assert b"sums.example.test does not know example.com/app@v1.9.0" in text
    assert (await scene.sums("lookup/example.com/app@v1.9.0"))[0] == 404


async def test_private_modules_are_served_and_named_to_nobody(nursery: trio.Nursery) -> None:
    scene = Scene(World(nursery), private=("corp.example.test/Sec*",), through=True)
    assert await scene.get(f"{SECRET.base}.mod") == (200, SECRET.mod)
    for version in ("v1.0.0", "v1.9.9"):
        status, text = await scene.sums(f"lookup/corp.example.test/!secret/x@{version}")
        assert status == 403
        assert b"set GONOSUMDB=corp.example.test/Sec* (GOPRIVATE" in text
    assert not scene.direct.asked
    assert not any("sumdb" in path for path in scene.upstream.asked)


async def test_a_mirror_that_passes_the_database_on_is_asked_instead_of_it(nursery: trio.Nursery) -> None:
    scene = Scene(World(nursery), through=True)
    answers = _Answers(scene.database, f"sumdb/{NAME}/")
    answers.update(scene.upstream.answers)
    answers[f"sumdb/{NAME}/supported"] = Answer(b"")
    scene.upstream.answers = answers
    assert (await scene.sums(LOOKUP))[0] == 200
    assert not scene.direct.asked


async def test_a_mirror_that_does_not_is_asked_whether_it_does_and_the_database_itself_then(
    nursery: trio.Nursery,
) -> None:
    scene = Scene(World(nursery), through=True)
    assert (await scene.sums(LOOKUP))[0] == 200
    assert (await scene.sums("lookup/example.com/tools/v2@v2.3.0"))[0] == 200
    assert scene.upstream.asked == [f"GET sumdb/{NAME}/supported"]


async def test_trouble_at_the_mirror_does_not_lead_past_it(nursery: trio.Nursery) -> None:
    scene = Scene(World(nursery), through=True)
    scene.upstream.trouble = UpstreamTimeout("the mirror hangs")
    assert (await scene.sums(LOOKUP))[0] == 504
    assert not scene.direct.asked


async def test_the_newest_tree_never_goes_back(scene: Scene) -> None:
    database = scene.database
    newest = await scene.sums("latest")
    database.size = 200
    scene.world.clock.forward(1000)
    assert await scene.sums("latest") == newest
    other = scene.proxy()
    assert await scene.sums("latest", other) == newest
    # An older tree with a look-up is usual: caches have it. The record is in the newest one.
    assert (await scene.sums(LOOKUP))[0] == 200
    database.size = None
    database.fill(700)
    scene.world.clock.forward(1000)
    assert await scene.sums("latest") == (200, database.note())
    assert await scene.sums("tile/8/0/002") == (200, database.answer("tile/8/0/002").body)


async def test_a_tree_that_grew_is_asked_for_when_a_client_knows_of_it(scene: Scene) -> None:
    await scene.sums(LOOKUP)
    scene.database.fill(1000)
    assert await scene.sums("tile/8/0/004") == (200, scene.database.answer("tile/8/0/004").body)


def forked(scene: Scene) -> Database:
    """Another history after the same beginning, signed with the same key."""
    other = Database(signer=SIGNER)
    other.fill(290)
    other.add("example.com/evil", "v1.0.0", "h1:" + "A" * 43 + "=", "h1:" + "B" * 43 + "=")
    other.fill(400)
    other.knows(TOML, TOOLS)
    return other


@pytest.mark.parametrize("larger", [True, False])
async def test_a_fork_is_told_loudly_and_nothing_of_it_is_kept(
    scene: Scene, caplog: pytest.LogCaptureFixture, larger: bool
) -> None:
    known = await scene.sums(LOOKUP)
    head = await scene.sums("latest")
    other = forked(scene)
    if not larger:
        other.size = 310
    scene.answers.database = other
    status, text = await scene.sums("lookup/example.com/tools/v2@v2.3.0")
    assert status == 502
    assert text.startswith(b"SECURITY: the checksum database sums.example.test contradicts itself")
    alarms = [record.message for record in caplog.records if "has forked" in record.message]
    assert len(alarms) == 1
    assert other.note().decode() in alarms[0]
    assert head[1].decode() in alarms[0]
    asked = len(scene.direct.asked)
    assert (await scene.sums("lookup/example.com/tools/v2@v2.3.0"))[0] == 502
    assert (await scene.get(f"{TOOLS.base}.mod"))[0] == 502
    assert len(scene.direct.asked) == asked
    assert await scene.sums(LOOKUP) == known
    assert await scene.sums("latest") == head
    scene.answers.database = scene.database
    scene.world.clock.forward(100)
    assert (await scene.sums("lookup/example.com/tools/v2@v2.3.0"))[0] == 200


async def test_another_tree_of_the_same_size_is_a_fork(scene: Scene) -> None:
    await scene.sums("latest")
    size = len(scene.database.log.records)
    note = SIGNER.sign(str(Tree(size, bytes(32))))
    lookup = scene.database.lookup(TOML.path, TOML.version).replace(scene.database.note(), note)
    scene.answers[LOOKUP.replace("!", "%21")] = Answer(lookup)
    status, text = await scene.sums(LOOKUP)
    assert (status, text[:9]) == (502, b"SECURITY:")


async def test_what_another_key_has_signed_is_not_believed(scene: Scene) -> None:
    stranger = copy.copy(scene.database)
    stranger.signer = SignerKey.generate(NAME)
    scene.answers.database = stranger
    for path in (LOOKUP, "latest"):
        status, text = await scene.sums(path)
        assert status == 502
        assert b"not signed by the key" in text
    assert (await scene.get(f"{TOML.base}.mod"))[0] == 502


async def test_a_record_that_is_not_in_the_tree_is_not_believed(scene: Scene) -> None:
    path = LOOKUP.replace("!", "%21")
    right = scene.database.lookup(TOML.path, TOML.version)
    _, _, rest = right.partition(b"\n")
    for wrong in (
        right.replace(b"h1:", b"h1:A", 1)[:-1],
        b"7\n" + rest,
        b"99999\n" + rest,
        right.replace(b" v1.2.0 h1:", b" v1.2.0 h2:"),
        right.replace(TOML.path.encode(), b"example.com/another"),
        b"<html>Log in</html>\n",
        b"",
    ):
        scene.answers[path] = Answer(wrong)
        status, _ = await scene.sums(LOOKUP)
        assert status == 502, wrong
    del scene.answers[path]
    assert await scene.sums(LOOKUP) == (200, right)


async def test_wrong_tiles_prove_nothing_and_are_not_kept(scene: Scene) -> None:
    tile = "tile/8/0/001.p/66"
    assert len(scene.database.log.records) == 322
    for wrong in (bytes(66 * 32), b"", bytes(5), b"<html>"):
        scene.answers[tile] = Answer(wrong)
        assert (await scene.sums(LOOKUP))[0] == 502
        assert (await scene.sums("tile/8/0/001.p/9"))[0] == 502
    del scene.answers[tile]
    assert (await scene.sums(LOOKUP))[0] == 200
    scene.answers["tile/8/data/000"] = Answer(b"lies\n\n" * 256)
    assert (await scene.sums("tile/8/data/000"))[0] == 502


async def test_a_database_that_has_only_the_whole_tile_by_now_will_do(scene: Scene) -> None:
    scene.database.size = 322
    await scene.sums("latest")
    scene.database.fill(400)
    scene.answers["tile/8/0/001.p/66"] = Answer(status=404)
    assert (await scene.sums(LOOKUP))[0] == 200


async def test_a_flood_in_place_of_an_answer_is_cut(scene: Scene) -> None:
    scene.answers["latest"] = Answer(bytes(1 << 20))
    status, text = await scene.sums("latest")
    assert status == 502
    assert b"more than" in text


@pytest.mark.parametrize(
    ("trouble", "status"), [(UpstreamUnavailable("it rests"), 503), (UpstreamTimeout("it hangs"), 504)]
)
async def test_a_database_out_of_reach_keeps_what_is_not_verified_from_everybody(
    scene: Scene, trouble: UpstreamUnavailable | UpstreamTimeout, status: int
) -> None:
    await scene.sums(LOOKUP)
    head = await scene.sums("latest")
    scene.direct.trouble = trouble
    scene.world.clock.forward(1000)
    assert await scene.get(f"{TOML.base}.mod") == (200, TOML.mod)  # what is kept of the database suffices
    assert (await scene.get(f"{TOOLS.base}.mod"))[0] == status
    assert (await scene.sums("lookup/example.com/tools/v2@v2.3.0"))[0] == status
    response, _ = await scene.world.ask(scene.mirror, f"/sumdb/{NAME}/latest")
    assert (response.status, await body_of(response)) == head
    assert (response.headers.get("warning") or "").startswith("111")
    scene.direct.trouble = None
    assert await scene.get(f"{TOOLS.base}.mod") == (200, TOOLS.mod)


async def test_a_question_that_is_given_up_is_answered_to_the_next(scene: Scene) -> None:
    gate = trio.Event()
    path = LOOKUP.replace("!", "%21")
    scene.answers[path] = Answer(scene.database.lookup(TOML.path, TOML.version), gate=gate)
    with trio.move_on_after(0):
        await scene.sums(LOOKUP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.sums, LOOKUP)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert (await scene.sums(LOOKUP))[0] == 200
    assert scene.direct.asked.count(f"GET {path}") == 1


async def test_a_group_passes_on_what_its_proxy_does(scene: Scene) -> None:
    group = Group("all", Go(), [scene.world.local("own", form=Go()), scene.mirror], "")
    assert await scene.sums("supported", group) == (200, b"")
    assert (await scene.sums(LOOKUP, group))[0] == 200
    assert (await scene.get("sumdb/sum.golang.org/supported", group))[0] == 404


async def test_a_module_of_our_own_is_never_named_to_the_database(scene: Scene) -> None:
    own = scene.world.local("own", form=Go())
    group = Group("all", Go(), [own, scene.mirror], "own")
    scene.world.publish("own", SECRET.path, f"{SECRET.base}.mod", SECRET.mod, "text/plain")
    assert own.owns(SECRET.path)
    status, text = await scene.sums("lookup/corp.example.test/!secret/x@v1.0.0", group)
    assert status == 404
    assert text.endswith(b"set GONOSUMDB for them\n")
    assert not scene.direct.asked


async def test_without_a_database_everything_is_believed_and_nothing_passed_on(scene: Scene) -> None:
    mirror = scene.world.proxy("free", form=Go(), verifier=NoSums())
    assert await scene.get(f"{GRAPH[0].base}.mod", mirror) == (200, GRAPH[0].mod)
    assert (await scene.sums("supported", mirror))[0] == 404
    assert not scene.direct.asked
