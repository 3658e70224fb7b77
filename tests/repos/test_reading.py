"""What a client may expect of any repository that has an image, whatever its kind: one suite for all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
import trio
import trio.testing

from kit.repos import Answer, World, body_of, code_of, manifest
from mxart.digest import Digest
from mxart.errors import UpstreamTimeout
from mxart.message import Response
from mxart.repos.base import Repository
from mxart.repos.group import Group
from mxart.repos.oci import media
from mxart.repos.oci.format import Oci

MANIFEST = manifest("the image")
SMALL = b'{"architecture":"amd64"}'
LARGE = hashlib.shake_128(b"layer").digest(200_000)
TAGS = ["1.0", "1.1", "latest"]


def local(world: World) -> Repository:
    for reference in (*TAGS, "{}"):
        world.publish("own", "org/app", f"org/app/manifests/{reference}", MANIFEST, media.MANIFEST)
    for blob in (SMALL, LARGE):
        world.publish("own", "org/app", "org/app/blobs/{}", blob, media.BLOB)
    return world.local()


def cold(world: World) -> Repository:
    world.upstream.add_manifest("org/app", MANIFEST, *TAGS, media_type=media.MANIFEST)
    for blob in (SMALL, LARGE):
        world.upstream.add_blob("org/app", blob)
    world.upstream.answers["v2/org/app/tags/list"] = Answer(json.dumps({"tags": TAGS[::-1]}).encode())
    return world.proxy()


def nested(world: World) -> Repository:
    inner = Group("inner", Oci(), [world.local("empty"), cold(world)])
    return Group("outer", Oci(), [world.local("void"), inner])


KINDS: dict[str, Callable[[World], Repository]] = {
    "local": local,
    "cold proxy": cold,
    "warm proxy": cold,
    "stale proxy": cold,
    "group of local": lambda world: Group("all", Oci(), [local(world)]),
    "nested groups": nested,
}


@pytest.fixture(params=KINDS)
async def repository(request: pytest.FixtureRequest, world: World) -> Repository:
    made = KINDS[request.param](world)
    if request.param in ("warm proxy", "stale proxy"):
        paths = [f"manifests/{tag}" for tag in TAGS] + [f"blobs/{Digest.of(blob)}" for blob in (SMALL, LARGE)]
        for path in (*paths, "tags/list"):
            await body_of((await world.ask(made, f"/v2/org/app/{path}"))[0])
        await trio.testing.wait_all_tasks_blocked()
    if request.param == "stale proxy":
        # Unknown things stay unknown only as long as somebody can say so: remember them first.
        for path in UNKNOWN:
            await world.ask(made, path)
        world.clock.forward(59)
        world.upstream.trouble = UpstreamTimeout("down")
    return made


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


UNKNOWN = {
    "/v2/org/app/manifests/none": "MANIFEST_UNKNOWN",
    f"/v2/org/app/manifests/{Digest.of(b'none')}": "MANIFEST_UNKNOWN",
    f"/v2/org/app/blobs/{Digest.of(b'none')}": "BLOB_UNKNOWN",
}


async def get(world: World, repository: Repository, path: str, *fields: tuple[str, str]) -> Response:
    response, trace = await world.ask(repository, f"/v2/org/app/{path}", *fields)
    assert trace.outcome in {"hit", "miss", "joined", "revalidated", "stale", "local"}
    return response


@pytest.mark.parametrize("reference", ["latest", "1.0", str(Digest.of(MANIFEST))])
async def test_a_manifest_comes_byte_for_byte_with_its_type_and_digest(
    world: World, repository: Repository, reference: str
) -> None:
    for _ in range(2):
        response = await get(world, repository, f"manifests/{reference}")
        assert (response.status, await body_of(response)) == (200, MANIFEST)
        assert response.headers.get("content-type") == media.MANIFEST
        assert response.headers.get("docker-content-digest") == str(Digest.of(MANIFEST))
        assert response.headers.get("docker-distribution-api-version") == "registry/2.0"
        assert response.headers.get("last-modified") is not None
        control = response.headers.get("cache-control")
        assert control == ("max-age=31536000, immutable" if ":" in reference else "no-cache")


async def test_a_head_says_what_the_get_would(world: World, repository: Repository) -> None:
    for path in ("manifests/latest", f"blobs/{Digest.of(LARGE)}", f"blobs/{Digest.of(SMALL)}", "tags/list"):
        head, _ = await world.ask(repository, f"/v2/org/app/{path}", method="HEAD")
        whole = await get(world, repository, path)
        names = ("content-type", "docker-content-digest", "etag", "accept-ranges")
        assert [head.headers.get(name) for name in names] == [whole.headers.get(name) for name in names]
        assert (head.status, head.body.length) == (whole.status, whole.body.length)
        head.body.close()
        whole.body.close()


@pytest.mark.parametrize(
    ("span", "start", "end"), [("500-1499", 500, 1500), ("199000-", 199_000, 200_000), ("-500", 199_500, 200_000)]
)
async def test_any_part_of_a_blob(world: World, repository: Repository, span: str, start: int, end: int) -> None:
    for _ in range(2):
        response = await get(world, repository, f"blobs/{Digest.of(LARGE)}", ("range", f"bytes={span}"))
        assert (response.status, await body_of(response)) == (206, LARGE[start:end])
        assert response.headers.get("content-range") == f"bytes {start}-{end - 1}/200000"
        await trio.testing.wait_all_tasks_blocked()


async def test_whole_blobs_large_and_small(world: World, repository: Repository) -> None:
    for blob in (LARGE, SMALL, LARGE, SMALL):
        response = await get(world, repository, f"blobs/{Digest.of(blob)}")
        assert await body_of(response) == blob
        assert response.headers.get("content-type") == media.BLOB
    await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.opened


async def test_what_the_client_has_is_not_sent_again(world: World, repository: Repository) -> None:
    for path, data in (("manifests/latest", MANIFEST), (f"blobs/{Digest.of(LARGE)}", LARGE)):
        response = await get(world, repository, path, ("if-none-match", f'"{Digest.of(data)}"'))
        assert (response.status, await body_of(response)) == (304, b"")
    await trio.testing.wait_all_tasks_blocked()
    assert not world.blobs.opened


async def test_a_condition_that_fails_is_412(world: World, repository: Repository) -> None:
    response = await get(world, repository, "manifests/latest", ("if-match", '"other"'))
    assert response.status == 412
    assert code_of(response)


@pytest.mark.parametrize("target", UNKNOWN)
async def test_what_is_not_there_is_not_found(world: World, repository: Repository, target: str) -> None:
    response, _ = await world.ask(repository, target)
    assert (response.status, code_of(response)) == (404, UNKNOWN[target])


async def test_the_tags(world: World, repository: Repository) -> None:
    response = await get(world, repository, "tags/list")
    assert json.loads(await body_of(response)) == {"name": "org/app", "tags": TAGS}
    response = await get(world, repository, "tags/list?n=2")
    assert json.loads(await body_of(response))["tags"] == TAGS[:2]
    assert response.headers.get("link") == '</v2/org/app/tags/list?n=2&last=1.1>; rel="next"'
    response = await get(world, repository, "tags/list?n=2&last=1.1")
    assert json.loads(await body_of(response))["tags"] == TAGS[2:]
    assert response.headers.get("link") is None
    response = await get(world, repository, "tags/list?n=3")
    assert response.headers.get("link") is None
