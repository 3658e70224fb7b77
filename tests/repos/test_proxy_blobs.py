"""Blobs through a proxy: one download however many clients, never a wrong one, and no knowledge across repositories."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kit.repos import Answer, FakeUpstream, World, body_of, code_of, fields_of
from mxart.digest import Digest
from mxart.errors import BodyBroken, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers
from mxart.repos.remote import Rules

DATA = bytes(range(256)) * 1024  # too large for memory


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def fill(world: World, data: bytes = DATA) -> tuple[str, Answer]:
    digest = world.upstream.add_blob("library/alpine", data)
    path = f"v2/library/alpine/blobs/{digest}"
    return f"/{path}", world.upstream.answers[path]


async def test_a_cold_blob_is_one_get_and_a_warm_one_none(world: World) -> None:
    target, _ = fill(world)
    hub = world.proxy()
    response, trace = await world.ask(hub, target)
    assert (await body_of(response), trace.outcome) == (DATA, "miss")
    assert fields_of(response, "docker-content-digest", "content-type", "accept-ranges") == [
        str(Digest.of(DATA)),
        "application/octet-stream",
        "bytes",
    ]
    await trio.testing.wait_all_tasks_blocked()
    response, trace = await world.ask(hub, target)
    assert (await body_of(response), trace.outcome) == (DATA, "hit")
    assert len(world.upstream.asked) == 1
    assert not world.blobs.opened


async def test_the_first_bytes_are_there_before_the_last_have_come(world: World) -> None:
    target, answer = fill(world)
    answer.body_gate = trio.Event()
    response, _ = await world.ask(world.proxy(), target)
    (segment,) = response.body.segments
    assert not isinstance(segment, bytes)
    with trio.fail_after(5):
        assert await segment.source.available(0) > 0
    answer.body_gate.set()
    assert await body_of(response) == DATA


async def test_many_clients_at_once_are_one_get_and_no_head(world: World) -> None:
    target, answer = fill(world)
    answer.gate = trio.Event()
    hub = world.proxy()
    outcomes: list[str] = []

    async def client(span: str) -> None:
        response, trace = await world.ask(hub, target, ("range", span))
        first, last = (int(end) for end in span.removeprefix("bytes=").split("-"))
        assert await body_of(response) == DATA[first : last + 1]
        assert response.status == 206
        outcomes.append(trace.outcome)

    async with trio.open_nursery() as clients:
        for number in range(16):
            clients.start_soon(client, f"bytes={number * 1000}-{number * 1000 + 70000}")
        await trio.testing.wait_all_tasks_blocked()
        answer.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [ask.method for ask in world.upstream.asks] == ["GET"]
    assert sorted(outcomes) == ["joined"] * 15 + ["miss"]
    assert not world.blobs.opened


async def test_a_tiny_blob_for_many_clients_is_one_get_too(world: World) -> None:
    target, answer = fill(world, b"{}")
    answer.gate = trio.Event()
    hub = world.proxy()

    async def client() -> None:
        response, _ = await world.ask(hub, target)
        assert await body_of(response) == b"{}"

    async with trio.open_nursery() as clients:
        for _ in range(16):
            clients.start_soon(client)
        await trio.testing.wait_all_tasks_blocked()
        answer.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [ask.method for ask in world.upstream.asks] == ["GET"]
    _, trace = await world.ask(hub, target)
    assert trace.outcome == "hit"
    reads = world.blobs.reads
    response, _ = await world.ask(hub, target)
    assert (response.body.segments, world.blobs.reads) == ((b"{}",), reads)


async def test_an_empty_blob_is_a_blob(world: World) -> None:
    target, _ = fill(world, b"")
    hub = world.proxy()
    for outcome in ("miss", "hit"):
        response, trace = await world.ask(hub, target)
        assert (response.status, await body_of(response), trace.outcome) == (200, b"", outcome)
        await trio.testing.wait_all_tasks_blocked()


async def test_the_download_goes_on_when_its_only_client_leaves(world: World) -> None:
    target, answer = fill(world)
    answer.body_gate = trio.Event()
    hub = world.proxy()
    response, _ = await world.ask(hub, target)
    response.body.close()
    answer.body_gate.set()
    await trio.testing.wait_all_tasks_blocked()
    world.upstream.trouble = UpstreamTimeout("gone")
    response, trace = await world.ask(hub, target)
    assert (await body_of(response), trace.outcome) == (DATA, "hit")


async def test_the_download_goes_on_when_its_first_client_leaves_before_the_head(world: World) -> None:
    target, answer = fill(world)
    answer.gate = trio.Event()
    hub = world.proxy()
    async with trio.open_nursery() as clients:
        clients.start_soon(world.ask, hub, target)
        await trio.testing.wait_all_tasks_blocked()
        clients.cancel_scope.cancel()
    answer.gate.set()
    response, _ = await world.ask(hub, target)
    assert await body_of(response) == DATA
    assert world.upstream.count("GET") == 1


async def test_the_head_of_a_cold_blob_starts_no_download(world: World) -> None:
    target, _ = fill(world)
    hub = world.proxy()
    response, trace = await world.ask(hub, target, method="HEAD")
    assert (response.status, response.body.length, trace.outcome) == (200, len(DATA), "miss")
    response.body.close()
    assert [ask.method for ask in world.upstream.asks] == ["HEAD"]
    assert not world.transfers.running
    assert not world.catalog.files


async def test_the_head_of_a_warm_blob_asks_nobody(world: World) -> None:
    target, _ = fill(world)
    hub = world.proxy()
    await body_of((await world.ask(hub, target))[0])
    await trio.testing.wait_all_tasks_blocked()
    world.upstream.asked.clear()
    response, trace = await world.ask(hub, target, method="HEAD")
    assert (response.body.length, trace.outcome, world.upstream.asked) == (len(DATA), "hit", [])
    response.body.close()
    assert not world.blobs.opened


async def test_a_wrong_blob_is_cut_before_its_end_and_not_kept(world: World) -> None:
    target, answer = fill(world)
    answer.body = DATA[:-1] + b"?"
    response, _ = await world.ask(world.proxy(), target)
    with pytest.raises(BodyBroken):
        await body_of(response)
    await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.kept
    assert not world.catalog.files
    assert not world.blobs.opened


async def test_a_blob_that_breaks_off_is_not_recorded(world: World) -> None:
    target, answer = fill(world)
    answer.broken = UpstreamFailed("reset")
    response, _ = await world.ask(world.proxy(), target)
    with pytest.raises(BodyBroken):
        await body_of(response)
    await trio.testing.wait_all_tasks_blocked()
    assert not world.catalog.files


@pytest.mark.parametrize(
    "trouble", [UpstreamFailed("403"), UpstreamUnavailable("429", retry_after=7), UpstreamTimeout("slow")]
)
async def test_trouble_is_never_not_found(world: World, trouble: UpstreamFailed) -> None:
    target, _ = fill(world)
    world.upstream.trouble = trouble
    for method in ("GET", "HEAD"):
        response, _ = await world.ask(world.proxy(), target, method=method)
        assert response.status == trouble.status
    assert not world.catalog.absent


async def test_not_found_is_remembered(world: World) -> None:
    target = f"/v2/library/alpine/blobs/{Digest.of(b'')}"
    hub = world.proxy()
    for method in ("HEAD", "GET", "GET"):
        response, trace = await world.ask(hub, target, method=method)
        assert (response.status, code_of(response)) == (404, "BLOB_UNKNOWN")
    assert trace.outcome == "negative"
    assert len(world.upstream.asked) == 1


async def test_a_blob_that_another_repository_keeps_is_confirmed_by_one_head_and_not_downloaded(world: World) -> None:
    target, _ = fill(world)
    await body_of((await world.ask(world.proxy("one"), target))[0])
    await trio.testing.wait_all_tasks_blocked()
    world.upstream.asked.clear()
    two = world.proxy("two")
    response, trace = await world.ask(two, target)
    assert (await body_of(response), trace.outcome) == (DATA, "revalidated")
    response, trace = await world.ask(two, target)
    assert (await body_of(response), trace.outcome) == (DATA, "hit")
    assert world.upstream.asked == [f"HEAD {target[1:]}"]


async def test_a_repository_does_not_tell_that_another_one_has_a_blob(world: World) -> None:
    target, _ = fill(world)
    await body_of((await world.ask(world.proxy("secret"), target))[0])
    response, _ = await world.ask(world.proxy("open", upstream=FakeUpstream()), target)
    assert (response.status, code_of(response)) == (404, "BLOB_UNKNOWN")
    refusing = FakeUpstream()
    refusing.trouble = UpstreamFailed("403")
    response, _ = await world.ask(world.proxy("refused", upstream=refusing), target)
    assert response.status == 502
    assert not world.blobs.opened


async def test_a_running_download_of_another_repository_is_joined_only_after_our_upstream_agrees(world: World) -> None:
    target, answer = fill(world)
    answer.body_gate = trio.Event()
    first, _ = await world.ask(world.proxy("secret"), target)
    response, _ = await world.ask(world.proxy("open", upstream=FakeUpstream()), target)
    assert response.status == 404
    other = FakeUpstream()
    other.add_blob("library/alpine", DATA)
    two = world.proxy("two", upstream=other)
    second, trace = await world.ask(two, target)
    assert (trace.outcome, other.count("HEAD"), other.count("GET")) == ("joined", 1, 0)
    answer.body_gate.set()
    assert await body_of(first) == await body_of(second) == DATA
    await trio.testing.wait_all_tasks_blocked()
    assert (await world.ask(two, target))[1].outcome == "hit"
    assert not {name for name, _ in world.catalog.files} & {"open"}


async def test_another_repositorys_not_found_is_not_ours(world: World) -> None:
    target, _ = fill(world)
    empty = FakeUpstream()
    gate = trio.Event()
    digest = Digest.of(DATA)
    empty.answers[target[1:]] = Answer(gate=gate, problem=UpstreamUnavailable("busy"))
    statuses: dict[str, int] = {}

    async def client(name: str, upstream: FakeUpstream) -> None:
        response, _ = await world.ask(world.proxy(name, upstream=upstream), target)
        statuses[name] = response.status
        response.body.close()

    async with trio.open_nursery() as clients:
        clients.start_soon(client, "poor", empty)
        await trio.testing.wait_all_tasks_blocked()
        assert digest in world.transfers.running
        clients.start_soon(client, "rich", world.upstream)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert statuses == {"poor": 503, "rich": 200}


@pytest.mark.parametrize("kept", [len(DATA), 1000])
async def test_a_partial_file_that_anybody_may_have_left_is_not_served_without_our_upstreams_word(
    world: World, kept: int
) -> None:
    target, _ = fill(world)
    leftover = (DATA[:kept], Headers((("content-length", str(len(DATA))),)))
    world.transfers.leftovers[Digest.of(DATA)] = leftover
    response, _ = await world.ask(world.proxy("open", upstream=FakeUpstream()), target)
    assert response.status == 404
    await trio.testing.wait_all_tasks_blocked()
    world.blobs.kept.clear()
    world.transfers.leftovers[Digest.of(DATA)] = leftover
    response, _ = await world.ask(world.proxy(), target)
    assert await body_of(response) == DATA
    await trio.testing.wait_all_tasks_blocked()
    assert {name for name, _ in world.catalog.files} == {"hub"}
    assert not world.blobs.opened


async def test_a_page_for_people_does_not_confirm_a_blob(world: World) -> None:
    target, _ = fill(world)
    world.blobs.kept[Digest.of(DATA)] = DATA
    world.upstream.answers[target[1:]] = Answer(b"<html>", [("content-type", "text/html")])
    response, _ = await world.ask(world.proxy(), target)
    assert response.status == 502


async def test_bytes_left_by_a_killed_process_are_linked_without_a_download(world: World) -> None:
    target, _ = fill(world)
    world.blobs.kept[Digest.of(DATA)] = DATA
    response, trace = await world.ask(world.proxy(), target)
    assert (await body_of(response), trace.outcome) == (DATA, "revalidated")
    assert world.upstream.count("GET") == 0


async def test_a_blob_whose_bytes_were_removed_is_downloaded_again(world: World) -> None:
    target, _ = fill(world)
    hub = world.proxy()
    await body_of((await world.ask(hub, target))[0])
    await trio.testing.wait_all_tasks_blocked()
    world.blobs.kept.clear()
    response, trace = await world.ask(hub, target)
    assert (await body_of(response), trace.outcome) == (DATA, "miss")


async def test_a_blob_without_a_length_is_followed_to_its_end(world: World) -> None:
    target, answer = fill(world)
    answer.fields = []
    hub = world.proxy()
    response, _ = await world.ask(hub, target, ("range", "bytes=5-9"))
    assert (response.status, response.body.length) == (200, None)
    assert await body_of(response) == DATA
    await trio.testing.wait_all_tasks_blocked()
    record = world.catalog.file("hub", target.removeprefix("/v2/"))
    assert record is not None
    assert record.size == len(DATA)


async def test_a_range_past_the_end_is_refused_and_nothing_stays_open(world: World) -> None:
    target, _ = fill(world)
    hub = world.proxy()
    for _ in range(2):
        response, _ = await world.ask(hub, target, ("range", f"bytes={len(DATA)}-"))
        assert (response.status, code_of(response)) == (416, "RANGE_INVALID")
        assert response.headers.get("content-range") == f"bytes */{len(DATA)}"
        await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.opened


async def test_a_client_that_has_the_blob_is_told_so(world: World) -> None:
    target, _ = fill(world)
    response, _ = await world.ask(world.proxy(), target, ("if-none-match", f'"{Digest.of(DATA)}"'))
    assert response.status == 304
    await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.opened


async def test_offline_serves_its_own_blobs_and_no_others(world: World) -> None:
    target, _ = fill(world)
    await body_of((await world.ask(world.proxy(), target))[0])
    await trio.testing.wait_all_tasks_blocked()
    world.upstream.asked.clear()
    response, trace = await world.ask(world.proxy(rules=Rules(offline=True)), target)
    assert (await body_of(response), trace.outcome) == (DATA, "hit")
    for method in ("GET", "HEAD"):
        response, _ = await world.ask(world.proxy("other", rules=Rules(offline=True)), target, method=method)
        assert (response.status, code_of(response)) == (503, "UNAVAILABLE")
    assert not world.upstream.asked


async def test_cancellation_at_every_await_leaks_nothing(world: World) -> None:
    target, _ = fill(world)
    for steps in range(1, 60):
        finished = False
        world.blobs.kept.clear()
        hub = world.proxy(f"hub{steps}")

        async def client(hub: object = hub) -> None:
            nonlocal finished
            response, _ = await world.ask(hub, target)  # type: ignore[arg-type] # a Proxy, bound early
            assert await body_of(response) == DATA
            finished = True

        async with trio.open_nursery() as clients:
            clients.start_soon(client)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            clients.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not world.blobs.opened
        assert world.upstream.open_replies == 0
        assert hub._counter._desk._streams._claims == {}
        if finished:
            return
    pytest.fail("the request never finished")
