"""Small files that upstream has for good are answered first and kept then; that shows in nothing but the time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from msgspec import structs

from kit.modules import GRAPH, TOML
from kit.repos import Answer, SlowDisk, World, body_of
from mxart.errors import Problem, StorageFull
from mxart.repos.base import Repository
from mxart.repos.behind import Behind
from mxart.repos.go.format import Go
from mxart.repos.group import Group

INFO = f"{TOML.base}.info"
MOD = f"{TOML.base}.mod"


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    made = World(nursery)
    for module in GRAPH:
        for kind, data in (("info", module.info), ("mod", module.mod)):
            made.upstream.answers[f"{module.base}.{kind}".replace("!", "%21")] = Answer(data)
    return made


@pytest.fixture
def disk(world: World) -> SlowDisk:
    made = SlowDisk()
    world.stock = structs.replace(world.stock, blobs=made)
    return made


async def get(world: World, repository: Repository, path: str) -> bytes:
    response, _ = await world.ask(repository, f"/{path}")
    assert response.status == 200
    return await body_of(response)


async def test_nobody_waits_for_the_disk_and_upstream_is_asked_once(world: World, disk: SlowDisk) -> None:
    mirror = world.proxy("mirror", form=Go())
    for _ in range(3):
        assert await get(world, mirror, INFO) == TOML.info
    assert (len(world.upstream.asked), disk.begun) == (1, 1)
    assert world.catalog.file("mirror", INFO) is None
    disk.turning.set()
    await world.stock.behind.settle()
    assert world.catalog.file("mirror", INFO) is not None
    assert await get(world, mirror, INFO) == TOML.info
    assert (len(world.upstream.asked), disk.begun) == (1, 1)


async def test_what_is_still_being_kept_has_a_place_in_a_group_already(world: World, disk: SlowDisk) -> None:
    """All files of a version come from one member: from the moment on that somebody was given the first."""
    second = world.proxy("second", form=Go())
    group = Group("all", Go(), [world.proxy("first", form=Go()), second])
    assert await get(world, second, INFO) == TOML.info
    assert second.keeps([INFO])
    assert await get(world, group, MOD) == TOML.mod
    assert second.keeps([MOD])
    disk.turning.set()
    await world.stock.behind.settle()
    assert world.catalog.file("second", MOD) is not None
    assert world.catalog.file("first", MOD) is None


async def test_what_cannot_be_kept_was_answered_all_the_same_and_is_fetched_again(
    world: World, disk: SlowDisk, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = world.proxy("mirror", form=Go())
    for number, problem in enumerate((StorageFull("full"), Problem("the catalog cannot be used"))):
        disk.turning, disk.problem = trio.Event(), problem
        assert await get(world, mirror, INFO) == TOML.info
        disk.turning.set()
        await world.stock.behind.settle()
        await trio.testing.wait_all_tasks_blocked()
        assert not mirror.keeps([INFO])
        assert len(world.upstream.asked) == number + 1
    assert "is served but not kept: full" in caplog.text
    assert "what was answered already is not kept: the catalog cannot be used" in caplog.text


async def test_a_disk_that_is_slower_than_upstream_is_waited_for_in_the_end(world: World, disk: SlowDisk) -> None:
    mirror = world.proxy("mirror", form=Go(), stock=structs.replace(world.stock, behind=Behind(2)))
    paths = [f"{module.base}.mod" for module in GRAPH[:3]]
    assert await get(world, mirror, paths[0])
    assert await get(world, mirror, paths[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, world, mirror, paths[2])
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        disk.turning.set()
    assert world.catalog.file("mirror", paths[2]) is not None


async def test_a_branch_is_kept_before_it_is_answered(world: World, disk: SlowDisk) -> None:
    """It may mean something else tomorrow: who has seen it must not be told of an older one."""
    branch = f"{TOML.base.rpartition('/')[0]}/main.info"
    world.upstream.answers[branch.replace("!", "%21")] = Answer(TOML.info)
    mirror = world.proxy("mirror", form=Go())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, world, mirror, branch)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(nursery.child_tasks), disk.begun) == (1, 1)
        disk.turning.set()
    assert world.catalog.file("mirror", branch) is not None


async def test_a_server_that_stops_waits_for_what_was_answered() -> None:
    behind = Behind()
    assert behind.begin("mirror", INFO)
    assert not behind.begin("mirror", INFO)
    settled = False
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            nonlocal settled
            await behind.settle()
            settled = True

        nursery.start_soon(stop)
        await trio.testing.wait_all_tasks_blocked()
        assert behind.begin("mirror", MOD)
        behind.end("mirror", INFO)
        await trio.testing.wait_all_tasks_blocked()
        assert not settled
        behind.end("mirror", MOD)
    assert settled
