"""Callers who may read what a proxy keeps, and not have it ask upstream for more."""

from __future__ import annotations

import json

import pytest
import trio

from kit.guarded import Guarded
from kit.publishing import Rights
from kit.repos import Answer, World, body_of, code_of, manifest
from mxart.errors import UpstreamFailed
from mxart.message import Response
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.oci import media
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

READER = Caller(name="reader", grants=Rights(read=["hub:library/app"]))
FETCHER = Caller(name="fetcher", grants=Rights(read=["hub:library/app"], fetch=["hub:library/app"]))
IMAGE = manifest("app")
TAG = "/v2/library/app/manifests/1"


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    world = World(nursery)
    world.upstream.add_manifest("library/app", IMAGE, "1", media_type=media.MANIFEST)
    world.upstream.answers["v2/library/app/tags/list"] = Answer(json.dumps({"tags": ["1"]}).encode())
    return world


async def ask(world: World, hub: Proxy, target: str, caller: Caller) -> Response:
    return await world.send(hub, "GET", target, caller=caller)


async def test_what_is_not_kept_is_refused_to_who_may_not_fetch(world: World) -> None:
    hub = world.proxy()
    digest = world.upstream.add_blob("library/app", b"layer")
    for target in (
        TAG,
        f"/v2/library/app/blobs/{digest}",
        "/v2/library/app/tags/list",
        f"/v2/library/app/referrers/{digest}",
    ):
        response = await ask(world, hub, target, READER)
        assert (response.status, code_of(response)) == (403, "DENIED")
        assert b"fetch library/app in hub" in await body_of(response)
    assert not world.upstream.asked


async def test_what_others_had_fetched_is_served(world: World) -> None:
    hub = world.proxy()
    for target in (TAG, "/v2/library/app/tags/list"):
        fetched = await body_of(await ask(world, hub, target, FETCHER))
        asked = len(world.upstream.asked)
        response = await ask(world, hub, target, READER)
        assert (await body_of(response), len(world.upstream.asked)) == (fetched, asked)


async def test_what_is_old_is_shown_to_him_as_it_is_and_to_others_as_upstream_has_it(world: World) -> None:
    hub = world.proxy()
    await ask(world, hub, TAG, FETCHER)
    world.clock.forward(301)
    world.upstream.add_manifest("library/app", manifest("new"), "1", media_type=media.MANIFEST)
    for _ in range(2):
        response = await ask(world, hub, TAG, READER)
        assert (await body_of(response), str(response.headers.get("warning"))[:4]) == (IMAGE, "110 ")
    response = await ask(world, hub, TAG, FETCHER)
    assert (await body_of(response), response.headers.get("warning")) == (manifest("new"), None)
    response = await ask(world, hub, TAG, READER)
    assert await body_of(response) == manifest("new")


async def test_trouble_of_upstream_is_not_a_matter_of_rights(world: World) -> None:
    world.upstream.trouble = UpstreamFailed("500")
    response = await ask(world, world.proxy(), TAG, FETCHER)
    assert response.status == 502


async def test_a_package_in_doubt_is_not_shown_to_who_may_not_have_it_asked_for(world: World) -> None:
    registry = Guarded()
    registry.add_manifest("library/app", IMAGE, "1", media_type=media.MANIFEST)
    registry.public = {"library/app"}
    hub = world.proxy(upstream=registry, rules=Rules(relay="denied"))
    assert (await ask(world, hub, TAG, READER)).status == 403
    assert (await ask(world, hub, TAG, FETCHER)).status == 200
    assert (await ask(world, hub, TAG, READER)).status == 200
    registry.public = set()
    world.clock.forward(301)
    assert (await ask(world, hub, TAG, NOBODY)).status == 401  # upstream denies it from now on
    assert (await ask(world, hub, TAG, READER)).status == 403
