"""A Maven upstream that speaks HTTP: what it sends in trouble is a bad gateway, not kept, and over when that is."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec import structs

from kit.maven import jar, pom
from kit.repos import World, request
from kit.store import read_all, running_store
from kit.upstream import FakeUpstream, Say, fake_upstream, html, say
from mxart.body import Span
from mxart.config import Upstreams
from mxart.errors import BodyBroken, Problem
from mxart.message import Response
from mxart.repos.answers import answer
from mxart.repos.maven.format import Maven
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Remote as Asking
from mxart.repos.remote import Rules
from mxart.repos.stock import Shelf
from mxart.repos.upstream_sums import UpstreamSums
from mxart.store.base import Origin
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience

APP = "org/example/app/1.0/app-1.0"
META = "org/example/app/maven-metadata.xml"
VERSIONS = b"<metadata><groupId>org.example</groupId><artifactId>app</artifactId></metadata>"
BIG = jar(random.Random(1).randbytes(400_000).hex())
QUICK = Patience(rounds=2, first_pause=0.001, longest_pause=0.01, total=1.0)
RIGHT = {f"{APP}.pom": pom(), f"{APP}.jar": BIG, META: VERSIONS}


@asynccontextmanager
async def mirror(world: World, root: Path, up: FakeUpstream) -> AsyncIterator[Proxy]:
    """A proxy that verifies, with a store on disk; at the end its downloads finish."""
    remote = Remote("mirror", [up.url], Dialer(Upstreams()), patience=QUICK)

    def origin(ask: Ask) -> Origin:
        return Download(remote, ask, patience=QUICK)

    form, rules = Maven(), Rules(ttl=100.0)
    try:
        async with running_store(root) as store:
            stock = structs.replace(world.worker(), blobs=store.blobs, transfers=store.transfers)
            asking = Asking(
                "mirror", form, remote, stock, Shelf("mirror", form, stock), world.nursery, origin, rules, world.clock
            )
            yield Proxy(
                "mirror",
                form,
                remote,
                stock,
                nursery=world.nursery,
                origin=origin,
                rules=rules,
                clock=world.clock,
                verifier=UpstreamSums(asking),
            )
    finally:
        await remote.aclose()


async def get(proxy: Proxy, path: str) -> tuple[int, bytes]:
    """Status and body as a client sees them; one that is cut is a bad gateway."""
    asked = request("GET", f"/{path}")
    try:
        with trio.fail_after(20):
            return await _body(await answer(proxy, proxy.format.parse("GET", asked.path, "", asked.headers), asked))
    except Problem as problem:
        return problem.status, problem.message.encode()
    except BodyBroken as error:
        return 502, str(error).encode()


async def _body(response: Response) -> tuple[int, bytes]:
    try:
        pieces: list[bytes] = []
        for segment in response.body.segments:
            pieces.append(await read_all(segment.source) if isinstance(segment, Span) else segment)  # noqa: PERF401
        return response.status, b"".join(pieces)
    finally:
        response.body.close()


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def sha1(data: bytes) -> dict[str, str]:
    return {"X-Checksum-SHA1": hashlib.sha1(data).hexdigest()}


TROUBLES: dict[str, Callable[[bytes], Say]] = {
    "a page": lambda data: html(),
    "a page by another name": lambda data: say(html().body),
    "nothing": lambda data: say(b""),
    "another file": lambda data: say(data + b"\n", headers=sha1(data)),
    "half of it, said to be all": lambda data: say(data[: len(data) // 2], headers=sha1(data)),
    "half of it": lambda data: say(data, close_after=len(data) // 2),
    "a refusal": lambda data: say(b"no", 403),
    "a fault": lambda data: say(b"oh", 500),
    "too many": lambda data: say(b"slowly", 429),
}


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.rpartition("/")[2])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_is_told_and_over_when_it_is_over(world: World, tmp_path: Path, path: str, trouble: str) -> None:
    data = RIGHT[path]
    async with fake_upstream() as up, mirror(world, tmp_path, up) as proxy:
        up.on(f"/{path}", TROUBLES[trouble](data))
        status, text = await get(proxy, path)
        assert status in (502, 503), text
        assert not world.catalog.files
        assert not world.catalog.absent
        up.on(f"/{path}", say(data, headers=sha1(data)))
        world.clock.forward(61)
        assert await get(proxy, path) == (200, data)


@pytest.mark.parametrize("status", [404, 410])
async def test_missing_is_what_upstream_says_is_missing(world: World, tmp_path: Path, status: int) -> None:
    async with fake_upstream() as up, mirror(world, tmp_path, up) as proxy:
        for path in RIGHT:
            up.on(f"/{path}", say(b"not here", status))
            assert [(await get(proxy, path))[0] for _ in range(3)] == [404] * 3
            assert up.count(f"/{path}") == 1


async def test_an_upstream_that_tells_no_checksums_has_files_of_them(world: World, tmp_path: Path) -> None:
    async with fake_upstream() as up, mirror(world, tmp_path, up) as proxy:
        up.on(f"/{APP}.jar", say(BIG))
        up.on(f"/{APP}.jar.sha1", say(f"{hashlib.sha1(BIG).hexdigest()}  app-1.0.jar\n"))
        assert await get(proxy, f"{APP}.jar") == (200, BIG)
        assert (up.count(f"/{APP}.jar"), up.count(f"/{APP}.jar.sha1")) == (1, 1)
        up.on(f"/{APP}.pom", say(pom()))
        up.on(f"/{APP}.pom.sha1", say("0" * 40))
        assert (await get(proxy, f"{APP}.pom"))[0] == 502
        up.on(f"/{APP}.pom.sha1", say(b"busy", 503))
        assert (await get(proxy, f"{APP}.pom"))[0] == 503
        up.on(f"/{APP}.pom.sha1", html())
        assert await get(proxy, f"{APP}.pom") == (200, pom())  # a page is no checksum: there is none


async def test_what_waits_for_its_checksum_is_judged_again_and_not_fetched_again(world: World, tmp_path: Path) -> None:
    async with fake_upstream() as up, mirror(world, tmp_path, up) as proxy:
        up.on(f"/{APP}.jar", say(BIG, headers={"ETag": '"strong"'}))
        up.on(f"/{APP}.jar.sha1", say(b"busy", 503))
        assert (await get(proxy, f"{APP}.jar"))[0] in (502, 503)
        up.on(f"/{APP}.jar.sha1", say(hashlib.sha1(BIG).hexdigest()))
        assert await get(proxy, f"{APP}.jar") == (200, BIG)
        assert up.count(f"/{APP}.jar") == 1
