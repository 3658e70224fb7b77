"""Manifests through a proxy: what upstream is asked, what is kept, and what happens when upstream is in trouble."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from kit.repos import Answer, World, body_of, code_of, fields_of, manifest
from mxart.digest import Digest
from mxart.errors import NotFound, Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.repos.oci import media
from mxart.repos.remote import Rules

TAG = "/v2/library/alpine/manifests/3.20"
PATH = "library/alpine/manifests/3.20"
TROUBLES: list[Problem] = [
    UpstreamFailed("registry.example answered 500"),
    UpstreamUnavailable("registry.example says 429", retry_after=30),
    UpstreamTimeout("registry.example did not answer"),
]


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def fill(world: World, mark: str = "one") -> tuple[bytes, Digest]:
    data = manifest(mark)
    return data, world.upstream.add_manifest("library/alpine", data, "3.20", media_type=media.MANIFEST)


async def test_a_first_pull_of_a_tag_is_one_get_and_the_manifest_by_digest_is_then_here(world: World) -> None:
    data, digest = fill(world)
    hub = world.proxy()
    response, trace = await world.ask(hub, TAG, method="HEAD")
    assert response.status == 200
    assert trace.outcome == "miss"
    assert response.body.length == len(data)
    assert fields_of(response, "docker-content-digest", "content-type", "etag") == [
        str(digest),
        media.MANIFEST,
        f'"{digest}"',
    ]
    response, trace = await world.ask(hub, f"/v2/library/alpine/manifests/{digest}")
    assert (await body_of(response), trace.outcome) == (data, "hit")
    assert world.upstream.asked == ["GET v2/library/alpine/manifests/3.20"]


async def test_upstream_is_asked_with_the_full_accept_list_whatever_the_client_sends(world: World) -> None:
    fill(world)
    await world.ask(world.proxy(), TAG, ("accept", "application/x-nothing"), ("accept-encoding", "gzip"))
    (ask,) = world.upstream.asks
    assert ask.headers.get("accept") == media.ACCEPT
    assert ask.headers.get("accept-encoding") == "identity"
    assert ask.scope == "repository:library/alpine:pull"


async def test_within_the_ttl_upstream_is_not_asked_and_the_store_is_not_read(world: World) -> None:
    data, _ = fill(world)
    hub = world.proxy(rules=Rules(ttl=300))
    await world.ask(hub, TAG)
    reads = world.blobs.reads
    world.clock.forward(299)
    response, trace = await world.ask(hub, TAG)
    assert (await body_of(response), trace.outcome) == (data, "hit")
    assert world.blobs.reads == reads
    assert len(world.upstream.asked) == 1


async def test_after_the_ttl_one_head_confirms_the_tag(world: World) -> None:
    data, _ = fill(world)
    hub = world.proxy(rules=Rules(ttl=300))
    await world.ask(hub, TAG)
    world.clock.forward(301)
    response, trace = await world.ask(hub, TAG)
    assert (await body_of(response), trace.outcome) == (data, "revalidated")
    assert [ask.method for ask in world.upstream.asks] == ["GET", "HEAD"]
    world.clock.forward(299)
    _, trace = await world.ask(hub, TAG)
    assert trace.outcome == "hit"


async def test_a_moved_tag_is_fetched_and_the_old_digest_is_still_served(world: World) -> None:
    old, old_digest = fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    new, new_digest = fill(world, "two")
    world.clock.forward(301)
    response, trace = await world.ask(hub, TAG)
    assert (await body_of(response), trace.outcome) == (new, "miss")
    assert response.headers.get("docker-content-digest") == str(new_digest)
    assert [ask.method for ask in world.upstream.asks] == ["GET", "HEAD", "GET"]
    response, _ = await world.ask(hub, f"/v2/library/alpine/manifests/{old_digest}")
    assert await body_of(response) == old


async def test_without_a_digest_in_the_head_the_etag_decides(world: World) -> None:
    data, _ = fill(world)
    answer = world.upstream.answers[f"v2/{PATH}"]
    answer.fields = [("content-type", media.MANIFEST), ("etag", '"v1"')]
    hub = world.proxy()
    await world.ask(hub, TAG)
    world.clock.forward(301)
    _, trace = await world.ask(hub, TAG)
    assert trace.outcome == "revalidated"
    answer.fields = [("content-type", media.MANIFEST)]
    world.clock.forward(301)
    response, trace = await world.ask(hub, TAG)
    assert (await body_of(response), trace.outcome) == (data, "miss")


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: str(trouble.status))
async def test_the_stale_tag_is_served_and_marked_when_upstream_is_in_trouble(world: World, trouble: Problem) -> None:
    data, _ = fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    world.clock.forward(301)
    world.upstream.trouble = trouble
    response, trace = await world.ask(hub, TAG)
    assert (response.status, await body_of(response), trace.outcome) == (200, data, "stale")
    warning = response.headers.get("warning")
    assert warning is not None
    assert warning.startswith('111 - "')
    assert trouble.message in warning
    # A failing upstream is left in peace for a moment ...
    asked = len(world.upstream.asked)
    response, trace = await world.ask(hub, TAG)
    assert (trace.outcome, response.headers.get("warning")) == ("stale", warning)
    assert len(world.upstream.asked) == asked
    # ... and then asked again.
    world.upstream.trouble = None
    world.clock.forward(6)
    response, trace = await world.ask(hub, TAG)
    assert (trace.outcome, response.headers.get("warning")) == ("revalidated", None)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: str(trouble.status))
async def test_trouble_upstream_without_a_copy_is_never_not_found(world: World, trouble: Problem) -> None:
    world.upstream.trouble = trouble
    for reference in ("3.20", "sha256:" + "a" * 64):
        response, _ = await world.ask(world.proxy(), f"/v2/library/alpine/manifests/{reference}")
        assert response.status == trouble.status
        assert code_of(response) == "UNAVAILABLE"
        assert response.headers.get("retry-after") == ("30" if trouble.retry_after else None)
    assert not world.catalog.absent


async def test_not_found_is_remembered_for_a_while_and_then_asked_again(world: World) -> None:
    hub = world.proxy(rules=Rules(negative_ttl=60))
    for _ in range(3):
        response, trace = await world.ask(hub, TAG)
        assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")
    assert trace.outcome == "negative"
    assert len(world.upstream.asked) == 1
    data, _ = fill(world)
    world.clock.forward(61)
    response, _ = await world.ask(hub, TAG)
    assert await body_of(response) == data


async def test_a_tag_that_upstream_removed_is_gone_here_too(world: World) -> None:
    _, digest = fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    del world.upstream.answers[f"v2/{PATH}"]
    world.clock.forward(301)
    response, _ = await world.ask(hub, TAG)
    assert response.status == 404
    assert world.catalog.file("hub", PATH) is None
    # What has a digest is kept for good.
    response, _ = await world.ask(hub, f"/v2/library/alpine/manifests/{digest}")
    assert response.status == 200


async def test_many_clients_at_once_are_one_question_upstream(world: World) -> None:
    data, _ = fill(world)
    gate = world.upstream.answers[f"v2/{PATH}"].gate = trio.Event()
    hub = world.proxy()
    outcomes: list[str] = []

    async def client() -> None:
        response, trace = await world.ask(hub, TAG)
        assert await body_of(response) == data
        outcomes.append(trace.outcome)

    async with trio.open_nursery() as clients:
        for _ in range(20):
            clients.start_soon(client)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert world.upstream.asked == [f"GET v2/{PATH}"]
    assert sorted(outcomes) == ["joined"] * 19 + ["miss"]


async def test_trouble_is_told_to_every_client_that_waits_for_the_same_answer(world: World) -> None:
    fill(world)
    answer = world.upstream.answers[f"v2/{PATH}"]
    answer.gate, answer.problem = trio.Event(), UpstreamTimeout("no answer")
    hub = world.proxy()
    statuses: list[int] = []

    async def client() -> None:
        response, _ = await world.ask(hub, TAG)
        statuses.append(response.status)

    async with trio.open_nursery() as clients:
        for _ in range(5):
            clients.start_soon(client)
        await trio.testing.wait_all_tasks_blocked()
        answer.gate.set()
    assert statuses == [504] * 5
    assert len(world.upstream.asked) == 1


async def test_the_question_goes_on_when_the_first_client_leaves(world: World) -> None:
    data, _ = fill(world)
    gate = world.upstream.answers[f"v2/{PATH}"].gate = trio.Event()
    hub = world.proxy()
    with trio.CancelScope() as leaving:
        async with trio.open_nursery() as clients:
            clients.start_soon(world.ask, hub, TAG)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel()
    gate.set()
    response, _ = await world.ask(hub, TAG)
    assert await body_of(response) == data
    assert len(world.upstream.asked) == 1
    assert world.upstream.open_replies == 0


async def test_what_another_worker_fetched_meanwhile_is_not_fetched_again(world: World) -> None:
    fill(world)
    one, two = world.proxy(), world.proxy(stock=world.worker())
    await world.ask(one, TAG)
    _, trace = await world.ask(two, TAG)
    assert trace.outcome == "hit"
    world.clock.forward(301)
    await world.ask(two, TAG)
    _, trace = await world.ask(one, TAG)
    assert trace.outcome == "hit"
    assert [ask.method for ask in world.upstream.asks] == ["GET", "HEAD"]


async def test_a_page_for_people_with_200_is_not_an_image_and_not_kept(world: World) -> None:
    page = b"<html>please log in</html>"
    world.upstream.answers[f"v2/{PATH}"] = Answer(page, [("content-type", "text/html; charset=utf-8")])
    response, _ = await world.ask(world.proxy(), TAG)
    assert (response.status, code_of(response)) == (502, "UNAVAILABLE")
    assert not world.blobs.kept
    assert not world.catalog.files


WRONG = {
    "not json": b"\x1f\x8b gzip",
    "a list": b"[]",
    "another schema": b'{"schemaVersion": 3, "mediaType": "application/vnd.oci.image.manifest.v1+json"}',
    "another type": json.dumps({"schemaVersion": 2, "mediaType": media.INDEX}).encode(),
    "nothing": b"",
    "cut": manifest()[:-5],
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_not_a_manifest_is_not_passed_on(world: World, case: str) -> None:
    world.upstream.answers[f"v2/{PATH}"] = Answer(WRONG[case], [("content-type", media.MANIFEST)])
    response, _ = await world.ask(world.proxy(), TAG)
    assert response.status == 502
    assert not world.blobs.kept


async def test_wrong_bytes_for_a_digest_are_not_passed_on(world: World) -> None:
    wanted = Digest.of(b"something else")
    world.upstream.answers[f"v2/library/alpine/manifests/{wanted}"] = Answer(
        manifest(), [("content-type", media.MANIFEST)]
    )
    response, _ = await world.ask(world.proxy(), f"/v2/library/alpine/manifests/{wanted}")
    assert response.status == 502
    assert not world.blobs.kept


@pytest.mark.parametrize("declared", [True, False])
async def test_a_manifest_without_end_is_given_up(world: World, declared: bool) -> None:
    size = (8 << 20) + 2
    fields = [("content-type", media.MANIFEST), *([("content-length", str(size))] if declared else [])]
    world.upstream.answers[f"v2/{PATH}"] = Answer(b" " * size, fields)
    response, _ = await world.ask(world.proxy(), TAG)
    assert response.status == 502
    assert world.upstream.open_replies == 0


async def test_a_large_manifest_comes_through_byte_for_byte(world: World) -> None:
    data = manifest("x" * (4 << 20))
    digest = world.upstream.add_manifest("library/alpine", data, "3.20", media_type=media.MANIFEST)
    response, _ = await world.ask(world.proxy(), TAG)
    assert await body_of(response) == data
    assert response.headers.get("docker-content-digest") == str(digest)


async def test_a_sha512_digest_of_upstreams_is_the_digest_here(world: World) -> None:
    data = manifest()
    digest = Digest.of(data, "sha512")
    fields = [("content-type", media.MANIFEST), ("docker-content-digest", str(digest))]
    world.upstream.answers[f"v2/{PATH}"] = Answer(data, fields)
    response, _ = await world.ask(world.proxy(), TAG)
    assert response.headers.get("docker-content-digest") == str(digest)
    response, trace = await world.ask(world.proxy(), f"/v2/library/alpine/manifests/{digest}")
    assert (await body_of(response), trace.outcome) == (data, "hit")


async def test_a_full_disk_does_not_keep_the_manifest_from_the_client(world: World) -> None:
    data, digest = fill(world)
    world.blobs.full = True
    response, trace = await world.ask(world.proxy(), TAG)
    assert (response.status, await body_of(response), trace.outcome) == (200, data, "miss")
    assert response.headers.get("docker-content-digest") == str(digest)
    assert not world.catalog.files


async def test_a_manifest_that_another_repository_keeps_is_confirmed_by_our_own_upstream(world: World) -> None:
    data, digest = fill(world)
    await world.ask(world.proxy("secret"), TAG)
    world.upstream.asked.clear()
    target = f"/v2/library/alpine/manifests/{digest}"
    other = world.proxy("open")
    response, trace = await world.ask(other, target)
    assert (await body_of(response), trace.outcome) == (data, "revalidated")
    assert world.upstream.asked == [f"HEAD v2/library/alpine/manifests/{digest}"]
    world.upstream.answers.clear()
    response, _ = await world.ask(world.proxy("third"), target)
    assert response.status == 404


async def test_a_manifest_whose_bytes_were_removed_is_fetched_again(world: World) -> None:
    data, _ = fill(world)
    await world.ask(world.proxy(), TAG)
    world.blobs.kept.clear()
    response, trace = await world.ask(world.proxy(stock=world.worker()), TAG)
    assert (await body_of(response), trace.outcome) == (data, "miss")


async def test_offline_serves_what_is_there_and_asks_nobody(world: World) -> None:
    data, _ = fill(world)
    await world.ask(world.proxy(), TAG)
    world.upstream.asked.clear()
    offline = world.proxy(rules=Rules(offline=True))
    response, trace = await world.ask(offline, TAG)
    assert (response.headers.get("warning"), trace.outcome) == (None, "hit")
    world.clock.forward(1000)
    response, trace = await world.ask(offline, TAG)
    assert (response.status, await body_of(response), trace.outcome) == (200, data, "stale")
    assert str(response.headers.get("warning")).startswith("110 - ")
    response, _ = await world.ask(offline, "/v2/library/alpine/manifests/other")
    assert (response.status, code_of(response)) == (503, "UNAVAILABLE")
    assert not world.upstream.asked


async def test_docker_hub_gets_library_before_a_single_name_and_keeps_one_copy(world: World) -> None:
    fill(world)
    hub = world.proxy(url="https://registry-1.docker.io")
    await world.ask(hub, "/v2/alpine/manifests/3.20?ns=docker.io")
    _, trace = await world.ask(hub, TAG)
    assert trace.outcome == "hit"
    assert world.upstream.asked == [f"GET v2/{PATH}"]
    response, _ = await world.ask(world.proxy("other"), "/v2/alpine/manifests/3.20")
    assert response.status == 404


async def test_nobody_waits_long_for_a_revalidation(world: World, autojump_clock: trio.testing.MockClock) -> None:
    data, _ = fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    world.clock.forward(301)
    gate = world.upstream.answers[f"v2/{PATH}"].gate = trio.Event()
    started = autojump_clock.current_time()
    response, trace = await world.ask(hub, TAG)
    assert autojump_clock.current_time() - started <= 10
    assert (await body_of(response), trace.outcome) == (data, "stale")
    # The question itself goes on, and its answer counts.
    gate.set()
    await trio.testing.wait_all_tasks_blocked()
    _, trace = await world.ask(hub, TAG)
    assert trace.outcome == "hit"
    assert [ask.method for ask in world.upstream.asks] == ["GET", "HEAD"]


async def test_a_ttl_of_zero_revalidates_every_time(world: World) -> None:
    fill(world)
    hub = world.proxy(rules=Rules(ttl=0))
    for _ in range(3):
        response, _ = await world.ask(hub, TAG)
        assert response.status == 200
    assert [ask.method for ask in world.upstream.asks] == ["GET", "HEAD", "HEAD"]


async def test_a_clock_set_back_does_not_freeze_a_tag(world: World) -> None:
    fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    world.clock.forward(-100_000)
    other = world.proxy(stock=world.worker())
    _, trace = await world.ask(other, TAG)
    assert trace.outcome == "revalidated"


async def test_cancellation_at_every_await_leaves_nothing_open(world: World) -> None:
    data, _ = fill(world)
    for steps in range(1, 40):
        hub = world.proxy(f"hub{steps}")
        finished = False
        with trio.CancelScope() as scope:

            async def client(hub: object = hub) -> None:
                nonlocal finished
                response, _ = await world.ask(hub, TAG)  # type: ignore[arg-type] # a Proxy, bound early
                assert await body_of(response) == data
                finished = True

            async with trio.open_nursery() as clients:
                clients.start_soon(client)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                if not finished:
                    scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert world.upstream.open_replies == 0
        response, _ = await world.ask(hub, TAG)
        assert await body_of(response) == data
        if finished:
            break
    else:
        pytest.fail("the request never finished")


async def test_a_not_found_that_an_upstream_sends_for_a_head_is_its_word(world: World) -> None:
    fill(world)
    hub = world.proxy()
    await world.ask(hub, TAG)
    world.clock.forward(301)
    world.upstream.trouble = NotFound("manifest unknown")
    response, _ = await world.ask(hub, TAG)
    assert response.status == 404
