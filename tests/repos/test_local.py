"""What was published here."""

from __future__ import annotations

import json

import pytest
import trio

from kit.repos import World, body_of, code_of, manifest
from mxart.repos.oci import media


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


async def test_an_unknown_name_and_an_unknown_tag_are_told_apart(world: World) -> None:
    world.publish("own", "a", "a/manifests/1", manifest(), media.MANIFEST)
    response, _ = await world.ask(world.local(), "/v2/a/manifests/2")
    assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")
    for target in ("/v2/b/manifests/1", "/v2/b/tags/list"):
        response, _ = await world.ask(world.local(), target)
        assert (response.status, code_of(response)) == (404, "NAME_UNKNOWN")


async def test_published_bytes_that_are_lost_are_not_not_found(world: World) -> None:
    world.publish("own", "a", "a/manifests/1", manifest(), media.MANIFEST)
    world.blobs.kept.clear()
    response, _ = await world.ask(world.local(), "/v2/a/manifests/1")
    assert response.status == 500


async def test_a_tag_that_moves_is_seen_at_once_also_by_another_worker(world: World) -> None:
    own = world.local()
    for mark in ("one", "two"):
        world.publish("own", "a", "a/manifests/1", manifest(mark), media.MANIFEST)
        response, trace = await world.ask(own, "/v2/a/manifests/1")
        assert (await body_of(response), trace.outcome) == (manifest(mark), "local")


async def test_an_unrelated_change_does_not_make_the_store_be_read_again(world: World) -> None:
    own = world.local()
    world.publish("own", "a", "a/manifests/1", manifest(), media.MANIFEST)
    await world.ask(own, "/v2/a/manifests/1")
    reads = world.blobs.reads
    world.publish("own", "b", "b/manifests/1", manifest("b"), media.MANIFEST)
    response, _ = await world.ask(own, "/v2/a/manifests/1")
    assert (await body_of(response), world.blobs.reads) == (manifest(), reads)


async def test_a_use_is_noted_now_and_then(world: World) -> None:
    own = world.local()
    world.publish("own", "a", "a/manifests/1", manifest(), media.MANIFEST)
    for _ in range(50):
        await world.ask(own, "/v2/a/manifests/1")
    assert world.catalog.uses["own", "a/manifests/1"] == 1
    world.clock.forward(61)
    await world.ask(own, "/v2/a/manifests/1")
    assert world.catalog.uses["own", "a/manifests/1"] == 2


async def test_a_very_long_list_is_complete(world: World) -> None:
    tags = [f"{number:05}" for number in range(2500)]
    for tag in tags:
        world.publish("own", "a", f"a/manifests/{tag}", b"{}", media.MANIFEST)
    response, _ = await world.ask(world.local(), "/v2/a/tags/list")
    assert json.loads(await body_of(response))["tags"] == tags
    response, _ = await world.ask(world.local(), "/v2/a/tags/list?n=2000")
    assert json.loads(await body_of(response))["tags"] == tags[:2000]
    assert response.headers.get("link") is not None
    response, _ = await world.ask(world.local(), "/v2/a/tags/list?n=2500")
    assert response.headers.get("link") is None


async def test_the_catalog_names_every_package(world: World) -> None:
    for package in ("b/c", "a"):
        world.publish("own", package, f"{package}/manifests/1", b"{}", media.MANIFEST)
    response, _ = await world.ask(world.local(), "/v2/_catalog")
    assert json.loads(await body_of(response)) == {"repositories": ["a", "b/c"]}
