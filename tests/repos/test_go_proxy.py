"""Modules through a proxy and a group: what upstream is asked, what is believed, and what trouble looks like."""

from __future__ import annotations

import gzip
import json

import pytest
import trio

from kit.modules import GRAPH, TOML, Module
from kit.repos import Answer, FakeUpstream, World, body_of
from mxart.errors import UpstreamFailed, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.base import Repository
from mxart.repos.go.format import Go
from mxart.repos.group import Group
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

APP = "example.com/app"
COMMITTED = "v0.0.0-20240102030406-0123456789ab"
HTML = Answer(b"<html>come back later", [("content-type", "text/html; charset=utf-8")])


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def proxy(
    world: World, name: str = "mirror", upstream: FakeUpstream | None = None, rules: Rules | None = None
) -> Proxy:
    return world.proxy(name, form=Go(), upstream=upstream, rules=rules)


def on_wire(path: str) -> str:
    return path.replace("!", "%21")


def fill(upstream: FakeUpstream, *modules: Module) -> None:
    for module in modules:
        for kind, data in (("info", module.info), ("mod", module.mod)):
            upstream.answers[on_wire(f"{module.base}.{kind}")] = Answer(data)
        listed = on_wire(f"{module.base.rpartition('/')[0]}/list")
        before = upstream.answers.get(listed, Answer()).body
        upstream.answers[listed] = Answer(before + module.version.encode() + b"\n")


async def get(world: World, repository: Repository, path: str, *fields: tuple[str, str]) -> tuple[int, bytes]:
    response, _ = await world.ask(repository, f"/{path}", *fields)
    return response.status, await body_of(response)


def types(response: Response) -> tuple[str | None, str | None]:
    return response.headers.get("content-type"), response.headers.get("cache-control")


async def test_files_of_a_version_are_fetched_once_and_kept_for_good(world: World) -> None:
    fill(world.upstream, *GRAPH)
    mirror = proxy(world)
    for _ in range(2):
        for module in GRAPH:
            assert await get(world, mirror, f"{module.base}.mod") == (200, module.mod)
            assert await get(world, mirror, f"{module.base}.info") == (200, module.info)
        world.clock.forward(10_000_000)
    assert len(world.upstream.asked) == 2 * len(GRAPH)
    assert all(world.catalog.files[mirror.name, f"{module.base}.mod"].checksum.startswith("h1:") for module in GRAPH)
    assert "GET example.com/%21burnt%21wood/%21toml/@v/v1.2.0.mod" in world.upstream.asked
    assert all(ask.headers.get("accept-encoding") == "identity" for ask in world.upstream.asks)


async def test_what_is_answered_says_what_it_is(world: World) -> None:
    fill(world.upstream, TOML)
    world.upstream.answers[on_wire("example.com/!burnt!wood/!toml/@latest")] = Answer(TOML.info)
    mirror = proxy(world)
    lasting, moving = "max-age=31536000, immutable", "no-cache"
    for path, expected in {
        f"{TOML.base}.mod": ("text/plain; charset=utf-8", lasting),
        f"{TOML.base}.info": ("application/json", lasting),
        "example.com/!burnt!wood/!toml/@v/list": ("text/plain; charset=utf-8", moving),
        "example.com/!burnt!wood/!toml/@latest": ("application/json", moving),
    }.items():
        response, _ = await world.ask(mirror, f"/{path}")
        assert response.status == 200
        assert types(response) == expected
        await body_of(response)


async def test_a_list_is_in_gos_order_and_without_times(world: World) -> None:
    listed = b"v1.10.0\nv1.9.0 2024-01-02T03:04:05Z\r\n\nv1.11.0-rc.1\nv1.9.0\nsome words\n"
    world.upstream.answers[f"{APP}/@v/list"] = Answer(listed)
    assert await get(world, proxy(world), f"{APP}/@v/list") == (200, b"v1.9.0\nv1.10.0\nv1.11.0-rc.1\n")


async def test_an_empty_list_is_a_list(world: World) -> None:
    world.upstream.answers[f"{APP}/@v/list"] = Answer(b"")
    assert await get(world, proxy(world), f"{APP}/@v/list") == (200, b"")


async def test_the_parents_of_a_package_are_asked_for_once(world: World) -> None:
    """`go get a/b/c/d` asks for the versions of every prefix."""
    mirror = proxy(world, rules=Rules(negative_ttl=60))
    prefixes = [f"{APP}/b/c/d", f"{APP}/b/c", f"{APP}/b", APP]
    for _ in range(3):
        for prefix in prefixes:
            status, text = await get(world, mirror, f"{prefix}/@v/list")
            assert status == 404
            assert prefix.encode() in text
    assert len(world.upstream.asked) == len(prefixes)
    world.clock.forward(61)
    await get(world, mirror, f"{APP}/@v/list")
    assert len(world.upstream.asked) == len(prefixes) + 1


async def test_a_branch_is_asked_for_again_after_the_ttl(world: World) -> None:
    first, second = (f"v0.0.0-2024010203040{n}-0123456789ab" for n in (5, 6))
    mirror = proxy(world, rules=Rules(ttl=60))
    for version in (first, second):
        data = json.dumps({"Version": version}).encode()
        world.upstream.answers[f"{APP}/@v/main.info"] = Answer(data, [("etag", '"x"')])
        assert await get(world, mirror, f"{APP}/@v/main.info") == (200, data)
        world.clock.forward(61)
    assert world.upstream.asked == [f"GET {APP}/@v/main.info"] * 2
    world.upstream.trouble = UpstreamUnavailable("it is down")
    response, _ = await world.ask(mirror, f"/{APP}/@v/main.info")
    assert response.status == 200
    assert "it is down" in (response.headers.get("warning") or "")
    assert second.encode() in await body_of(response)


@pytest.mark.parametrize(
    ("kind", "answer", "why"),
    [
        ("info", HTML, "web page"),
        ("mod", HTML, "web page"),
        ("list", HTML, "web page"),
        ("info", Answer(b"<html>"), "no JSON"),
        ("mod", Answer(b"<html>\nmodule x\n"), "module directive"),
        ("list", Answer(b"<html>\n"), "names none"),
        ("info", Answer(gzip.compress(b'{"Version":"v1.9.0"}')), "gzip"),
        ("info", Answer(b'{"Version":"v1.9.0"}', [("content-encoding", "gzip")]), "packed"),
        ("mod", Answer(gzip.compress(b"module x\n")), "gzip"),
        ("list", Answer(gzip.compress(b"v1.0.0\n")), "no text"),
        ("list", Answer(b"v1.0.0\n" * 50_001), "at most 50000"),
        ("info", Answer(b'{"Version":"v1.9.1"}'), "of version 'v1.9.1'"),
        ("info", Answer(b'{"Version":"v1.9"}'), "of version 'v1.9'"),
        ("info", Answer(b"[]"), "no JSON object"),
        ("info", Answer(b"{}"), "no JSON object"),
        ("info", Answer(b'{"Version":1}'), "no JSON object"),
        ("info", Answer(b"[" * 100_000), "no JSON object"),
        ("mod", Answer(b""), "module directive"),
        ("mod", Answer(b"go 1.20\n"), "module directive"),
        ("mod", Answer(b"module \xff\n"), "no text"),
    ],
)
async def test_what_cannot_be_it_is_upstreams_failure_and_not_kept(
    world: World, kind: str, answer: Answer, why: str
) -> None:
    path = f"{APP}/@v/list" if kind == "list" else f"{APP}/@v/v1.9.0.{kind}"
    world.upstream.answers[path] = answer
    mirror = proxy(world)
    for _ in range(2):
        status, text = await get(world, mirror, path)
        assert status == 502
        assert why in text.decode()
    assert world.blobs.kept == {}


@pytest.mark.parametrize("version", ["main", "v2.0.0-x", ""])
async def test_a_branch_stands_for_a_version_that_the_module_can_have(world: World, version: str) -> None:
    world.upstream.answers[f"{APP}/@v/main.info"] = Answer(json.dumps({"Version": version}).encode())
    status, _ = await get(world, proxy(world), f"{APP}/@v/main.info")
    assert status == 502


async def test_a_go_mod_may_name_another_module_as_that_of_a_fork_does(world: World) -> None:
    data = b"// a comment\nmodule (\n\texample.com/original\n)\n"
    world.upstream.answers[f"{APP}/@v/v1.9.0.mod"] = Answer(data)
    assert await get(world, proxy(world), f"{APP}/@v/v1.9.0.mod") == (200, data)


@pytest.mark.parametrize(
    ("prefix", "fields"), [("cached-only/", ()), ("", (("disable-module-fetch", "true"),))], ids=["path", "header"]
)
async def test_who_wants_nothing_fetched_gets_what_is_kept(
    world: World, prefix: str, fields: tuple[tuple[str, str], ...]
) -> None:
    fill(world.upstream, TOML)
    mirror = proxy(world)
    paths = [f"{TOML.base}.mod", f"{TOML.base.rpartition('/')[0]}/list"]
    for path in paths:
        status, text = await get(world, mirror, prefix + path, *fields)
        assert status == 404
        assert b"only what is kept was asked for" in text
    assert world.upstream.asked == []
    for path in paths:
        await get(world, mirror, path)
    world.clock.forward(10_000)
    for path in paths:
        status, _ = await get(world, mirror, prefix + path, *fields)
        assert status == 200
    assert len(world.upstream.asked) == len(paths)


async def test_trouble_is_told_and_is_never_not_found(world: World) -> None:
    mirror = proxy(world)
    world.upstream.trouble = UpstreamFailed("upstream.example answered 500 Internal Server Error")
    for path in (f"{APP}/@v/list", f"{APP}/@latest", f"{APP}/@v/v1.9.0.info"):
        assert await get(world, mirror, path) == (502, b"upstream.example answered 500 Internal Server Error\n")


# groups


def two(world: World) -> tuple[FakeUpstream, FakeUpstream, Group]:
    first, second = FakeUpstream(), FakeUpstream()
    members = [proxy(world, "first", first), proxy(world, "second", second)]
    return first, second, Group("both", Go(), [world.local("own", form=Go()), *members])


async def test_a_groups_list_is_that_of_all_its_members(world: World) -> None:
    first, second, both = two(world)
    fill(first, Module(APP, "v1.9.0"), Module(APP, "v1.2.0"))
    fill(second, Module(APP, "v1.10.0"), Module(APP, "v1.9.0"))
    assert await get(world, both, f"{APP}/@v/list") == (200, b"v1.2.0\nv1.9.0\nv1.10.0\n")
    second.trouble = UpstreamFailed("down")
    world.clock.forward(10_000)
    response, _ = await world.ask(both, f"/{APP}/@v/list")
    assert "down" in (response.headers.get("warning") or "")
    assert await body_of(response) == b"v1.2.0\nv1.9.0\nv1.10.0\n"


@pytest.mark.parametrize(
    ("versions", "best"),
    [
        (("v1.9.0", "v1.10.0"), "v1.10.0"),
        (("v1.10.0", "v1.9.0"), "v1.10.0"),
        (("v1.11.0-rc.1", "v1.9.0"), "v1.9.0"),
        (("v0.0.0-20240102030405-0123456789ab", COMMITTED), COMMITTED),
    ],
)
async def test_a_groups_latest_is_the_best_of_its_members(world: World, versions: tuple[str, str], best: str) -> None:
    first, second, both = two(world)
    for upstream, version in zip((first, second), versions, strict=True):
        upstream.answers[f"{APP}/@latest"] = Answer(Module(APP, version).info)
    assert await get(world, both, f"{APP}/@latest") == (200, Module(APP, best).info)


async def test_a_groups_latest_is_not_that_of_the_member_that_happens_to_answer(world: World) -> None:
    first, second, both = two(world)
    first.answers[f"{APP}/@latest"] = Answer(Module(APP, "v1.9.0").info)
    second.trouble = UpstreamFailed("down")
    status, _ = await get(world, both, f"{APP}/@latest")
    assert status == 502
    second.trouble = None
    assert await get(world, both, f"{APP}/@latest") == (200, Module(APP, "v1.9.0").info)  # the other has none
    first.answers.clear()
    world.clock.forward(10_000)
    status, _ = await get(world, both, f"{APP}/@latest")
    assert status == 404


async def test_all_files_of_a_version_come_from_the_member_that_gave_the_first(world: World) -> None:
    """Nobody who comes first later on can put a go.mod of his own beside what was downloaded before."""
    first, second, both = two(world)
    module = Module(APP, "v1.9.0")
    fill(second, module)
    assert await get(world, both, f"{module.base}.info") == (200, module.info)
    world.clock.forward(10_000)
    fill(first, Module(APP, "v1.9.0", (("example.com/evil", "v1.0.0"),)), Module(APP, "v1.10.0"))
    asked = len(first.asked)
    assert await get(world, both, f"{module.base}.mod") == (200, module.mod)
    assert len(first.asked) == asked
    del second.answers[f"{module.base}.info"], second.answers[f"{module.base}.mod"]
    assert await get(world, both, f"{module.base}.mod") == (200, module.mod)
    status, _ = await get(world, both, f"{APP}/@v/v1.10.0.info")
    assert status == 200  # another version
    second.trouble = UpstreamFailed("down")
    await world.stock.behind.settle()
    await world.catalog.forget_file("second", f"{module.base}.mod")
    status, _ = await get(world, both, f"{module.base}.mod")
    assert status == 502


async def test_a_module_of_our_own_is_asked_of_nobody_else(world: World) -> None:
    first, second, both = two(world)
    fill(first, *GRAPH)
    module = Module(APP, "v1.0.0")
    world.publish("own", APP, f"{module.base}.mod", module.mod, "text/plain; charset=utf-8")
    assert await get(world, both, f"{module.base}.mod") == (200, module.mod)
    for path in (f"{APP}/@v/v1.9.0.mod", f"{APP}/@v/v1.9.0.info", f"{APP}/@latest"):
        status, _ = await get(world, both, path)
        assert status == 404
    await get(world, both, f"{APP}/@v/list")
    assert first.asked == second.asked == []
