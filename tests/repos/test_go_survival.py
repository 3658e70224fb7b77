"""Hostile and broken modules through a proxy: nobody has the last of them, nothing is kept, and the next is told."""

from __future__ import annotations

import gzip
import struct
import zipfile
from functools import partial

import pytest
import trio
import trio.testing

from kit.modules import GRAPH, Module, zipped
from kit.repos import Answer, World, body_of
from mxart.errors import BodyBroken, UpstreamUnavailable
from mxart.repos.go.format import Go
from mxart.repos.go.requests import MAX_PATH
from mxart.repos.go.zips import MAX_ZIP
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

LIB = Module("example.com/lib", "v1.0.0")
PREFIX = f"{LIB.path}@{LIB.version}/"
ZIP = f"{LIB.base}.zip"
LIST = f"{LIB.path}/@v/list"


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


@pytest.fixture
def mirror(world: World) -> Proxy:
    for kind in ("info", "mod"):
        world.upstream.answers[f"{LIB.base}.{kind}"] = Answer(getattr(LIB, kind))
    return world.proxy("mirror", form=Go(), rules=Rules(ttl=60))


async def get(world: World, mirror: Proxy, path: str) -> tuple[int, bytes]:
    response, _ = await world.ask(mirror, f"/{path}")
    return response.status, await body_of(response)


def holding(*names: str) -> bytes:
    return zipped({PREFIX + name: b"x" for name in names}, zipfile.ZIP_STORED)


def bomb() -> bytes:
    """Six files that say to be of 100 MiB each, unpacked."""
    data = bytearray(holding(*(f"f{n}" for n in range(6))))
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", data, at + 24, 100 << 20)
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(data)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (bomb, f"more than the {MAX_ZIP} bytes"),
        (partial(holding, "../../etc/passwd"), "passwd"),
        (partial(holding, "a/../../b"), "b"),
        (lambda: zipped({"/etc/passwd": b"x"}), "has to begin with"),
        (partial(holding, "README", "readme"), "differ in case only"),
        (partial(holding, "a/b", "A/c"), "differ in case only"),
        (partial(holding, "\u212a.go", "k.go"), "K|k.go"),  # the Kelvin sign, which folds to a k
        (lambda: holding(*(f"{n // 1000}/{n}" for n in range(100_001))), "100001 files"),
        (lambda: Module(LIB.path, "v1.0.1").zip, "has to begin with"),
        (lambda: gzip.compress(LIB.zip), "not a zip archive"),
        (lambda: b"<html>please log in</html>", "not a zip archive"),
        (lambda: LIB.zip[:-1], "not a zip archive"),
        (lambda: LIB.zip + b"x", "follows the end"),
    ],
    ids=[
        *("bomb", "dots", "dots-within", "absolute", "folds", "folders-fold", "kelvin", "many"),
        *("version", "gzip", "page", "short", "long"),
    ],
)
async def test_a_hostile_zip_reaches_nobody_and_a_good_one_does_later(
    world: World, mirror: Proxy, made: object, why: str
) -> None:
    assert callable(made)
    world.upstream.answers[ZIP] = Answer(made(), [("content-type", "application/zip")])
    with pytest.raises(BodyBroken):
        await get(world, mirror, ZIP)
    await trio.testing.wait_all_tasks_blocked()
    assert world.catalog.file("mirror", ZIP) is None
    assert set(world.blobs.kept.values()) <= {LIB.info, LIB.mod}
    status, text = await get(world, mirror, ZIP)
    assert status == 502
    assert any(part in text.decode() for part in why.split("|")), text
    assert text.count(b"\n") <= 8  # as much as the go command shows
    world.upstream.answers[ZIP] = Answer(LIB.zip)
    world.clock.forward(61)
    assert await get(world, mirror, ZIP) == (200, LIB.zip)


async def test_a_hundred_thousand_files_are_a_module(world: World, mirror: Proxy) -> None:
    data = holding(*(f"{n // 1000}/{n}" for n in range(100_000)))
    world.upstream.answers[ZIP] = Answer(data)
    assert await get(world, mirror, ZIP) == (200, data)


async def test_a_list_that_shrinks_is_upstreams_word_and_what_is_kept_stays(world: World, mirror: Proxy) -> None:
    """A version may be taken back; who has it in his go.mod gets it all the same, for good."""
    answers = world.upstream.answers
    answers[LIST] = Answer(b"v1.0.0\nv1.1.0\n")
    answers[ZIP] = Answer(LIB.zip)
    assert await get(world, mirror, LIST) == (200, b"v1.0.0\nv1.1.0\n")
    assert await get(world, mirror, ZIP) == (200, LIB.zip)
    await trio.testing.wait_all_tasks_blocked()
    answers.clear()
    answers[LIST] = Answer(b"v1.1.0\n")
    assert await get(world, mirror, LIST) == (200, b"v1.0.0\nv1.1.0\n")
    world.clock.forward(61)
    assert await get(world, mirror, LIST) == (200, b"v1.1.0\n")
    for kind in ("info", "mod", "zip"):
        assert await get(world, mirror, f"{LIB.base}.{kind}") == (200, getattr(LIB, kind))


async def test_a_list_that_breaks_off_is_no_shorter_list(world: World, mirror: Proxy) -> None:
    world.upstream.answers[LIST] = Answer(b"v1.0.0\nv1.1.0\n")
    assert (await get(world, mirror, LIST))[0] == 200
    world.clock.forward(61)
    world.upstream.answers[LIST] = Answer(b"v1.0.0\nv1.1.0\n", broken=UpstreamUnavailable("it breaks off"))
    response, _ = await world.ask(mirror, f"/{LIST}")
    assert await body_of(response) == b"v1.0.0\nv1.1.0\n"
    assert "it breaks off" in (response.headers.get("warning") or "")


@pytest.mark.parametrize("kind", ["info", "mod", "zip"])
async def test_a_module_path_at_its_limit_is_kept_like_any_other(world: World, kind: str) -> None:
    """Elements of 250 characters, half of them upper case, which takes twice the room; 4,096 bytes in all."""
    element = "aB" * 83
    room = MAX_PATH - len("/example.com/@v/v1.0.0.info")
    count = room // (len(element) * 3 // 2 + 1)
    module = Module("example.com/" + "/".join([element] * count), "v1.0.0")
    for each in ("info", "mod", "zip"):
        data = getattr(module, each)
        world.upstream.answers[f"{module.base}.{each}".replace("!", "%21")] = Answer(data)
    mirror = world.proxy("mirror", form=Go())
    path = f"{module.base}.{kind}"
    assert MAX_PATH - 300 < len(path) < MAX_PATH
    for _ in range(2):
        assert await get(world, mirror, path) == (200, getattr(module, kind))
        await trio.testing.wait_all_tasks_blocked()
        assert world.catalog.file("mirror", path) is not None
    assert await get(world, mirror, f"{'a' * MAX_PATH}/@v/list") == (400, b"the path is longer than 4096 characters\n")


async def test_all_of_a_graph_is_kept_by_the_name_that_its_client_asks_for(world: World) -> None:
    """Upper case, major versions, commits and +incompatible."""
    for module in GRAPH:
        for kind in ("info", "mod", "zip"):
            data = getattr(module, kind)
            world.upstream.answers[f"{module.base}.{kind}".replace("!", "%21")] = Answer(data)
    mirror = world.proxy("mirror", form=Go())
    for module in GRAPH:
        assert await get(world, mirror, f"{module.base}.zip".replace("!", "%21")) == (200, module.zip)
    await trio.testing.wait_all_tasks_blocked()
    assert {path for _, path in world.catalog.files} == {
        f"{module.base}.{kind}" for module in GRAPH for kind in ("info", "mod", "zip")
    }
