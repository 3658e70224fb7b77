"""From a repository of this server: local or a proxy that has to fetch first, with what the caller may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec.structs import replace

from kit.registry import OCI_MANIFEST, Image, image
from kit.repos import World
from kit.store import OneStore, running_store
from kit.target import FakeTarget, fake_target
from mxart.access.base import Action
from mxart.config import Replicate, Upstreams
from mxart.errors import BadRequest, Forbidden, NotFound, Unauthorized
from mxart.replicate.engine import Outcome
from mxart.replicate.run import Choice, from_repository
from mxart.repos.base import Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.upstream.dial import Dialer

APP = image(Random(3).randbytes(3 << 20))


class Granted:
    """Grants these actions on everything."""

    def __init__(self, *actions: Action) -> None:
        self._actions = actions

    def may(self, action: Action, repository: str, path: str) -> bool:
        return action in self._actions

    def demand(self, action: Action, repository: str, path: str) -> None:
        if action not in self._actions:
            raise Forbidden(f"not you: {action} {repository}:{path}")

    def sees(self, repository: str, path: str) -> bool:
        return True


MANAGER = Caller(name="boss", grants=Granted("read", "fetch", "manage"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OneStore]:
    async with running_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def target() -> AsyncIterator[FakeTarget]:
    async with fake_target() as fake:
        yield fake


@pytest.fixture
def world(nursery: trio.Nursery, store: OneStore) -> World:
    world = World(nursery)
    world.stock = replace(world.stock, blobs=store.blobs, transfers=store.transfers)
    return world


async def publish(world: World, store: OneStore, item: Image, package: str, tag: str) -> None:
    for blob in item.blobs:
        await store.blobs.put(blob.data)
        world.publish("own", package, f"{package}/blobs/{blob.digest}", blob.data, blob.media_type)
    await store.blobs.put(item.manifest.data)
    for reference in (tag, item.manifest.digest):
        world.publish("own", package, f"{package}/manifests/{reference}", item.manifest.data, OCI_MANIFEST)


async def copy(
    repository: Repository, target: FakeTarget, state: Path, *, caller: Caller = MANAGER, image: str = "team/app:1"
) -> Outcome:
    allowed = Replicate(targets=(target.url,))
    place = f"{target.url}/mirror/app"
    with trio.fail_after(30):
        return await from_repository(
            repository, caller, image, place, Dialer(Upstreams()), state, allowed, choice=Choice(chunk=1 << 20)
        )


def arrived(target: FakeTarget) -> bool:
    blobs = all(target.blobs.get(f"mirror/app@{blob.digest}") == blob.data for blob in APP.blobs)
    return blobs and target.manifests["mirror/app:1"] == (OCI_MANIFEST, APP.manifest.data)


async def test_what_was_published_here(world: World, store: OneStore, target: FakeTarget, tmp_path: Path) -> None:
    await publish(world, store, APP, "team/app", "1")
    target.cuts = [300_000]
    outcome = await copy(world.local(), target, tmp_path / "state")
    assert arrived(target)
    assert outcome.bytes_sent == sum(len(blob.data) for blob in APP.blobs) == target.received


async def test_what_a_proxy_has_to_fetch_first(world: World, target: FakeTarget, tmp_path: Path) -> None:
    for blob in APP.blobs:
        world.upstream.add_blob("team/app", blob.data)
    world.upstream.add_manifest("team/app", APP.manifest.data, "1", media_type=OCI_MANIFEST)
    await copy(world.proxy(), target, tmp_path / "state")
    assert arrived(target)
    layer = f"GET v2/team/app/blobs/{APP.layers[0].digest}"
    assert world.upstream.asked.count(layer) == 1  # however many chunks were sent
    assert world.upstream.open_replies == 0


@pytest.mark.parametrize(
    ("caller", "error"),
    [(NOBODY, Unauthorized), (Caller(name="reader", grants=Granted("read", "fetch", "publish")), Forbidden)],
)
async def test_who_does_not_manage_it_makes_us_dial_nobody(
    world: World, store: OneStore, target: FakeTarget, tmp_path: Path, caller: Caller, error: type[Exception]
) -> None:
    await publish(world, store, APP, "team/app", "1")
    with pytest.raises(error, match="manage"):
        await copy(world.local(), target, tmp_path / "state", caller=caller)
    assert target.requests == []


async def test_who_manages_and_may_not_read_gets_nothing_out(
    world: World, store: OneStore, target: FakeTarget, tmp_path: Path
) -> None:
    await publish(world, store, APP, "team/app", "1")
    with pytest.raises(Forbidden, match="not you: read"):
        await copy(world.local(), target, tmp_path / "state", caller=Caller(name="x", grants=Granted("manage")))
    assert target.requests == []


async def test_an_image_that_is_not_here_is_told(world: World, target: FakeTarget, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="own/team/app has no 1"):
        await copy(world.local(), target, tmp_path / "state")
    with pytest.raises(BadRequest):
        await copy(world.local(), target, tmp_path / "state", image="Team/App")
    assert target.requests == []
