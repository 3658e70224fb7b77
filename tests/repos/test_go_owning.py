"""Names belong to a repository before anything is there under them: nobody else is asked, or can have them."""

from __future__ import annotations

import pytest
import trio

from kit.modules import TOML, TOOLS, Module
from kit.publishing import EVERYTHING
from kit.repos import Answer, FakeUpstream, World, body_of
from kit.settings import configured
from mxart.build_trust import Trust
from mxart.errors import ConfigError, UpstreamFailed
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.go.format import Go
from mxart.repos.go.sums import Private
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.owning import Owning, OwningProxy, owning
from mxart.repos.sums import NoSums

CORP = Module("corp.example.test/New/thing", "v1.0.0")
FAKE = Module("corp.example.test/New/thing", "v1.9.9")
ALICE = Caller(name="alice", grants=EVERYTHING)


class Scene:
    """Somebody has put a module of ours where everybody's are."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.public = FakeUpstream()
        self.corp = FakeUpstream()
        fill(self.public, FAKE, TOML, TOOLS)
        self.everybody = world.proxy("public", form=Go(), upstream=self.public, verifier=NoSums())

    def owning(self, *patterns: str) -> OwningProxy:
        world, upstream = self.world, self.corp
        return OwningProxy(
            Owning("corp", Private(patterns)),
            "corp",
            Go(),
            upstream,
            world.stock,
            nursery=world.nursery,
            origin=upstream.origin,
            clock=world.clock,
            verifier=NoSums(),
        )

    def reserving(self, *patterns: str) -> Local:
        return Local("own", Go(), self.world.stock, self.world.clock, reserved=Owning("own", Private(patterns)))

    async def get(self, path: str, repository: Repository) -> tuple[int, str]:
        response, _ = await self.world.ask(repository, f"/{path}".replace("!", "%21"))
        return response.status, (await body_of(response)).decode("utf-8", "replace")


def fill(upstream: FakeUpstream, *modules: Module) -> None:
    for module in modules:
        folder = module.base.rpartition("/")[0].replace("!", "%21")
        for kind, data in (("mod", module.mod), ("zip", module.zip), ("info", module.info)):
            upstream.answers[f"{module.base}.{kind}".replace("!", "%21")] = Answer(data)
        upstream.answers[f"{folder}/list"] = Answer(f"{module.version}\n".encode())
        upstream.answers[f"{folder.removesuffix('/@v')}/@latest"] = Answer(module.info)


def questions(module: Module) -> list[str]:
    folder = module.base.rpartition("/")[0]
    base = module.base
    latest = f"{folder.removesuffix('/@v')}/@latest"
    lookup = f"sumdb/sum.golang.org/lookup/{base.replace('/@v/', '@')}"
    return [f"{folder}/list", latest, f"{base}.info", f"{base}.mod", f"{base}.zip", lookup]


@pytest.fixture
def scene(nursery: trio.Nursery) -> Scene:
    return Scene(World(nursery))


async def test_what_is_reserved_is_asked_of_nobody_else_before_it_is_published(scene: Scene) -> None:
    own = scene.reserving("corp.example.test")
    group = Group("go", Go(), (Group("inner", Go(), (scene.everybody, own)),))
    for path in questions(FAKE):
        assert (await scene.get(path, group))[0] == 404
    assert scene.public.asked == []
    response = await scene.world.send(own, "PUT", f"/{CORP.base}.zip".replace("!", "%21"), CORP.zip, caller=ALICE)
    assert response.status == 201
    assert (await scene.get(questions(CORP)[0], group)) == (200, "v1.0.0\n")
    assert scene.public.asked == []
    assert (await scene.get(f"{TOML.base}.mod", group)) == (200, TOML.mod.decode())


async def test_what_is_not_reserved_may_be_published_all_the_same(scene: Scene) -> None:
    own = scene.reserving("corp.example.test")
    response = await scene.world.send(own, "PUT", f"/{TOOLS.base}.zip", TOOLS.zip, caller=ALICE)
    assert response.status == 201
    assert own.owns(TOOLS.path)
    assert not own.owns("example.com/never")


async def test_what_belongs_to_a_proxy_comes_from_there_and_nothing_else_does(scene: Scene) -> None:
    corp = scene.owning("corp.example.test", "other.example.test/*")
    for members in ((corp, scene.everybody), (scene.everybody, corp)):
        group = Group("go", Go(), members)
        for path in questions(FAKE):
            status, text = await scene.get(path, group)
            assert status == 404
            if "sumdb" not in path:
                assert "by corp.example.test: only repository corp is asked for it" in text
        assert not any("corp.example" in path for path in scene.public.asked)
        assert (await scene.get(f"{TOML.base}.mod", group)) == (200, TOML.mod.decode())
    assert not any("oml" in path for path in scene.corp.asked)
    status, text = await scene.get(f"{TOML.base}.mod", corp)
    assert (status, "is none of the modules of corp" in text) == (404, True)
    scene.world.clock.forward(10_000)
    fill(scene.corp, CORP)
    assert (await scene.get(questions(CORP)[0], group)) == (200, "v1.0.0\n")
    assert (await scene.get(questions(CORP)[4], group))[0] == 200
    assert not any("corp.example" in path for path in scene.public.asked)


async def test_its_trouble_is_no_reason_to_ask_elsewhere(scene: Scene) -> None:
    group = Group("go", Go(), (scene.everybody, scene.owning("corp.example.test")))
    scene.corp.trouble = UpstreamFailed("down")
    for path in questions(FAKE)[:5]:
        assert (await scene.get(path, group))[0] == 502
    assert scene.public.asked == []


def test_no_patterns_own_nothing() -> None:
    assert owning("x", None) is None
    assert owning("x", Private()) is None


@pytest.mark.parametrize("kind", ['kind = "local"', 'kind = "proxy"\nupstream = "https://proxy.golang.org"'])
def test_patterns_are_read_from_the_configuration(kind: str) -> None:
    text = f'[repository.own]\nformat = "go"\n{kind}\nmodules = ["corp.test/*,other.test"]\n'
    trust = Trust.read(configured(text))
    assert trust.modules["own"].patterns == ("corp.test/*", "other.test")
    with pytest.raises(ConfigError, match=r"repository\.own\.modules: .*no pattern as GOPRIVATE"):
        Trust.read(configured(text.replace("other.test", "[a-")))
