"""The three files of a module's version through a proxy: whichever is asked for first, they are of one state of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing

from kit.modules import Module, zipped
from kit.repos import Answer, World, body_of
from kit.sumdb import sum_of
from mxart.errors import BodyBroken, UpstreamFailed, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.go.format import Go
from mxart.repos.operations import Artifact, Document
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Received, Remote

LIB = Module("example.com/lib", "v1.0.0", (("example.com/a", "v1.0.0"),))
MOVED = replace(LIB, needs=(("example.com/b", "v1.0.0"),))
KINDS = ("info", "mod", "zip")


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


@pytest.fixture
def mirror(world: World) -> Proxy:
    serve(world, LIB)
    return world.proxy("mirror", form=Go())


def serve(world: World, module: Module, kinds: Sequence[str] = KINDS) -> None:
    """From now on upstream has these files."""
    for kind in kinds:
        world.upstream.answers[f"{module.base}.{kind}"] = Answer(getattr(module, kind))


async def get(world: World, mirror: Proxy, kind: str) -> tuple[int, bytes]:
    response, _ = await world.ask(mirror, f"/{LIB.base}.{kind}")
    data = await body_of(response)
    await trio.testing.wait_all_tasks_blocked()  # what is kept afterwards is kept
    return response.status, data


def kept(world: World) -> set[str]:
    return {kind for kind in KINDS if world.catalog.file("mirror", f"{LIB.base}.{kind}") is not None}


def asked(world: World) -> list[str]:
    return sorted(path.rpartition(".")[2] for path in world.upstream.asked)


async def test_who_asks_for_the_zip_only_has_the_version_kept_whole(world: World, mirror: Proxy) -> None:
    assert await get(world, mirror, "zip") == (200, LIB.zip)
    assert kept(world) == {"info", "mod", "zip"}
    assert asked(world) == ["info", "mod", "zip"]
    for kind in KINDS:
        assert (await get(world, mirror, kind))[0] == 200
    assert len(world.upstream.asked) == 3


async def test_what_was_asked_for_before_is_not_asked_for_again(world: World, mirror: Proxy) -> None:
    for kind in KINDS:
        assert await get(world, mirror, kind) == (200, getattr(LIB, kind))
        assert asked(world).count(kind) == 1
    assert len(world.upstream.asked) == 3


@pytest.mark.parametrize("first", ["mod", "info"])
async def test_a_tag_that_moves_between_the_mod_and_the_zip_is_noticed(
    world: World, mirror: Proxy, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody vouches for either: the first one stands, and nobody has the last of the other."""
    if first == "mod":
        await get(world, mirror, "mod")
        serve(world, MOVED)
    else:
        serve(world, MOVED, ["zip"])  # between two questions of ours
    with pytest.raises(BodyBroken):
        await get(world, mirror, "zip")
    await trio.testing.wait_all_tasks_blocked()
    assert "zip" not in kept(world)
    status, why = await get(world, mirror, "zip")
    assert (status, b"holds another go.mod than the .mod" in why) == (502, True), why
    assert (await get(world, mirror, "mod"))[1] == LIB.mod
    serve(world, LIB)
    world.clock.forward(100)
    assert await get(world, mirror, "zip") == (200, LIB.zip)


class Vouching:
    """A checksum database that knows one state of the version, or nothing for now."""

    def __init__(self, *wrong: str) -> None:
        self.wrong = wrong
        self.down = False

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        if self.down:
            raise UpstreamUnavailable("the database is down")
        if operation.path.rpartition(".")[2] in self.wrong:
            raise UpstreamFailed(f"SECURITY: not {sum_of('x')}")

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> None:
        """It has no documents of its own."""


@pytest.mark.parametrize("wrong", ["mod", "zip"])
async def test_the_database_says_which_of_two_that_do_not_agree_is_wrong(world: World, wrong: str) -> None:
    serve(world, LIB)
    serve(world, MOVED, [wrong])
    mirror = world.proxy("mirror", form=Go(), verifier=Vouching(wrong))
    status, why = await get(world, mirror, "mod")
    assert status == (502 if wrong == "mod" else 200)
    if wrong == "zip":
        with pytest.raises(BodyBroken):
            await get(world, mirror, "zip")
        await trio.testing.wait_all_tasks_blocked()
        status, why = await get(world, mirror, "zip")
    else:
        assert await get(world, mirror, "zip") == (200, LIB.zip)  # that no right .mod is to be had is not its fault
    assert b"SECURITY" in why
    assert wrong not in kept(world)


@pytest.mark.parametrize("trouble", ["missing", "failing", "hanging"])
async def test_a_small_file_that_is_not_to_be_had_keeps_nobody_from_the_zip(
    world: World, mirror: Proxy, trouble: str, autojump_clock: trio.testing.MockClock
) -> None:
    for kind in ("info", "mod"):
        path = f"{LIB.base}.{kind}"
        match trouble:
            case "missing":
                del world.upstream.answers[path]
            case "failing":
                world.upstream.answers[path] = Answer(problem=UpstreamUnavailable("down"))
            case _:
                world.upstream.answers[path] = Answer(gate=trio.Event())
    response, _ = await world.ask(mirror, f"/{LIB.base}.zip")
    assert await body_of(response) == LIB.zip
    if trouble != "hanging":
        await trio.testing.wait_all_tasks_blocked()
        assert kept(world) == {"zip"}


async def test_other_ends_of_lines_are_no_other_go_mod(world: World, mirror: Proxy) -> None:
    """`eol=crlf` in .gitattributes: git exports other ones into a zip than it shows of a file."""
    files = {f"{LIB.path}@{LIB.version}/{name}": data.replace(b"\n", b"\r\n") for name, data in LIB.files.items()}
    world.upstream.answers[f"{LIB.base}.zip"] = Answer(zipped(files))
    assert (await get(world, mirror, "mod"))[1] == LIB.mod
    assert (await get(world, mirror, "zip"))[0] == 200
    assert kept(world) == {"info", "mod", "zip"}


async def test_a_zip_without_go_mod_has_one_that_upstream_made_up(world: World, mirror: Proxy) -> None:
    files = {f"{LIB.path}@{LIB.version}/{name}": data for name, data in LIB.files.items() if name != "go.mod"}
    world.upstream.answers[f"{LIB.base}.zip"] = Answer(zipped(files))
    world.upstream.answers[f"{LIB.base}.mod"] = Answer(f"module {LIB.path}\n".encode())
    assert (await get(world, mirror, "zip"))[0] == 200
    assert kept(world) == {"info", "mod", "zip"}
