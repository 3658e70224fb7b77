"""Tags through a proxy: upstream's whole list or none, in pages of ours."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from kit.repos import Answer, World, body_of, code_of
from mxart.errors import UpstreamFailed, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.remote import Rules

TARGET = "/v2/library/alpine/tags/list"
PAGES = {
    "": (["b", "a"], '</v2/library/alpine/tags/list?last=b&n=2>; rel="next"'),
    "?last=b&n=2": (["D", "c"], '<http://10.0.0.1/v2/library/alpine/tags/list?last=d>; rel="next"'),
    "?last=d": (["e", "b"], ""),
}


def fill(world: World) -> None:
    for query, (tags, link) in PAGES.items():
        fields = [("link", link)] if link else []
        body = json.dumps({"name": "library/alpine", "tags": tags}).encode()
        world.upstream.answers[f"v2/library/alpine/tags/list{query}"] = Answer(body, fields)


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    world = World(nursery)
    fill(world)
    return world


async def tags_of(response: Response) -> list[str]:
    assert response.status == 200
    return list(json.loads(await body_of(response))["tags"])


async def test_every_page_of_upstreams_is_in_the_list_once_in_ascii_order(world: World) -> None:
    hub = world.proxy()
    response, trace = await world.ask(hub, TARGET)
    assert (await tags_of(response), trace.outcome) == (["D", "a", "b", "c", "e"], "miss")
    assert response.headers.get("link") is None
    assert len(world.upstream.asked) == 3
    _, trace = await world.ask(hub, TARGET)
    assert (trace.outcome, len(world.upstream.asked)) == ("hit", 3)


async def test_following_our_links_visits_every_tag(world: World) -> None:
    hub = world.proxy()
    seen: list[str] = []
    target: str | None = TARGET + "?n=2"
    while target is not None:
        response, _ = await world.ask(hub, target)
        seen += await tags_of(response)
        link = response.headers.get("link")
        target = link[1 : link.index(">")] if link else None
    assert seen == ["D", "a", "b", "c", "e"]
    response, _ = await world.ask(hub, TARGET + "?n=0")
    assert (await tags_of(response), response.headers.get("link")) == ([], None)
    response, _ = await world.ask(hub, TARGET + "?last=b")
    assert await tags_of(response) == ["c", "e"]
    response, _ = await world.ask(hub, TARGET + "?last=zz&n=5")
    assert (await tags_of(response), response.headers.get("link")) == ([], None)


async def test_a_page_that_fails_fails_the_list_instead_of_shortening_it(world: World) -> None:
    world.upstream.answers["v2/library/alpine/tags/list?last=d"].problem = UpstreamUnavailable("429", retry_after=9)
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (response.status, code_of(response), response.headers.get("retry-after")) == (503, "UNAVAILABLE", "9")
    assert not world.catalog.files


async def test_the_old_list_is_served_and_marked_when_upstream_is_in_trouble(world: World) -> None:
    hub = world.proxy()
    await world.ask(hub, TARGET)
    world.clock.forward(301)
    world.upstream.trouble = UpstreamFailed("500")
    response, trace = await world.ask(hub, TARGET)
    assert (await tags_of(response), trace.outcome) == (["D", "a", "b", "c", "e"], "stale")
    assert str(response.headers.get("warning")).startswith("111 - ")
    world.upstream.trouble = None
    world.clock.forward(6)
    world.upstream.answers["v2/library/alpine/tags/list"] = Answer(b'{"tags": ["new"]}')
    response, trace = await world.ask(hub, TARGET)
    assert (await tags_of(response), trace.outcome, response.headers.get("warning")) == (["new"], "miss", None)


async def test_who_waits_too_long_for_a_list_gets_the_old_one(world: World) -> None:
    hub = world.proxy(rules=Rules(patience=0.01))
    await world.ask(hub, TARGET)
    world.clock.forward(301)
    gate = world.upstream.answers["v2/library/alpine/tags/list"].gate = trio.Event()
    response, trace = await world.ask(hub, TARGET)
    assert (await tags_of(response), trace.outcome) == (["D", "a", "b", "c", "e"], "stale")
    assert str(response.headers.get("warning")).startswith("111 - ")
    gate.set()  # the question went on meanwhile
    await trio.testing.wait_all_tasks_blocked()
    response, trace = await world.ask(hub, TARGET)
    assert (trace.outcome, response.headers.get("warning")) == ("hit", None)


async def test_a_list_that_pages_in_circles_is_refused(world: World) -> None:
    world.upstream.answers["v2/library/alpine/tags/list?last=d"].fields = [("link", PAGES[""][1])]
    response, _ = await world.ask(world.proxy(), TARGET)
    assert response.status == 502


async def test_an_unknown_name_is_unknown_and_remembered(world: World) -> None:
    hub = world.proxy()
    for _ in range(2):
        response, trace = await world.ask(hub, "/v2/library/nothing/tags/list")
        assert (response.status, code_of(response)) == (404, "NAME_UNKNOWN")
    assert (trace.outcome, len(world.upstream.asked)) == ("negative", 1)


async def test_a_name_that_upstream_forgot_is_forgotten(world: World) -> None:
    hub = world.proxy()
    await world.ask(hub, TARGET)
    world.clock.forward(301)
    world.upstream.answers.clear()
    response, _ = await world.ask(hub, TARGET)
    assert response.status == 404
    assert not world.catalog.files


async def test_many_clients_fetch_the_list_once(world: World) -> None:
    gate = world.upstream.answers["v2/library/alpine/tags/list"].gate = trio.Event()
    hub = world.proxy()

    async def client(number: int) -> None:
        response, _ = await world.ask(hub, f"{TARGET}?n={number}")
        assert await tags_of(response) == ["D", "a", "b", "c", "e"][:number]

    async with trio.open_nursery() as clients:
        for number in range(8):
            clients.start_soon(client, number)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert len(world.upstream.asked) == 3


async def test_offline_lists_what_it_knows(world: World) -> None:
    await world.ask(world.proxy(), TARGET)
    asked = len(world.upstream.asked)
    offline = world.proxy(rules=Rules(offline=True))
    response, trace = await world.ask(offline, TARGET)
    assert (await tags_of(response), trace.outcome) == (["D", "a", "b", "c", "e"], "hit")
    world.clock.forward(301)
    response, trace = await world.ask(offline, TARGET)
    assert (trace.outcome, str(response.headers.get("warning"))[:4]) == ("stale", "110 ")
    response, _ = await world.ask(offline, "/v2/other/tags/list")
    assert response.status == 503
    assert len(world.upstream.asked) == asked


async def test_a_full_disk_does_not_keep_the_list_from_the_client(world: World) -> None:
    world.blobs.full = True
    response, _ = await world.ask(world.proxy(), TARGET)
    assert await tags_of(response) == ["D", "a", "b", "c", "e"]


async def test_a_proxy_does_not_pretend_to_know_its_upstreams_repositories(world: World) -> None:
    response, _ = await world.ask(world.proxy(), "/v2/_catalog")
    assert response.status == 404
    assert not world.upstream.asked


async def test_a_client_that_has_the_list_is_told_so(world: World) -> None:
    hub = world.proxy()
    response, _ = await world.ask(hub, TARGET)
    etag = response.headers.get("etag")
    assert etag is not None
    response, _ = await world.ask(hub, TARGET, ("if-none-match", etag))
    assert response.status == 304
