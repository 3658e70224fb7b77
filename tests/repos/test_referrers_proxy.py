"""Referrers through a proxy: upstream's API or its tags, whichever there is, and never silently fewer."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from kit.repos import Answer, World, body_of, code_of, manifest
from mxart.digest import Digest
from mxart.errors import Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

SUBJECT = Digest.of(b"an image")
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIGNATURE, SBOM = "application/vnd.example.signature", "application/vnd.example.sbom"
API = f"v2/library/app/referrers/{SUBJECT}"
TAG = f"v2/library/app/manifests/sha256-{SUBJECT.hex}"
TARGET = f"/v2/library/app/referrers/{SUBJECT}"


def descriptor(mark: str, artifact_type: str = SIGNATURE) -> dict[str, object]:
    return {
        "mediaType": MANIFEST,
        "digest": str(Digest.of(mark.encode())),
        "size": len(mark),
        "artifactType": artifact_type,
        "annotations": {"mark": mark, "ü": "ü"},
        "future": {"kept": [1.50, None]},
    }


def index(*descriptors: object, **fields: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors, **fields}, ensure_ascii=False
    ).encode()


def answer(data: bytes, link: str = "", content_type: str = INDEX) -> Answer:
    fields = [("content-type", content_type)]
    if link:
        fields.append(("link", f'<{link}>; rel="next"'))
    return Answer(data, fields)


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


async def marks(response: Response) -> set[str]:
    assert response.status == 200, await body_of(response)
    assert response.headers.get("content-type") == INDEX
    return {item["annotations"]["mark"] for item in json.loads(await body_of(response))["manifests"]}


def asked(world: World) -> list[str]:
    found = list(world.upstream.asked)
    world.upstream.asked.clear()
    return found


async def test_the_api_of_an_upstream_that_has_one_is_asked_once_and_its_words_are_kept(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("b"), descriptor("a", SBOM)))
    hub = world.proxy()
    response, trace = await world.ask(hub, TARGET)
    assert (response.status, trace.outcome) == (200, "miss")
    shown = json.loads(await body_of(response))["manifests"]
    assert sorted(map(json.dumps, shown)) == sorted(map(json.dumps, [descriptor("a", SBOM), descriptor("b")]))
    assert asked(world) == [f"GET {API}"]
    response, trace = await world.ask(hub, TARGET)
    assert (await marks(response), trace.outcome, asked(world)) == ({"a", "b"}, "hit", [])


async def test_a_filter_is_ours_and_upstream_is_asked_for_everything(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a", SBOM), descriptor("b")))
    hub = world.proxy()
    response, _ = await world.ask(hub, f"{TARGET}?artifactType={SBOM}")
    assert (await marks(response), response.headers.get("oci-filters-applied")) == ({"a"}, "artifactType")
    response, trace = await world.ask(hub, f"{TARGET}?artifactType={SIGNATURE}")
    assert (await marks(response), trace.outcome, asked(world)) == ({"b"}, "hit", [f"GET {API}"])


async def test_docker_hubs_short_names_are_its_long_ones(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")))
    hub = world.proxy(url="https://registry-1.docker.io")
    response, _ = await world.ask(hub, f"/v2/app/referrers/{SUBJECT}")
    assert await marks(response) == {"a"}


async def test_every_page_of_upstreams_is_followed(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")), f"/v2/library/app/referrers/{SUBJECT}?page=2")
    world.upstream.answers[f"{API}?page=2"] = answer(index(), "http://10.0.0.1/elsewhere?page=3")
    world.upstream.answers[f"{API}?page=3"] = answer(index(descriptor("b"), descriptor("a")))
    response, _ = await world.ask(world.proxy(), TARGET)
    assert await marks(response) == {"a", "b"}


@pytest.mark.parametrize("status", [303, 400, 404, 405, 406, 410, 501])
async def test_where_upstream_has_no_api_the_tag_stands_in(world: World, status: int) -> None:
    world.upstream.answers[API] = Answer(b"nothing here", [("location", "https://site.example/")], status)
    world.upstream.answers[TAG] = answer(index(descriptor("a"), descriptor("b", SBOM)))
    hub = world.proxy()
    response, trace = await world.ask(hub, f"{TARGET}?artifactType={SBOM}")
    assert (await marks(response), trace.outcome) == ({"b"}, "miss")
    assert asked(world) == [f"GET {API}", f"GET {TAG}"]
    response, trace = await world.ask(hub, TARGET)
    assert (await marks(response), trace.outcome, asked(world)) == ({"a", "b"}, "hit", [])


async def test_a_page_for_people_is_no_api(world: World) -> None:
    world.upstream.answers[API] = answer(b"<html>Welcome</html>", content_type="text/html; charset=utf-8")
    world.upstream.answers[TAG] = answer(index(descriptor("a")))
    response, _ = await world.ask(world.proxy(), TARGET)
    assert await marks(response) == {"a"}


async def test_which_of_the_two_it_is_is_remembered_for_a_while(world: World) -> None:
    hub = world.proxy()
    other = Digest.of(b"another")
    world.upstream.answers[TAG] = answer(index(descriptor("a")))
    await world.ask(hub, TARGET)
    await world.ask(hub, TARGET.replace(SUBJECT.hex, other.hex))
    assert asked(world) == [f"GET {API}", f"GET {TAG}", f"GET {TAG.replace(SUBJECT.hex, other.hex)}"]
    world.clock.forward(901)
    world.upstream.answers[API] = answer(index(descriptor("b")))  # it was upgraded
    response, _ = await world.ask(hub, TARGET)
    assert (await marks(response), asked(world)) == ({"b"}, [f"GET {API}"])


async def test_what_a_mirror_that_helps_out_lacks_is_not_taken_for_the_upstreams(world: World) -> None:
    hub = world.proxy()
    world.upstream.answers[API] = Answer(b"404 page not found", [], 404, origin="https://mirror.other.example")
    response, _ = await world.ask(hub, TARGET)
    assert await marks(response) == set()
    other = TARGET.replace(SUBJECT.hex, "0" * 64)
    world.upstream.answers[other[1:]] = answer(index(descriptor("a")))  # the upstream itself is back
    response, _ = await world.ask(hub, other)
    assert await marks(response) == {"a"}


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(b'{"errors":[{"code":"NAME_UNKNOWN"}]}', [("content-type", "application/json")], 404),
        Answer(b"<html>", [("content-type", "text/html")]),
        Answer(b"bad", [], 400),
    ],
)
async def test_a_refusal_of_one_question_is_not_taken_for_the_want_of_an_api(world: World, refusal: Answer) -> None:
    world.upstream.answers[API] = refusal
    hub = world.proxy()
    response, _ = await world.ask(hub, TARGET)
    assert await marks(response) == set()
    other = TARGET.replace(SUBJECT.hex, "0" * 64)
    world.upstream.answers[other[1:]] = answer(index(descriptor("a")))
    response, _ = await world.ask(hub, other)
    assert await marks(response) == {"a"}


async def test_a_tag_that_has_not_moved_is_not_fetched_again(world: World) -> None:
    def attach(*descriptors: object) -> None:
        tag = TAG.rpartition("/")[2]
        world.upstream.add_manifest("library/app", index(*descriptors), tag, media_type=INDEX)

    attach(descriptor("a"))
    hub = world.proxy()
    await world.ask(hub, TARGET)
    asked(world)
    for _ in range(2):
        world.clock.forward(301)
        response, trace = await world.ask(hub, TARGET)
        assert (await marks(response), trace.outcome, response.headers.get("warning")) == ({"a"}, "miss", None)
        assert asked(world) == [f"HEAD {TAG}"]
    attach(descriptor("a"), descriptor("b"))
    world.clock.forward(301)
    response, _ = await world.ask(hub, TARGET)
    assert (await marks(response), asked(world)[-2:]) == ({"a", "b"}, [f"HEAD {TAG}", f"GET {TAG}"])


@pytest.mark.parametrize("has_api", [True, False])
async def test_that_nothing_refers_to_an_image_that_is_kept_is_kept_too(world: World, has_api: bool) -> None:
    image = manifest()
    digest = world.upstream.add_manifest("library/app", image, "1", media_type=MANIFEST)
    target = f"/v2/library/app/referrers/{digest}"
    if has_api:
        world.upstream.answers[target[1:]] = answer(index())
    hub = world.proxy()
    await world.ask(hub, "/v2/library/app/manifests/1")
    response, trace = await world.ask(hub, target)
    assert (await marks(response), trace.outcome) == (set(), "miss")
    world.clock.forward(301)
    world.upstream.trouble = UpstreamFailed("500")
    response, trace = await world.ask(hub, target)
    assert (await marks(response), trace.outcome, str(response.headers.get("warning"))[:4]) == (set(), "stale", "111 ")


async def test_strangers_questions_about_made_up_digests_leave_nothing_behind(world: World) -> None:
    hub = world.proxy()
    for number in range(9):
        digest = Digest.of(b"%d" % number)
        world.upstream.answers[f"v2/library/app/referrers/{digest}"] = answer(index())
        response, _ = await world.ask(hub, f"/v2/library/app/referrers/{digest}")
        assert await marks(response) == set()
    assert not world.catalog.files


async def test_what_neither_has_is_an_empty_list_for_as_long_as_not_found_holds(world: World) -> None:
    hub = world.proxy()
    response, _ = await world.ask(hub, TARGET)
    assert await body_of(response) == index().replace(b" ", b"")
    asked(world)
    response, trace = await world.ask(hub, f"{TARGET}?artifactType={SBOM}")
    assert (await marks(response), trace.outcome, asked(world)) == (set(), "negative", [])
    assert response.headers.get("oci-filters-applied") == "artifactType"
    world.clock.forward(61)
    world.upstream.answers[TAG] = answer(index(descriptor("a")))
    response, _ = await world.ask(hub, TARGET)
    assert await marks(response) == {"a"}


@pytest.mark.parametrize(
    "trouble", [UpstreamFailed("500"), UpstreamUnavailable("429", retry_after=3), UpstreamTimeout("slow")]
)
@pytest.mark.parametrize("where", [API, TAG])
async def test_trouble_is_told_and_never_an_empty_list(world: World, trouble: Problem, where: str) -> None:
    world.upstream.answers[where] = Answer(problem=trouble)
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (response.status, code_of(response)) == (trouble.status, "UNAVAILABLE")
    assert not world.catalog.files


async def test_the_old_list_is_served_and_marked_when_upstream_is_in_trouble(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")))
    hub = world.proxy()
    await world.ask(hub, TARGET)
    world.clock.forward(301)
    world.upstream.trouble = UpstreamFailed("500")
    response, trace = await world.ask(hub, TARGET)
    assert (await marks(response), trace.outcome) == ({"a"}, "stale")
    assert str(response.headers.get("warning")).startswith("111 - ")
    world.upstream.trouble = None
    world.upstream.answers[API] = answer(index())
    response, trace = await world.ask(hub, TARGET)
    assert (await marks(response), trace.outcome, response.headers.get("warning")) == (set(), "miss", None)


async def test_a_page_that_fails_fails_the_list(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")), "?page=2")
    for second in (Answer(problem=UpstreamTimeout("slow")), Answer(b"gone", [], 404), answer(b"<p>", "", "text/html")):
        world.upstream.answers[f"{API}?page=2"] = second
        response, _ = await world.ask(world.proxy(), TARGET)
        assert response.status in (502, 504)
    assert not world.catalog.files


async def test_an_offline_repository_shows_what_it_keeps(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")))
    await world.ask(world.proxy(), TARGET)
    asked(world)
    offline = world.proxy(rules=Rules(offline=True))
    response, trace = await world.ask(offline, TARGET)
    assert (await marks(response), trace.outcome) == ({"a"}, "hit")
    world.clock.forward(301)
    response, trace = await world.ask(offline, TARGET)
    assert (await marks(response), str(response.headers.get("warning"))[:4]) == ({"a"}, "110 ")
    response, _ = await world.ask(offline, TARGET.replace(SUBJECT.hex, "0" * 64))
    assert (response.status, asked(world)) == (503, [])


async def test_many_clients_fetch_the_list_once(world: World) -> None:
    gate = trio.Event()
    world.upstream.answers[API] = answer(index(descriptor("a"), descriptor("b", SBOM)))
    world.upstream.answers[API].gate = gate
    hub = world.proxy()

    async def client(query: str, wanted: set[str]) -> None:
        response, _ = await world.ask(hub, TARGET + query)
        assert await marks(response) == wanted

    async with trio.open_nursery() as clients:
        for _ in range(4):
            clients.start_soon(client, "", {"a", "b"})
            clients.start_soon(client, f"?artifactType={SBOM}", {"b"})
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert asked(world) == [f"GET {API}"]


async def test_a_client_that_leaves_leaves_the_fetch_running(world: World) -> None:
    gate = trio.Event()
    world.upstream.answers[API] = answer(index(descriptor("a")))
    world.upstream.answers[API].body_gate = gate
    hub = world.proxy()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as clients:
            clients.start_soon(world.ask, hub, TARGET)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    gate.set()
    response, _ = await world.ask(hub, TARGET)
    assert (await marks(response), asked(world), world.upstream.open_replies) == ({"a"}, [f"GET {API}"], 0)


async def test_a_full_disk_does_not_keep_the_list_from_the_client(world: World) -> None:
    world.blobs.full = True
    world.upstream.answers[API] = answer(index(descriptor("a")))
    response, _ = await world.ask(world.proxy(), TARGET)
    assert await marks(response) == {"a"}


def _broken() -> Iterable[tuple[str, bytes]]:
    good = descriptor("a")
    yield "not JSON", b"404 page not found"
    yield "cut", index(good)[:-9]
    yield "another index type", json.dumps({"schemaVersion": 1, "manifests": []}).encode()
    yield "no list", b'{"schemaVersion":2}'
    yield "a list of texts", index("sha256:" + "0" * 64)
    yield "a digest of another length", index(good, {**good, "digest": "sha256:00"})
    yield "a digest that nobody can compute", index({**good, "digest": "md5:" + "0" * 32})
    yield "a path for a digest", index({**good, "digest": "../../etc/passwd"})
    yield "no size", index({key: value for key, value in good.items() if key != "size"})
    yield "a size below zero", index({**good, "size": -1})
    yield "no media type", index({**good, "mediaType": None})
    yield "about something else", index(good, subject={"digest": "sha256:" + "0" * 64})
    yield "no UTF-8", index(good).replace("ü".encode(), b"\xff")
    yield "nested without end", b'{"schemaVersion":2,"manifests":[' + b"[" * 100_000
    yield "larger than any list", index(*(descriptor(f"{n:0>1000}") for n in range(9000)))


BROKEN = dict(_broken())


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("where", [API, TAG])
async def test_a_broken_list_is_refused_whole(world: World, where: str, what: str) -> None:
    world.upstream.answers[where] = answer(BROKEN[what])
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (response.status, code_of(response)) == (502, "UNAVAILABLE")
    assert not world.catalog.files


async def test_a_list_of_nothing_may_be_null(world: World) -> None:
    world.upstream.answers[API] = answer(b'{"schemaVersion":2,"manifests":null}', content_type="application/json")
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (await marks(response), asked(world)) == (set(), [f"GET {API}"])


async def test_pages_in_circles_and_without_end_are_refused(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")), "?page=1")
    world.upstream.answers[f"{API}?page=1"] = answer(index(descriptor("b")), "?page=1")
    response, _ = await world.ask(world.proxy(), TARGET)
    assert response.status == 502
    for number in range(2100):
        world.upstream.answers[f"{API}?page={number}"] = answer(index(), f"?page={number + 1}")
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (response.status, len(asked(world)) < 2010) == (502, True)


async def test_a_tag_that_is_an_image_is_no_list(world: World) -> None:
    image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []}
    world.upstream.answers[TAG] = answer(json.dumps(image).encode(), content_type=MANIFEST)
    response, _ = await world.ask(world.proxy(), TARGET)
    assert response.status == 502


async def test_the_tag_of_a_long_digest_is_cut(world: World) -> None:
    long = Digest.of(b"x", "sha512")
    world.upstream.answers[f"v2/library/app/manifests/sha512-{long.hex[:64]}"] = answer(index(descriptor("a")))
    response, _ = await world.ask(world.proxy(), f"/v2/library/app/referrers/{long}")
    assert await marks(response) == {"a"}


async def test_a_huge_refusal_is_not_read_to_its_end(world: World) -> None:
    world.upstream.answers[API] = Answer(b"x" * (10 << 20), [], 404)
    world.upstream.answers[TAG] = answer(index(descriptor("a")))
    response, _ = await world.ask(world.proxy(), TARGET)
    assert (await marks(response), world.upstream.open_replies) == ({"a"}, 0)


async def test_two_workers_share_what_is_kept(world: World) -> None:
    world.upstream.answers[API] = answer(index(descriptor("a")))
    one: Proxy = world.proxy()
    two = world.proxy(stock=world.worker())
    await world.ask(one, TARGET)
    response, trace = await world.ask(two, TARGET)
    assert (await marks(response), trace.outcome, asked(world)) == ({"a"}, "hit", [f"GET {API}"])
