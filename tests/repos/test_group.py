"""Groups: what the team owns is never asked of others, and a member's trouble never becomes "not found"."""

from __future__ import annotations

import json

import pytest
import trio

from kit.repos import Answer, FakeUpstream, World, body_of, code_of, manifest
from mxart.errors import ConfigError, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.repos.group import Group, building_order
from mxart.repos.oci import media
from mxart.repos.oci.format import Oci

OURS, THEIRS = manifest("ours"), manifest("theirs")


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def publish(world: World, repository: str, package: str, tag: str, data: bytes = OURS) -> None:
    world.publish(repository, package, f"{package}/manifests/{tag}", data, media.MANIFEST)


def upstream(package: str, *tags: str) -> FakeUpstream:
    made = FakeUpstream()
    made.add_manifest(package, THEIRS, *tags, media_type=media.MANIFEST)
    add_list(made, package, *tags)
    return made


def add_list(made: FakeUpstream, package: str, *tags: str) -> None:
    made.answers[f"v2/{package}/tags/list"] = Answer(json.dumps({"tags": tags}).encode())


def group(*members: object) -> Group:
    return Group("all", Oci(), members)  # type: ignore[arg-type] # repositories, as the tests make them


async def test_the_first_member_that_has_it_answers(world: World) -> None:
    one, two = upstream("a/x", "1"), upstream("a/y", "1")
    both = group(world.proxy("one", upstream=one), world.proxy("two", upstream=two))
    response, _ = await world.ask(both, "/v2/a/y/manifests/1")
    assert await body_of(response) == THEIRS
    assert one.asked
    response, _ = await world.ask(both, "/v2/a/x/manifests/1")
    assert await body_of(response) == THEIRS
    assert not [line for line in two.asked if "a/x" in line]


async def test_a_name_that_a_local_member_owns_is_never_asked_of_a_proxy(world: World) -> None:
    other = upstream("team/app", "1", "2")
    publish(world, "own", "team/app", "1")
    # Even where the proxy comes first.
    both = group(world.proxy(upstream=other), world.local())
    response, trace = await world.ask(both, "/v2/team/app/manifests/1")
    assert (await body_of(response), trace.outcome) == (OURS, "local")
    response, _ = await world.ask(both, "/v2/team/app/manifests/2")
    assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")
    response, _ = await world.ask(both, "/v2/team/app/tags/list")
    assert json.loads(await body_of(response))["tags"] == ["1"]
    response, _ = await world.ask(both, f"/v2/team/app/blobs/sha256:{'0' * 64}")
    assert response.status == 404
    assert not other.asked


async def test_ownership_reaches_through_nested_groups(world: World) -> None:
    other = upstream("team/app", "1")
    publish(world, "own", "team/app", "1")
    inner = Group("inner", Oci(), [world.proxy("deep", upstream=other), world.local()])
    outer = group(world.proxy("flat", upstream=other), Group("middle", Oci(), [inner]))
    response, _ = await world.ask(outer, "/v2/team/app/manifests/1")
    assert await body_of(response) == OURS
    assert not other.asked


@pytest.mark.parametrize(
    "trouble", [UpstreamFailed("401"), UpstreamUnavailable("429", retry_after=3), UpstreamTimeout("slow")]
)
@pytest.mark.parametrize("failing_first", [True, False])
async def test_a_members_trouble_never_becomes_not_found(
    world: World, trouble: UpstreamFailed, failing_first: bool
) -> None:
    failing = FakeUpstream()
    failing.trouble = trouble
    members = [world.proxy("failing", upstream=failing), world.proxy("empty", upstream=FakeUpstream()), world.local()]
    both = group(*(members if failing_first else reversed(members)))
    for target in ("/v2/a/manifests/1", f"/v2/a/blobs/sha256:{'0' * 64}", "/v2/a/tags/list"):
        response, _ = await world.ask(both, target)
        assert response.status == trouble.status
        assert code_of(response) == "UNAVAILABLE"
        assert response.headers.get("retry-after") == ("3" if trouble.retry_after else None)


async def test_another_member_may_help_out(world: World) -> None:
    failing = FakeUpstream()
    failing.trouble = UpstreamTimeout("slow")
    both = group(world.proxy("failing", upstream=failing), world.proxy("good", upstream=upstream("a", "1")))
    response, trace = await world.ask(both, "/v2/a/manifests/1")
    assert await body_of(response) == THEIRS
    assert trace.notes == ["failing: slow"]


async def test_not_found_is_said_when_every_member_says_so(world: World) -> None:
    both = group(world.local(), world.proxy("one", upstream=FakeUpstream()))
    response, _ = await world.ask(both, "/v2/a/manifests/1")
    assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")
    response, _ = await world.ask(both, "/v2/a/tags/list")
    assert (response.status, code_of(response)) == (404, "NAME_UNKNOWN")


async def test_tags_are_merged_in_ascii_order_and_paged(world: World) -> None:
    one, two = upstream("a", "10", "b", "Z"), upstream("a", "9", "b", "c")
    both = group(world.proxy("one", upstream=one), world.proxy("two", upstream=two), world.local())
    seen: list[str] = []
    target: str | None = "/v2/a/tags/list?n=2"
    while target is not None:
        response, _ = await world.ask(both, target)
        seen += json.loads(await body_of(response))["tags"]
        link = response.headers.get("link")
        target = link[1 : link.index(">")] if link else None
    assert seen == ["10", "9", "Z", "b", "c"]


async def test_a_merged_list_is_stale_and_marked_or_refused_but_never_short(world: World) -> None:
    one, two = upstream("a", "1"), upstream("a", "2")
    both = group(world.proxy("one", upstream=one), world.proxy("two", upstream=two))
    two.trouble = UpstreamFailed("500")
    response, _ = await world.ask(both, "/v2/a/tags/list")
    assert response.status == 502
    two.trouble = None
    await world.ask(both, "/v2/a/tags/list")
    two.trouble = UpstreamFailed("500")
    world.clock.forward(301)
    response, trace = await world.ask(both, "/v2/a/tags/list")
    assert json.loads(await body_of(response))["tags"] == ["1", "2"]
    assert trace.outcome == "stale"
    assert str(response.headers.get("warning")).startswith("111 - ")


async def test_the_catalog_of_a_group_is_what_its_local_members_hold(world: World) -> None:
    publish(world, "own", "b", "1")
    publish(world, "more", "a", "1")
    publish(world, "more", "b", "1")
    both = group(world.local(), world.proxy(), world.local("more"))
    response, _ = await world.ask(both, "/v2/_catalog?n=1")
    assert json.loads(await body_of(response)) == {"repositories": ["a"]}
    assert response.headers.get("link") == '</v2/_catalog?n=1&last=a>; rel="next"'
    response, _ = await world.ask(both, "/v2/_catalog?n=1&last=a")
    assert json.loads(await body_of(response)) == {"repositories": ["b"]}
    assert response.headers.get("link") is None


def test_groups_are_built_after_their_members() -> None:
    groups = {"top": ["middle", "x"], "bottom": ["x"], "middle": ["bottom"]}
    assert building_order(groups, ["x"]) == ("bottom", "middle", "top")


def test_a_cycle_is_refused_and_its_chain_named() -> None:
    with pytest.raises(ConfigError, match="b → c → b"):
        building_order({"a": ["b"], "b": ["x", "c"], "c": ["b"]}, ["x"])
    with pytest.raises(ConfigError, match="a → a"):
        building_order({"a": ["a"]}, [])


def test_an_unknown_member_is_refused_and_its_chain_named() -> None:
    with pytest.raises(ConfigError, match=r"no repository y.*a → b → y"):
        building_order({"a": ["b"], "b": ["y"]}, ["x"])


async def test_a_group_refuses_itself_and_emptiness(world: World) -> None:
    with pytest.raises(ConfigError):
        Group("empty", Oci(), [])
    with pytest.raises(ConfigError, match="all → all"):
        group(Group("all", Oci(), [world.local()]))
