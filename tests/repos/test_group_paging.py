"""Pages of a group's lists, whatever its members hold and however few are asked for at a time."""

from __future__ import annotations

import json
import random

import pytest
import trio

from kit.repos import Answer, FakeUpstream, World, body_of
from mxart.repos.base import Repository
from mxart.repos.group import Group
from mxart.repos.oci.format import Oci

COMPANION = "sha256-" + "0" * 64 + ".sig"


async def pages(world: World, repository: Repository, target: str) -> list[list[str]]:
    found: list[list[str]] = []
    following: str | None = target
    while following is not None:
        response, _ = await world.ask(repository, following)
        assert response.status == 200
        found.append(json.loads(await body_of(response))["tags"])
        link = response.headers.get("link")
        following = link[1 : link.index(">")] if link else None
    return found


@pytest.mark.parametrize("seed", range(30))
async def test_every_tag_of_every_member_is_on_one_page_and_in_order(nursery: trio.Nursery, seed: int) -> None:
    rng = random.Random(seed)
    world = World(nursery)
    names = [f"{'Vv'[n % 2]}{n}" for n in range(12)]
    members: list[Repository] = []
    everything: set[str] = set()
    for number in range(rng.randint(1, 4)):
        tags = rng.sample(names, rng.randint(0, len(names)))
        everything |= set(tags)
        upstream = FakeUpstream()
        upstream.answers["v2/a/tags/list"] = Answer(json.dumps({"tags": tags}).encode())
        members.append(world.proxy(f"p{number}", upstream=upstream))
    inner = Group("inner", Oci(), members[:2])
    group = Group("all", Oci(), [inner, *members[1:]])
    for limit in range(1, 14):
        found = await pages(world, group, f"/v2/a/tags/list?n={limit}")
        assert [tag for page in found for tag in page] == sorted(everything)
        assert all(len(page) == limit for page in found[:-1])
        assert len(found[-1]) <= limit
        assert found[-1] or not everything
    (whole,) = await pages(world, group, "/v2/a/tags/list")
    assert whole == sorted(everything)


async def test_tags_that_are_remarks_stand_beside_an_upstreams(nursery: trio.Nursery) -> None:
    world = World(nursery)
    world.upstream.answers["v2/a/tags/list"] = Answer(b'{"tags": ["1"]}')
    world.publish("own", "a", f"a/manifests/{COMPANION}", b"{}", "x/y")
    group = Group("all", Oci(), [world.local(), world.proxy()], "own")
    assert await pages(world, group, "/v2/a/tags/list?n=1") == [["1"], [COMPANION]]
    world.publish("own", "a", "a/manifests/ours", b"{}", "x/y")
    assert await pages(world, group, "/v2/a/tags/list") == [["ours", COMPANION]]
