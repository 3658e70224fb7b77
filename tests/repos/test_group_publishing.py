"""Pushing to a group: it ends up in the repository that the group publishes to, and is seen in the group at once."""

from __future__ import annotations

import json

import pytest
import trio

from kit.publishing import EVERYTHING, Rights, descriptor, pushed_image
from kit.repos import Answer, FakeUpstream, World, body_of, code_of, manifest
from mxart.digest import Digest
from mxart.errors import ConfigError, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.base import Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.group import Group
from mxart.repos.oci import media
from mxart.repos.oci.format import Oci

ALICE = Caller(name="alice", grants=EVERYTHING)
LAYER = b"a layer"
THEIRS = manifest("theirs")
SIGNATURE = "application/vnd.example.signature"


class Delegated(Rights):
    delegated = True


class Shop:
    """A group of a local repository and a proxy, where the proxy comes first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.upstream = FakeUpstream()
        self.hub = world.proxy("hub", upstream=self.upstream)
        self.own = world.local()
        self.all = Group("all", Oci(), [self.hub, self.own], "own")

    async def say(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *fields: tuple[str, str],
        caller: Caller = ALICE,
        at: Repository | None = None,
    ) -> Response:
        return await self.world.send(at or self.all, method, target, body, *fields, caller=caller)

    async def push_blob(self, package: str, data: bytes, at: Repository | None = None) -> None:
        """As clients do: ask, begin, send."""
        digest = Digest.of(data)
        if (await self.say("HEAD", f"/v2/{package}/blobs/{digest}", at=at)).status == 200:
            return
        response = await self.say("POST", f"/v2/{package}/blobs/uploads/", at=at)
        location = response.headers.get("location")
        assert (response.status, location is not None) == (202, True)
        response = await self.say("PUT", f"{location}?digest={digest}", data, at=at)
        assert (response.status, response.headers.get("location")) == (201, f"/v2/{package}/blobs/{digest}")

    async def push(
        self, package: str, reference: str, data: bytes, *layers: bytes, at: Repository | None = None
    ) -> Response:
        for blob in (b"{}", *layers):
            await self.push_blob(package, blob, at)
        target = f"/v2/{package}/manifests/{reference}"
        return await self.say("PUT", target, data, ("content-type", media.MANIFEST), at=at)

    async def attach(self, package: str, subject: bytes, mark: str = "signed") -> Digest:
        about = descriptor(subject, media.MANIFEST)
        data = pushed_image(mark, artifactType=SIGNATURE, subject=about)
        response = await self.push(package, str(Digest.of(data)), data)
        assert (response.status, response.headers.get("oci-subject")) == (201, str(Digest.of(subject)))
        return Digest.of(data)

    async def referrers(self, package: str, subject: bytes, caller: Caller = NOBODY) -> set[str]:
        response = await self.say("GET", f"/v2/{package}/referrers/{Digest.of(subject)}", caller=caller)
        assert response.status == 200
        return {item["digest"] for item in json.loads(await body_of(response))["manifests"]}

    async def get(self, target: str, caller: Caller = NOBODY) -> tuple[int, bytes]:
        response = await self.say("GET", target, caller=caller)
        return response.status, await body_of(response)


@pytest.fixture
def shop(nursery: trio.Nursery) -> Shop:
    return Shop(World(nursery))


async def test_what_is_pushed_to_a_group_is_in_its_member_and_seen_in_the_group_at_once(shop: Shop) -> None:
    image = pushed_image("ours", LAYER)
    response = await shop.push("team/app", "1", image, LAYER)
    assert (response.status, response.headers.get("location")) == (201, f"/v2/team/app/manifests/{Digest.of(image)}")
    for at in (shop.all, shop.own):
        response = await shop.say("GET", "/v2/team/app/manifests/1", caller=NOBODY, at=at)
        assert await body_of(response) == image
    assert await shop.get(f"/v2/team/app/blobs/{Digest.of(LAYER)}") == (200, LAYER)
    assert json.loads((await shop.get("/v2/team/app/tags/list"))[1])["tags"] == ["1"]
    assert json.loads((await shop.get("/v2/_catalog"))[1])["repositories"] == ["team/app"]
    moved = pushed_image("moved", LAYER)
    assert (await shop.push("team/app", "1", moved, LAYER)).status == 201
    assert await shop.get("/v2/team/app/manifests/1") == (200, moved)


async def test_a_push_goes_through_groups_of_groups(shop: Shop) -> None:
    outer = Group("outer", Oci(), [shop.world.proxy("flat", upstream=shop.upstream), shop.all], "all")
    image = pushed_image("ours", LAYER)
    assert (await shop.push("team/app", "1", image, LAYER, at=outer)).status == 201
    response = await shop.say("GET", "/v2/team/app/manifests/1", caller=NOBODY, at=outer)
    assert await body_of(response) == image
    assert shop.world.catalog.file("own", "team/app/manifests/1") is not None
    assert not shop.upstream.asked


async def test_a_name_that_is_pushed_is_not_asked_of_upstreams_any_more(shop: Shop) -> None:
    shop.upstream.add_manifest("team/app", THEIRS, "1", "2", media_type=media.MANIFEST)
    assert await shop.get("/v2/team/app/manifests/1") == (200, THEIRS)
    image = pushed_image("ours", LAYER)
    assert (await shop.push("team/app", "1", image, LAYER)).status == 201
    asked = len(shop.upstream.asked)
    assert await shop.get("/v2/team/app/manifests/1") == (200, image)
    assert (await shop.get("/v2/team/app/manifests/2"))[0] == 404
    assert len(shop.upstream.asked) == asked


async def test_a_group_without_a_target_says_where_to_push(shop: Shop) -> None:
    reading = Group("reading", Oci(), [shop.own, shop.hub])
    response = await shop.say("POST", "/v2/team/app/blobs/uploads/", at=reading)
    assert (response.status, code_of(response)) == (405, "UNSUPPORTED")
    assert b"publish_to" in await body_of(response)


async def test_what_is_deleted_through_a_group_is_gone_from_its_member(shop: Shop) -> None:
    image = pushed_image("ours", LAYER)
    await shop.push("team/app", "1", image, LAYER)
    assert (await shop.say("DELETE", "/v2/team/app/manifests/1")).status == 202
    assert (await shop.get("/v2/team/app/manifests/1"))[0] == 404
    assert (await shop.say("DELETE", f"/v2/team/app/manifests/{Digest.of(image)}")).status == 202
    assert (await shop.say("DELETE", f"/v2/team/app/blobs/{Digest.of(LAYER)}")).status == 202
    assert (await shop.get(f"/v2/team/app/blobs/{Digest.of(LAYER)}"))[0] == 404
    # What is only upstream's cannot be deleted here.
    shop.upstream.add_manifest("library/app", THEIRS, "1", media_type=media.MANIFEST)
    assert await shop.get("/v2/library/app/manifests/1") == (200, THEIRS)
    assert (await shop.say("DELETE", "/v2/library/app/manifests/1")).status == 404
    assert await shop.get("/v2/library/app/manifests/1") == (200, THEIRS)


async def test_the_rights_that_count_are_those_on_the_member(shop: Shop) -> None:
    group_only = Caller(name="bob", grants=Rights(read=["all:x", "own:x"], publish=["all:x"]))
    response = await shop.say("POST", "/v2/x/blobs/uploads/", caller=group_only)
    assert (response.status, code_of(response)) == (403, "DENIED")
    member = Caller(name="bob", grants=Rights(read=["all:x", "own:x"], publish=["own:x"]))
    assert (await shop.say("POST", "/v2/x/blobs/uploads/", caller=member)).status == 202
    assert (await shop.say("DELETE", "/v2/x/manifests/1", caller=member)).status == 403
    assert (await shop.say("POST", "/v2/x/blobs/uploads/", caller=NOBODY)).status == 401


# Remarks on what others hold


async def test_who_signs_an_upstreams_image_takes_it_from_nobody(shop: Shop) -> None:
    shop.upstream.add_manifest("library/app", THEIRS, "1", "2", media_type=media.MANIFEST)
    theirs = descriptor(b"their signature", media.MANIFEST, artifactType=SIGNATURE)
    index = json.dumps({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [theirs]}).encode()
    api = f"v2/library/app/referrers/{Digest.of(THEIRS)}"
    shop.upstream.answers[api] = Answer(index, [("content-type", media.INDEX)])
    assert await shop.get("/v2/library/app/manifests/1", ALICE) == (200, THEIRS)

    ours = await shop.attach("library/app", THEIRS)
    assert await shop.referrers("library/app", THEIRS) == {str(ours), str(Digest.of(b"their signature"))}
    assert (await shop.get(f"/v2/library/app/manifests/{ours}"))[0] == 200
    for caller in (NOBODY, ALICE):
        for tag in ("1", "2"):
            assert await shop.get(f"/v2/library/app/manifests/{tag}", caller) == (200, THEIRS)


async def test_a_signature_under_a_tag_of_cosigns_takes_nothing_either(shop: Shop) -> None:
    shop.upstream.add_manifest("library/app", THEIRS, "1", media_type=media.MANIFEST)
    tag = f"sha256-{Digest.of(THEIRS).hex}.sig"
    assert (await shop.push("library/app", tag, pushed_image("signed", LAYER), LAYER)).status == 201
    assert await shop.get("/v2/library/app/manifests/1") == (200, THEIRS)
    assert (await shop.get(f"/v2/library/app/manifests/{tag}"))[0] == 200


async def test_what_refers_to_an_image_of_ours_is_asked_of_its_owners_only(shop: Shop) -> None:
    image = pushed_image("ours", LAYER)
    await shop.push("team/app", "1", image, LAYER)
    signature = await shop.attach("team/app", image)
    asked = len(shop.upstream.asked)
    assert await shop.referrers("team/app", image) == {str(signature)}
    assert len(shop.upstream.asked) == asked


async def test_a_member_that_fails_fails_the_list_of_referrers(shop: Shop) -> None:
    await shop.attach("library/app", THEIRS)
    shop.upstream.trouble = UpstreamUnavailable("down", retry_after=5)
    response = await shop.say("GET", f"/v2/library/app/referrers/{Digest.of(THEIRS)}", caller=NOBODY)
    assert (response.status, code_of(response)) == (503, "UNAVAILABLE")


async def test_a_package_whose_images_are_all_deleted_is_nobodys(shop: Shop) -> None:
    shop.upstream.add_manifest("team/app", THEIRS, "1", media_type=media.MANIFEST)
    image = pushed_image("ours", LAYER)
    await shop.push("team/app", "1", image, LAYER)
    await shop.attach("team/app", image)
    assert await shop.get("/v2/team/app/manifests/1") == (200, image)
    await shop.say("DELETE", f"/v2/team/app/manifests/{Digest.of(image)}")
    assert await shop.get("/v2/team/app/manifests/1") == (200, THEIRS)


# While something is pushed


@pytest.mark.parametrize(
    "trouble", [UpstreamDenied("401 to an unknown name"), UpstreamUnavailable("down"), UpstreamFailed("500")]
)
async def test_an_upstreams_trouble_with_a_new_name_is_not_the_pushers(shop: Shop, trouble: UpstreamFailed) -> None:
    shop.upstream.trouble = trouble
    image = pushed_image("ours", LAYER)
    for blob in (b"{}", LAYER):
        await shop.push_blob("team/app", blob)
    assert not shop.upstream.asked
    # containerd and oras ask for a manifest, too, before they push it.
    for reference in ("1", str(Digest.of(image))):
        target = f"/v2/team/app/manifests/{reference}"
        assert (await shop.say("HEAD", target)).status == 404
        assert (await shop.say("GET", target, caller=NOBODY)).status == trouble.status  # others are told
    assert (await shop.push("team/app", "1", image, LAYER)).status == 201
    assert await shop.get("/v2/team/app/manifests/1") == (200, image)


async def test_nobody_is_asked_who_he_is_before_he_is_told_of_a_failure(shop: Shop) -> None:
    """containerd shows a login only where it is asked for one: at its first HEAD."""
    shop.upstream.trouble = UpstreamUnavailable("down")
    seen = ["hub:team/app", "own:team/app", "all:team/app"]
    nobodys_token = Caller(grants=Delegated(read=seen, fetch=seen))
    reader = Caller(name="bob", grants=Rights(read=seen, fetch=seen))
    for path in (f"blobs/{Digest.of(LAYER)}", "manifests/1", f"manifests/{Digest.of(LAYER)}"):
        target = f"/v2/team/app/{path}"
        assert (await shop.say("HEAD", target, caller=NOBODY)).status == 401
        assert (await shop.say("GET", target, caller=NOBODY)).status == 503
        for caller in (nobodys_token, reader):
            assert (await shop.say("HEAD", target, caller=caller)).status == 503
    reading = Group("reading", Oci(), [shop.hub, shop.own])
    assert (await shop.say("HEAD", "/v2/team/app/manifests/1", caller=NOBODY, at=reading)).status == 503


async def test_an_upstreams_trouble_with_a_signed_image_is_told_to_everybody(shop: Shop) -> None:
    await shop.attach("library/app", THEIRS)
    shop.upstream.trouble = UpstreamUnavailable("429", retry_after=9)
    for caller in (NOBODY, ALICE):
        assert (await shop.get("/v2/library/app/manifests/1", caller))[0] == 503


async def test_a_blob_that_only_an_upstream_has_is_sent_all_the_same(shop: Shop) -> None:
    shop.upstream.add_manifest("library/app", THEIRS, "1", media_type=media.MANIFEST)
    shop.upstream.add_blob("library/app", LAYER)
    blob = f"/v2/library/app/blobs/{Digest.of(LAYER)}"
    assert (await shop.say("HEAD", blob, caller=NOBODY)).status == 200
    assert (await shop.say("HEAD", blob)).status == 404  # to her, who may push it
    response = await shop.push("library/app", "mine", pushed_image("retagged", LAYER), LAYER)
    assert response.status == 201


async def test_what_an_upstream_has_is_seen_while_something_is_pushed_beside_it(shop: Shop) -> None:
    shop.upstream.add_manifest("library/app", THEIRS, "1", media_type=media.MANIFEST)
    await shop.push_blob("library/app", LAYER)
    for caller in (NOBODY, ALICE):
        assert await shop.get("/v2/library/app/manifests/1", caller) == (200, THEIRS)


async def test_a_group_publishes_to_a_member_that_takes_it(shop: Shop) -> None:
    reading = Group("reading", Oci(), [shop.own])
    for members, target in (([shop.own], "other"), ([shop.hub], "hub"), ([reading], "reading")):
        with pytest.raises(ConfigError, match=f"publish to {target}"):
            Group("g", Oci(), members, target)
