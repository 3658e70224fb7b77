"""Pushing to a local repository, as clients do it."""

from __future__ import annotations

import json

import pytest
import trio

from kit.bodies import GivenBody
from kit.publishing import EVERYTHING, Rights, pushed_image
from kit.repos import World, body_of, code_of, fields_of
from mxart.access.base import Action, Denied, LoginWanted
from mxart.digest import Digest
from mxart.message import Response
from mxart.repos.callers import Caller
from mxart.repos.local import Local
from mxart.repos.oci import media

LAYER = b"layer" * 1000
SUM = Digest.of(LAYER)
ALICE = Caller(name="alice", grants=EVERYTHING)
BOB = Caller(name="bob", grants=EVERYTHING)


class Shop:
    """A local repository under a prefix, `/v2/team/...`, as a client sees it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own = world.local(lends=lambda repository: repository in ("other", "hub"))

    async def say(
        self,
        method: str,
        target: str,
        body: bytes | GivenBody = b"",
        *fields: tuple[str, str],
        caller: Caller = ALICE,
        repository: Local | None = None,
    ) -> Response:
        return await self.world.send(repository or self.own, method, target, body, *fields, caller=caller)

    async def begin(self, query: str = "", caller: Caller = ALICE) -> str:
        response = await self.say("POST", f"/v2/app/blobs/uploads/{query}", caller=caller)
        assert response.status == 202
        location = response.headers.get("location")
        assert location is not None
        return location

    async def push(self, data: bytes, package: str = "app", repository: Local | None = None) -> Digest:
        digest = Digest.of(data)
        response = await self.say("POST", f"/v2/{package}/blobs/uploads/?digest={digest}", data, repository=repository)
        assert response.status == 201
        return digest

    async def holds(self, target: str) -> bool:
        return (await self.say("HEAD", target)).status == 200


@pytest.fixture
def shop(nursery: trio.Nursery) -> Shop:
    return Shop(World(nursery))


# uploads


async def test_a_blob_is_sent_in_one_request(shop: Shop) -> None:
    response = await shop.say("POST", f"/v2/app/blobs/uploads/?digest={SUM}", LAYER)
    assert (response.status, *fields_of(response, "location", "docker-content-digest")) == (
        201,
        f"/v2/app/blobs/{SUM}",
        str(SUM),
    )
    assert await body_of(await shop.say("GET", f"/v2/app/blobs/{SUM}")) == LAYER


async def test_an_upload_has_no_more_bytes_than_one_request_may_have_however_it_comes(shop: Shop) -> None:
    shop.own = shop.world.local(max_upload=3000)
    location = await shop.begin()
    assert (await shop.say("PATCH", location, LAYER[:2000])).status == 202
    assert (await shop.say("PATCH", location, LAYER[2000:3001])).status == 413
    response = await shop.say("PATCH", location, GivenBody(LAYER[2000:4000], length=None))
    assert response.status == 413
    response = await shop.say("POST", f"/v2/app/blobs/uploads/?digest={SUM}", LAYER)
    assert response.status == 413
    assert b"3000 bytes" in await body_of(response)


async def test_a_blob_is_sent_in_two_requests(shop: Shop) -> None:
    location = await shop.begin()
    response = await shop.say("PUT", f"{location}?digest={SUM}", LAYER)
    assert (response.status, response.headers.get("location")) == (201, f"/v2/app/blobs/{SUM}")
    assert await shop.holds(f"/v2/app/blobs/{SUM}")


async def test_a_blob_is_streamed_without_saying_where_or_how_long(shop: Shop) -> None:
    location = await shop.begin()
    response = await shop.say("PATCH", location, GivenBody(LAYER, chunk=700, length=None))
    assert (response.status, *fields_of(response, "location", "range")) == (202, location, "0-4999")
    assert (await shop.say("PUT", f"{location}?digest={SUM}")).status == 201
    assert await body_of(await shop.say("GET", f"/v2/app/blobs/{SUM}")) == LAYER


async def test_a_blob_is_sent_in_pieces_and_gone_on_with_where_it_stopped(shop: Shop) -> None:
    location = await shop.begin()
    first = await shop.say("PATCH", location, LAYER[:2000], ("content-range", "0-1999"), ("content-length", "2000"))
    assert (first.status, first.headers.get("range")) == (202, "0-1999")
    for start in (0, 1000, 3000):
        wrong = await shop.say("PATCH", location, LAYER[start : start + 10], ("content-range", f"{start}-{start + 9}"))
        assert (wrong.status, code_of(wrong), *fields_of(wrong, "location", "range")) == (
            416,
            "RANGE_INVALID",
            location,
            "0-1999",
        )
    late = await shop.say("PUT", f"{location}?digest={SUM}", LAYER[3000:], ("content-range", "3000-4999"))
    assert (late.status, late.headers.get("range")) == (416, "0-1999")
    status = await shop.say("GET", location)
    assert (status.status, *fields_of(status, "location", "range")) == (204, location, "0-1999")
    done = await shop.say("PUT", f"{location}?digest={SUM}", LAYER[2000:], ("content-range", "2000-4999"))
    assert done.status == 201
    assert await body_of(await shop.say("GET", f"/v2/app/blobs/{SUM}")) == LAYER
    assert (await shop.say("GET", location)).status == 404


@pytest.mark.parametrize("content_range", ["1-0", "0-5", "x", "-1", "0-", "bytes 0-8/x", "9" * 30 + "-1"])
async def test_a_range_that_is_none_or_does_not_fit_is_refused(shop: Shop, content_range: str) -> None:
    location = await shop.begin()
    fields = (("content-range", content_range), ("content-length", "10"))
    response = await shop.say("PATCH", location, b"0123456789", *fields)
    assert response.status == 400
    assert code_of(response) in ("SIZE_INVALID", "BLOB_UPLOAD_INVALID")
    assert (await shop.say("GET", location)).headers.get("range") == "0-0"


async def test_an_upload_is_cancelled(shop: Shop) -> None:
    location = await shop.begin()
    await shop.say("PATCH", location, LAYER)
    assert (await shop.say("DELETE", location)).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        response = await shop.say(method, location)
        assert (response.status, code_of(response)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert shop.world.uploads.data == {}


async def test_an_upload_of_another_user_package_or_repository_is_unknown(shop: Shop) -> None:
    location = await shop.begin()
    upload = location.rpartition("/")[2]
    other = shop.world.local("other")
    for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={SUM}"), ("DELETE", "")):
        answers = [
            await shop.say(method, location + query, LAYER, caller=BOB),
            await shop.say(method, f"/v2/app2/blobs/uploads/{upload}{query}", LAYER),
            await shop.say(method, location + query, LAYER, repository=other),
            await shop.say(method, f"/v2/app/blobs/uploads/..%5c{upload}{query}", LAYER),
        ]
        for response in answers:
            assert (response.status, code_of(response)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert (await shop.say("PUT", f"{location}?digest={SUM}", LAYER)).status == 201


async def test_the_wrong_digest_is_refused_and_the_upload_can_be_finished_rightly(shop: Shop) -> None:
    location = await shop.begin()
    other = Digest.of(b"something else")
    response = await shop.say("PUT", f"{location}?digest={other}", LAYER)
    assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")
    assert str(SUM) in (await body_of(response)).decode()
    assert not await shop.holds(f"/v2/app/blobs/{other}")
    assert (await shop.say("PUT", f"{location}?digest={SUM}")).status == 201


async def test_a_blob_in_one_request_with_the_wrong_digest_leaves_nothing(shop: Shop) -> None:
    response = await shop.say("POST", f"/v2/app/blobs/uploads/?digest={Digest.of(b'else')}", LAYER)
    assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")
    assert (shop.world.uploads.data, shop.world.blobs.kept) == ({}, {})


@pytest.mark.parametrize(
    "digest", ["", "sha256:abc", "sha256:baddigeststring", f"md5:{'0' * 32}", "latest", f"sha256:{'A' * 64}"]
)
async def test_a_digest_that_is_none_is_refused_wherever_it_stands(shop: Shop, digest: str) -> None:
    location = await shop.begin()
    refused = [("PUT", f"{location}?digest={digest}"), ("PUT", location)]
    if digest:
        refused += [
            ("POST", f"/v2/app/blobs/uploads/?digest={digest}"),
            ("POST", f"/v2/app/blobs/uploads/?mount={digest}&from=other"),
            ("DELETE", f"/v2/app/blobs/{digest}"),
            ("PUT", f"/v2/app/manifests/sha256:{digest.rpartition(':')[2][:20]}"),
        ]
    for method, target in refused:
        response = await shop.say(method, target, LAYER)
        assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")


async def test_sha512_is_kept_and_named_as_the_client_names_it(shop: Shop) -> None:
    digest = Digest.of(LAYER, "sha512")
    for query in ("", "?digest-algorithm=sha512"):
        location = await shop.begin(query)
        response = await shop.say("PUT", f"{location}?digest={digest}", LAYER)
        assert response.status == 201
        assert fields_of(response, "location", "docker-content-digest") == [f"/v2/app/blobs/{digest}", str(digest)]
        got = await shop.say("GET", f"/v2/app/blobs/{digest}")
        assert (await body_of(got), got.headers.get("docker-content-digest")) == (LAYER, str(digest))
    response = await shop.say("POST", "/v2/app/blobs/uploads/?digest-algorithm=sha384")
    assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")


async def test_locations_keep_the_prefix_of_the_url_and_the_namespace(shop: Shop) -> None:
    """The router takes `/team` away before the format sees the path."""
    world = shop.world
    target = "/v2/team/app/blobs/uploads/?ns=registry.example"
    begun = await world.send(shop.own, "POST", target, below="/v2/app/blobs/uploads/", caller=ALICE)
    location = begun.headers.get("location")
    assert location is not None
    assert location.startswith("/v2/team/app/blobs/uploads/")
    assert location.endswith("?ns=registry.example")
    upload = location.partition("?")[0].rpartition("/")[2]
    done = await world.send(
        shop.own,
        "PUT",
        f"{location}&digest={SUM}",
        LAYER,
        below=f"/v2/app/blobs/uploads/{upload}",
        caller=ALICE,
    )
    assert done.headers.get("location") == f"/v2/team/app/blobs/{SUM}?ns=registry.example"


# mounting


async def test_a_blob_is_mounted_from_where_the_caller_may_read_it(shop: Shop) -> None:
    await shop.push(LAYER, "base/image")
    sent = await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}&from=base/image")
    assert (sent.status, sent.headers.get("location")) == (201, f"/v2/app/blobs/{SUM}")
    await shop.say("DELETE", f"/v2/base/image/blobs/{SUM}")
    assert await body_of(await shop.say("GET", f"/v2/app/blobs/{SUM}")) == LAYER


async def test_a_blob_is_mounted_without_saying_from_where_and_from_other_repositories(shop: Shop) -> None:
    await shop.push(LAYER, "base", shop.world.local("other"))
    for query in ("", "&from=", "&from=team/base", "&from=wrong"):
        sent = await shop.say("POST", f"/v2/app{len(query)}/blobs/uploads/?mount={SUM}{query}")
        assert sent.status == 201


@pytest.mark.parametrize("source", ["&from=base", ""])
async def test_what_the_caller_may_not_read_has_to_be_sent(shop: Shop, source: str) -> None:
    await shop.push(LAYER, "base")
    await shop.push(LAYER, "base", shop.world.local("secret"))
    carol = Caller(name="carol", grants=Rights(publish={"own:app"}))
    sent = await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}{source}", caller=carol)
    assert sent.status == 202
    assert (sent.headers.get("location") or "").startswith("/v2/app/blobs/uploads/")
    reader = Caller(name="carol", grants=Rights(publish={"own:app"}, read={"secret:base"}))
    sent = await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}{source}", caller=reader)
    assert sent.status == 202, "a repository that lends nothing"
    reader = Caller(name="carol", grants=Rights(publish={"own:app"}, read={"own:base"}))
    sent = await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}{source}", caller=reader)
    assert sent.status == 201


class ByToken(Rights):
    """Reading is his right, but not what his token was asked for."""

    def demand(self, action: Action, repository: str, path: str) -> None:
        if action == "read" and path == "base" and not self.may(action, repository, path):
            raise LoginWanted("not asked for", Denied(action, repository, path), error="insufficient_scope")
        super().demand(action, repository, path)


@pytest.mark.parametrize("source", ["&from=base", ""])
async def test_whose_token_is_too_narrow_to_mount_is_told_of_which_he_needs(shop: Shop, source: str) -> None:
    await shop.push(LAYER, "base")
    await shop.push(LAYER, "hidden")
    narrow = Caller(name="carol", grants=ByToken(publish={"own:app"}))
    sent = await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}{source}", caller=narrow)
    assert sent.status == 401
    assert shop.world.uploads.states == {}
    wide = Caller(name="carol", grants=ByToken(publish={"own:app"}, read={"own:hidden"}))
    assert (await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}{source}", caller=wide)).status == 201


async def test_what_nobody_has_or_was_swept_in_that_moment_has_to_be_sent(shop: Shop) -> None:
    assert (await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}&from=base")).status == 202
    await shop.push(LAYER, "base")
    shop.world.blobs.kept.clear()
    assert (await shop.say("POST", f"/v2/app/blobs/uploads/?mount={SUM}&from=base")).status == 202
    assert not await shop.holds(f"/v2/app/blobs/{SUM}")


# rights


async def test_who_may_not_publish_is_asked_to_log_in_and_nothing_is_begun(shop: Shop) -> None:
    stranger = Caller()
    for method, target in (
        ("POST", "/v2/app/blobs/uploads/"),
        ("PUT", "/v2/app/manifests/1"),
        ("DELETE", f"/v2/app/blobs/{SUM}"),
    ):
        assert (await shop.say(method, target, b"{}", caller=stranger)).status == 401
    assert shop.world.uploads.states == {}


async def test_who_may_publish_only_moves_no_tag_and_deletes_nothing(shop: Shop) -> None:
    await shop.push(b"{}")
    one, two = pushed_image("one"), pushed_image("two")
    carol = Caller(name="carol", grants=Rights(publish={"own:app"}, read={"own:app"}))
    fields = ("content-type", media.MANIFEST)
    for _ in range(2):  # the same bytes again
        assert (await shop.say("PUT", "/v2/app/manifests/1", one, fields, caller=carol)).status == 201
    response = await shop.say("PUT", "/v2/app/manifests/1", two, fields, caller=carol)
    assert (response.status, code_of(response)) == (403, "DENIED")
    assert await body_of(await shop.say("GET", "/v2/app/manifests/1")) == one
    assert (await shop.say("DELETE", "/v2/app/manifests/1", caller=carol)).status == 403
    assert (await shop.say("PUT", "/v2/app/manifests/2", two, fields, caller=carol)).status == 201
    assert json.loads(await body_of(await shop.say("GET", "/v2/app/tags/list")))["tags"] == ["1", "2"]


async def test_a_proxy_says_where_to_push(shop: Shop) -> None:
    response = await shop.world.send(shop.world.proxy(), "POST", "/v2/app/blobs/uploads/", caller=ALICE)
    assert (response.status, code_of(response), response.headers.get("allow")) == (405, "UNSUPPORTED", "GET, HEAD")
    assert "local repository" in (await body_of(response)).decode()
