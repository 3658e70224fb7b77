"""The old API below /v1/ (docker search): forwarded to the index as it is, and never kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from kit.repos import World
from kit.upstream import FakeUpstream, Say, challenge, fake_upstream, redirect, say
from kit.wire import PEER
from mxart.config import Upstreams
from mxart.message import Headers, Request, Response
from mxart.metrics import Metrics
from mxart.server.handler import Gate
from mxart.server.index import Index
from mxart.server.metrics import families
from mxart.server.own import OwnPages
from mxart.server.routes import Mount, Routes
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience

SEARCH = "/v1/search"
FOUND = '{"results":[{"name":"library/tool","is_official":true}]}'
SECRET = "Basic YWxpY2U6c2VjcmV0"


class Site:
    """A gate whose repository `hub` has its index at a fake."""

    def __init__(self, world: World, fake: FakeUpstream, *, relays: bool, offline: bool = False) -> None:
        self.fake = fake
        remote = Remote("hub", [fake.url], Dialer(Upstreams()), patience=Patience(rounds=1))
        metrics = Metrics(families(["hub"]), 1)
        routes = Routes([Mount("hub", "oci", ("index.docker.io",), index=True), Mount("bare", "oci", ("quay.io",))])
        self.gate = Gate(
            routes,
            {"hub": world.local("hub"), "bare": world.local("bare")},
            OwnPages(metrics, lambda: True, lambda: b""),
            metrics,
            indexes={"hub": Index(remote, relays=relays, offline=offline)},
        )
        self.remote = remote

    async def ask(
        self, target: str, *fields: tuple[str, str], method: str = "GET", host: str = "index.docker.io"
    ) -> tuple[int, bytes, Response, Request]:
        asked = Request(method, target, host, Headers(fields), PEER)
        with trio.fail_after(10):
            response = await self.gate.handle(asked)
        data = b"".join(part for part in response.body.segments if isinstance(part, bytes))
        return response.status, data, response, asked


@asynccontextmanager
async def site(nursery: trio.Nursery, *, relays: bool = False, offline: bool = False) -> AsyncIterator[Site]:
    async with fake_upstream() as fake:
        made = Site(World(nursery), fake, relays=relays, offline=offline)
        yield made
        await made.remote.aclose()


async def test_a_search_is_forwarded_with_its_query_and_answered_as_it_is(nursery: trio.Nursery) -> None:
    async with site(nursery) as at:
        at.fake.on(SEARCH, say(FOUND, headers={"content-type": "application/json", "set-cookie": "a=b"}))
        status, data, response, asked = await at.ask(f"{SEARCH}?q=tool&n=25")
        assert (status, data) == (200, FOUND.encode())
        assert response.headers.items == (("content-type", "application/json"), ("cache-control", "no-store"))
        assert at.fake.requests[0].target == f"{SEARCH}?q=tool&n=25"
        assert (asked.trace.repository, asked.trace.outcome) == ("hub", "forwarded")


async def test_nothing_is_kept(nursery: trio.Nursery) -> None:
    async with site(nursery) as at:
        at.fake.on(SEARCH, say("1"), say("2"))
        assert [(await at.ask(SEARCH))[1] for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("relays", [False, True])
async def test_a_callers_credentials_are_shown_only_where_they_are_relayed(nursery: trio.Nursery, relays: bool) -> None:
    async with site(nursery, relays=relays) as at:
        at.fake.on(SEARCH, challenge('Basic realm="index"'))
        status, _, response, _ = await at.ask(SEARCH, ("authorization", SECRET), ("cookie", "c=d"))
        assert status == 401
        assert response.headers.get("www-authenticate") == ('Basic realm="index"' if relays else None)
        assert at.fake.requests[0].headers.get("authorization") == (SECRET if relays else None)
        assert "cookie" not in at.fake.requests[0].headers
        assert len(at.fake.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422, 429])
async def test_a_4xx_is_the_indexs_own_answer(nursery: trio.Nursery, status: int) -> None:
    async with site(nursery) as at:
        at.fake.on(SEARCH, say("its own words", status, headers={"retry-after": "7"}))
        code, data, response, _ = await at.ask(SEARCH)
        assert (code, data, response.headers.get("retry-after")) == (status, b"its own words", "7")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (say("x", 500), 502),
        (say("x", 502), 502),
        (say("x", 503, headers={"retry-after": "60"}), 503),
        (say("x", 407), 502),
        (say(reset_after=-1), 502),
        (say("whole answer", close_after=4), 502),
        (say("x", headers={"content-encoding": "gzip"}), 502),
        (say(b"x" * (9 << 20)), 502),
        (redirect("/v1/search"), 502),
    ],
)
async def test_trouble_is_told_as_trouble(nursery: trio.Nursery, answer: Say, status: int) -> None:
    async with site(nursery) as at:
        at.fake.on(SEARCH, answer)
        assert (await at.ask(SEARCH))[0] == status


async def test_the_index_is_only_read(nursery: trio.Nursery) -> None:
    async with site(nursery) as at:
        status, _, response, _ = await at.ask("/v1/users/", method="POST")
        assert status == 405
        assert response.headers.get("allow") == "GET, HEAD"
        assert at.fake.requests == []


@pytest.mark.parametrize("path", ["/v1/../v2/_catalog", "/v1/%2e%2e/admin", "/v1/..%2fadmin", "/v1/a\\..\\b", "/v1/.."])
async def test_no_path_leads_out_of_the_old_api(nursery: trio.Nursery, path: str) -> None:
    async with site(nursery) as at:
        assert (await at.ask(path))[0] == 400
        assert at.fake.requests == []


@pytest.mark.parametrize("host", ["quay.io", "127.0.0.1:8080", "stranger.example"])
async def test_a_host_without_an_index_has_no_old_api(nursery: trio.Nursery, host: str) -> None:
    async with site(nursery) as at:
        status, data, _, _ = await at.ask(SEARCH, host=host)
        assert status == 404
        assert b"/v1/" in data
        assert at.fake.requests == []


async def test_offline_asks_nobody(nursery: trio.Nursery) -> None:
    async with site(nursery, offline=True) as at:
        assert (await at.ask(SEARCH))[0] == 503
        assert at.fake.requests == []


async def test_a_head_is_asked_as_a_head(nursery: trio.Nursery) -> None:
    async with site(nursery) as at:
        at.fake.on("/v1/_ping", say("true", headers={"x-docker-registry-standalone": "false"}))
        status, data, response, _ = await at.ask("/v1/_ping", method="HEAD")
        assert (status, data) == (200, b"")
        assert response.headers.get("x-docker-registry-standalone") == "false"
        assert at.fake.requests[0].method == "HEAD"
