"""Directories show what a repository keeps, and to each caller what he may read of it."""

from __future__ import annotations

import pytest
import trio

from kit.boxes import Boxes
from kit.repos import Answer, FakeUpstream, World, body_of, request
from mxart.access.base import Action
from mxart.digest import Digest
from mxart.errors import Forbidden, Problem
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.group import Group
from mxart.store.base import FileRecord


class Reads:
    """Grants reading of whole packages, in whichever repository; `elsewhere` in that one only."""

    delegated = False

    def __init__(self, *packages: str, only_in: tuple[str, ...] = ()) -> None:
        self._packages = packages
        self._only_in = only_in

    def may(self, action: Action, repository: str, path: str) -> bool:
        return path in self._packages and (not self._only_in or repository in self._only_in)

    def demand(self, action: Action, repository: str, path: str) -> None:
        if not self.may(action, repository, path):
            raise Forbidden(f"not you: {action} {path}")

    def sees(self, repository: str, path: str) -> bool:
        return self.may("read", repository, path)


def put(world: World, repository: str, *paths: str) -> None:
    for path in paths:
        package = path.rsplit("/", 2)[0]
        world.catalog.files[repository, path] = FileRecord(repository, package, path, Digest.of(b"x"), 1, "a/b")
    world.catalog.writes += 1


async def names(repository: Repository, path: str, caller: Caller = NOBODY) -> list[str] | int:
    asked = request("GET", f"/{path}")
    try:
        operation = repository.format.parse("GET", asked.path, "", asked.headers)
        return (await body_of(await answer(repository, operation, asked, caller))).decode().split()
    except Problem as problem:
        return problem.status


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    world = World(nursery)
    put(world, "own", "tools/saw/1.0/saw.bin", "tools/saw/1.0/saw.txt", "tools/saw/1.1/saw.bin")
    put(world, "own", "tools/saw-blade/1.0/saw-blade.bin", "secret/plan/1/plan.txt", "tools/saw/teeth/1.0/teeth.bin")
    return world


async def test_a_directory_has_what_lies_right_below(world: World) -> None:
    own = world.local("own", form=Boxes())
    assert await names(own, "") == ["secret/", "tools/"]
    assert await names(own, "tools/") == ["saw/", "saw-blade/"]
    assert await names(own, "tools/saw/") == ["1.0/", "1.1/", "teeth/"]
    assert await names(own, "tools/saw/1.0/") == ["saw.bin", "saw.txt"]
    assert await names(own, "tools/sa/") == 404
    assert await names(world.local("empty", form=Boxes()), "") == []


async def test_what_a_caller_may_not_read_he_does_not_see(world: World) -> None:
    own = world.local("own", form=Boxes())
    saws = Caller(name="ada", grants=Reads("tools/saw"))
    assert await names(own, "", saws) == ["tools/"]
    assert await names(own, "tools/", saws) == ["saw/"]
    assert await names(own, "tools/saw/", saws) == ["1.0/", "1.1/"]
    assert await names(own, "tools/saw/1.0/", saws) == ["saw.bin", "saw.txt"]
    teeth = Caller(name="bob", grants=Reads("tools/saw/teeth"))
    assert await names(own, "tools/", teeth) == ["saw/"]
    assert await names(own, "tools/saw/", teeth) == ["teeth/"]
    assert await names(own, "tools/saw/1.0/", teeth) == 403
    assert await names(own, "secret/", saws) == 403
    assert await names(own, "", Caller(name="eve", grants=Reads())) == 403


async def test_a_proxy_shows_what_it_keeps_and_a_group_what_all_keep(world: World) -> None:
    upstream = FakeUpstream()
    mirror = world.proxy("mirror", upstream=upstream, form=Boxes())
    upstream.answers["tools/axe/1.0/axe.txt"] = Answer(b"an axe")
    operation = Boxes().parse("GET", "/tools/axe/1.0/axe.txt", "", request("GET", "/").headers)
    assert (await answer(mirror, operation, request("GET", "/tools/axe/1.0/axe.txt"))).status == 200
    await world.stock.behind.settle()
    assert await names(mirror, "") == ["tools/"]
    assert await names(mirror, "secret/") == 404
    own = world.local("own", form=Boxes())
    every = Group("every", Boxes(), (own, mirror))
    assert await names(every, "tools/") == ["axe/", "saw/", "saw-blade/"]
    assert await names(every, "nothing/") == 404
    assert upstream.asked == ["GET tools/axe/1.0/axe.txt"]


async def test_a_group_shows_what_may_be_read_in_it_and_in_its_member(world: World) -> None:
    own = world.local("own", form=Boxes())
    inner = Group("inner", Boxes(), (own,))
    outer = Group("outer", Boxes(), (inner,))
    for only_in, seen in (
        (("own", "inner", "outer"), ["saw/"]),
        (("own", "inner"), 403),
        (("inner", "outer"), 403),
        (("own", "outer"), 403),
    ):
        caller = Caller(name="ada", grants=Reads("tools/saw", only_in=only_in))
        assert await names(outer, "tools/", caller) == seen


async def test_many_packages_that_a_caller_may_not_see_are_looked_through(world: World) -> None:
    put(world, "big", *(f"org/p{number:04}/1/x.bin" for number in range(450)), "org/zoo/1/zoo.bin", "orgs/x/1/x.bin")
    big = world.local("big", form=Boxes())
    assert await names(big, "", Caller(name="ada", grants=Reads("org/zoo"))) == ["org/"]
    assert await names(big, "org/", Caller(name="ada", grants=Reads("org/zoo"))) == ["zoo/"]
    assert len(await names(big, "org/")) == 451  # type: ignore[arg-type]  # it is a list
