"""Manifests that clients push: byte by byte as they came, whole, or refused with the reason."""

from __future__ import annotations

import json
import time

import pytest
import trio

from kit.bodies import GivenBody
from kit.publishing import EVERYTHING, descriptor, pushed_image
from kit.repos import World, body_of, code_of, fields_of
from mxart.digest import Digest
from mxart.message import Response
from mxart.repos.callers import Caller
from mxart.repos.oci import media
from mxart.repos.stock import MAX_DOCUMENT
from mxart.store.base import FileRecord

LAYER = b"layer" * 100
ALICE = Caller(name="alice", grants=EVERYTHING)


class Shop:
    """A local repository with a config and a layer in package `app`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own = world.local()

    async def say(
        self, method: str, target: str, body: bytes | GivenBody = b"", media_type: str = media.MANIFEST
    ) -> Response:
        fields = (("content-type", media_type),) if media_type else ()
        return await self.world.send(self.own, method, target, body, *fields, caller=ALICE)

    async def push(self, data: bytes, package: str = "app") -> Digest:
        digest = Digest.of(data)
        assert (await self.say("POST", f"/v2/{package}/blobs/uploads/?digest={digest}", data)).status == 201
        return digest

    async def put(self, data: bytes, reference: str = "1", media_type: str = media.MANIFEST) -> Response:
        return await self.say("PUT", f"/v2/app/manifests/{reference}", data, media_type)

    async def refused(self, data: bytes, media_type: str = media.MANIFEST, code: str = "MANIFEST_INVALID") -> str:
        response = await self.put(data, media_type=media_type)
        assert (response.status, code_of(response)) == (400, code)
        assert (await self.say("GET", "/v2/app/manifests/1")).status == 404
        return str(json.loads(await body_of(response))["errors"][0]["message"])

    async def tags(self) -> list[str]:
        return list(json.loads(await body_of(await self.say("GET", "/v2/app/tags/list")))["tags"])


@pytest.fixture
async def shop(nursery: trio.Nursery) -> Shop:
    shop = Shop(World(nursery))
    await shop.push(b"{}")
    await shop.push(LAYER)
    return shop


def index(*children: object, **more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": children, **more}).encode()


def listed(data: bytes, media_type: str = media.MANIFEST) -> object:
    return descriptor(data, media_type)


async def test_a_manifest_comes_back_byte_by_byte_by_tag_and_by_digest(shop: Shop) -> None:
    data = pushed_image("m", LAYER)
    digest = Digest.of(data)
    response = await shop.put(data, "3.20")
    assert (response.status, *fields_of(response, "location", "docker-content-digest", "oci-subject", "oci-tag")) == (
        201,
        f"/v2/app/manifests/{digest}",
        str(digest),
        None,
        None,
    )
    for reference in ("3.20", str(digest)):
        got = await shop.say("GET", f"/v2/app/manifests/{reference}")
        assert await body_of(got) == data
        assert fields_of(got, "content-type", "docker-content-digest") == [media.MANIFEST, str(digest)]
    assert await shop.tags() == ["3.20"]


@pytest.mark.parametrize("media_type", [media.DOCKER_MANIFEST, media.DOCKER_LIST, media.INDEX, media.ARTIFACT])
async def test_every_type_of_today_is_kept_under_its_own(shop: Shop, media_type: str) -> None:
    image = pushed_image("m", LAYER)
    await shop.put(image, "base")
    data = {
        media.DOCKER_MANIFEST: pushed_image("d", LAYER, mediaType=media.DOCKER_MANIFEST),
        media.DOCKER_LIST: index(listed(image), mediaType=media.DOCKER_LIST),
        media.INDEX: index(listed(image)),
        media.ARTIFACT: json.dumps({"mediaType": media.ARTIFACT, "blobs": [descriptor(LAYER)]}).encode(),
    }[media_type]
    for sent in (media_type, f"{media_type}; charset=utf-8", "application/json", ""):
        assert (await shop.put(data, "x", sent)).status == 201
        got = await shop.say("GET", "/v2/app/manifests/x")
        assert (await body_of(got), got.headers.get("content-type")) == (data, media_type)


async def test_a_manifest_without_a_media_type_inside_is_what_it_was_sent_as(shop: Shop) -> None:
    image = json.loads(pushed_image("m"))
    del image["mediaType"]
    bare = json.dumps(image).encode()
    assert (await shop.put(bare)).status == 201
    assert (await shop.put(bare, "2", "")).status == 201
    assert (await shop.say("GET", "/v2/app/manifests/2")).headers.get("content-type") == media.MANIFEST


async def test_sha512_names_the_manifest_where_the_client_does_so(shop: Shop) -> None:
    data = pushed_image("m")
    digest = Digest.of(data, "sha512")
    response = await shop.put(data, f"{digest}?tag=big")
    assert fields_of(response, "location", "docker-content-digest", "oci-tag") == [
        f"/v2/app/manifests/{digest}",
        str(digest),
        "big",
    ]
    got = await shop.say("GET", "/v2/app/manifests/big")
    assert (await body_of(got), got.headers.get("docker-content-digest")) == (data, str(digest))


async def test_many_tags_come_with_one_manifest(shop: Shop) -> None:
    data = pushed_image("m")
    digest = Digest.of(data)
    names = [f"1.{number}" for number in range(20)]
    query = "&".join(f"tag={name}" for name in [*names, names[0]])
    response = await shop.put(data, f"{digest}?{query}")
    assert response.status == 201
    assert response.headers.get_all("oci-tag") == names
    assert await shop.tags() == sorted(names)
    too_many = "&".join(f"tag=t{number}" for number in range(101))
    response = await shop.put(data, f"{digest}?{too_many}")
    assert (response.status, code_of(response)) == (414, "UNSUPPORTED")
    response = await shop.put(data, f"{digest}?tag=a&tag=-b")
    assert response.status == 400
    assert await shop.tags() == sorted(names), "all or nothing"


async def test_what_it_needs_has_to_be_there_and_what_is_missing_is_named(shop: Shop) -> None:
    absent = [bytes([number]) for number in range(8)]
    message = await shop.refused(pushed_image("m", LAYER, *absent), code="MANIFEST_BLOB_UNKNOWN")
    assert str(Digest.of(absent[0])) in message
    assert "3 more" in message
    assert str(Digest.of(LAYER)) not in message
    await shop.push(b"elsewhere", "other")
    message = await shop.refused(pushed_image("m", b"elsewhere"), code="MANIFEST_BLOB_UNKNOWN")
    assert str(Digest.of(b"elsewhere")) in message
    message = await shop.refused(index(listed(pushed_image("absent"))), media.INDEX, "MANIFEST_BLOB_UNKNOWN")
    assert str(Digest.of(pushed_image("absent"))) in message


async def test_sizes_have_to_agree(shop: Shop) -> None:
    wrong = {"mediaType": "a/b", "digest": str(Digest.of(LAYER)), "size": len(LAYER) - 1}
    message = await shop.refused(pushed_image("m", layers=[wrong]))
    assert f"{Digest.of(LAYER)} has 500 bytes, not 499" in message


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
async def test_layers_that_nobody_may_hand_on_need_not_be_there(shop: Shop, kind: str) -> None:
    foreign = descriptor(b"windows", kind, urls=["https://example.com/layer"])
    assert (await shop.put(pushed_image("m", layers=[foreign, descriptor(LAYER)]))).status == 201


async def test_an_index_may_list_blobs_as_caches_do(shop: Shop) -> None:
    assert (await shop.put(index(descriptor(LAYER)), media_type=media.INDEX)).status == 201


async def test_the_same_again_succeeds(shop: Shop) -> None:
    data = pushed_image("m", LAYER)
    for _ in range(3):
        assert (await shop.put(data)).status == 201
    await shop.push(LAYER)


async def test_a_tag_that_moves_leaves_the_old_manifest_by_digest(shop: Shop) -> None:
    old, new = pushed_image("old"), pushed_image("new")
    await shop.put(old)
    await shop.put(new)
    assert await body_of(await shop.say("GET", "/v2/app/manifests/1")) == new
    assert await body_of(await shop.say("GET", f"/v2/app/manifests/{Digest.of(old)}")) == old


async def test_bytes_that_are_swept_in_that_moment_are_put_there_again(shop: Shop) -> None:
    blobs, had = shop.world.blobs, shop.world.blobs.has
    swept: list[Digest] = []

    def has(digest: Digest) -> bool:
        if len(swept) < 2:
            swept.append(digest)
            del blobs.kept[digest]
        return had(digest)

    blobs.has = has  # type: ignore[method-assign]  # a sweeper between the bytes and their name
    data = pushed_image("m", LAYER)
    assert (await shop.put(data)).status == 201
    assert await body_of(await shop.say("GET", "/v2/app/manifests/1")) == data
    assert len(swept) == 2


async def test_a_tag_is_replaced_only_as_the_request_believes_it_to_be(shop: Shop) -> None:
    """So two that extend a list under one tag do not lose each other's entries."""
    one, two, three = (pushed_image(mark) for mark in ("one", "two", "three"))

    async def put(data: bytes, *fields: tuple[str, str]) -> int:
        sent = (("content-type", media.MANIFEST), *fields)
        response = await shop.world.send(shop.own, "PUT", "/v2/app/manifests/1", data, *sent, caller=ALICE)
        assert response.status == 201 or code_of(response) == "DENIED"
        return response.status

    assert await put(one, ("if-match", "*")) == 412
    assert await put(one, ("if-none-match", "*")) == 201
    assert await put(two, ("if-none-match", "*")) == 412
    etag = (await shop.say("GET", "/v2/app/manifests/1")).headers.get("etag") or ""
    assert await put(two, ("if-match", etag)) == 201
    assert await put(three, ("if-match", etag)) == 412
    assert await body_of(await shop.say("GET", "/v2/app/manifests/1")) == two


# what is refused


async def test_the_digest_in_the_url_has_to_be_the_manifests(shop: Shop) -> None:
    response = await shop.put(pushed_image("m"), str(Digest.of(b"other")))
    assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")


REFUSED = {
    "nothing": (b"", media.MANIFEST, "JSON"),
    "no JSON": (b"<html>", media.MANIFEST, "JSON"),
    "a list": (b"[]", media.MANIFEST, "object"),
    "cut off": (pushed_image("m")[:-1], media.MANIFEST, "JSON"),
    "no UTF-8": (pushed_image("m").replace(b"\xc3\xbc", b"\xfc"), media.MANIFEST, "UTF-8|read"),
    "UTF-16": (pushed_image("m").decode().encode("utf-16"), media.MANIFEST, "JSON"),
    "another type inside": (pushed_image("m"), media.DOCKER_MANIFEST, "mediaType"),
    "a type that is no manifest's": (pushed_image("m", mediaType="a/b"), "a/b", "push"),
    "a page": (pushed_image("m", mediaType="text/html"), "text/html", "push"),
    "schema 1": (b'{"schemaVersion": 1}', media.SIGNED_SCHEMA1, "schema 1"),
    "another schema": (pushed_image("m", schemaVersion=3), media.MANIFEST, "schemaVersion"),
    "no schema": (pushed_image("m", schemaVersion=None), media.MANIFEST, "schemaVersion"),
    "a schema in words": (pushed_image("m", schemaVersion="2"), media.MANIFEST, "int"),
    "no config": (pushed_image("m", config=None), media.MANIFEST, "config"),
    "an index to some": (pushed_image("m", manifests=[]), media.MANIFEST, "manifests"),
    "an image to some": (index(layers=[]), media.INDEX, "layers"),
    "layers that are none": (pushed_image("m", layers={"a": 1}), media.MANIFEST, "layers"),
    "a layer without a size": (pushed_image("m", layers=[{"digest": "a"}]), media.MANIFEST, "size"),
    "a size below nothing": (pushed_image("m", layers=[{"digest": "a", "size": -1}]), media.MANIFEST, "size"),
    "a size in fractions": (pushed_image("m", layers=[{"digest": "a", "size": 1.5}]), media.MANIFEST, "size|int"),
    "a size past all": (pushed_image("m", layers=[{"digest": "a", "size": 1 << 70}]), media.MANIFEST, "size|int|big"),
    "a short digest": (pushed_image("m", layers=[{"digest": "sha256:ab", "size": 1}]), media.MANIFEST, "layers[0]"),
    "a digest of letters": (pushed_image("m", layers=[{"digest": "x y", "size": 1}]), media.MANIFEST, "digest"),
    "an unknown algorithm": (pushed_image("m", layers=[{"digest": "md5:ab", "size": 1}]), media.MANIFEST, "algorithm"),
    "very many layers": (pushed_image("m", *[LAYER] * 10_000), media.MANIFEST, "more than 10000 files"),
    "a path as a digest": (pushed_image("m", layers=[{"digest": "../../x", "size": 1}]), media.MANIFEST, "digest"),
    "a bad subject": (pushed_image("m", subject={"digest": "sha256:1", "size": 1}), media.MANIFEST, "subject"),
    "annotations that are none": (pushed_image("m", annotations={"a": 1}), media.MANIFEST, "annotations"),
    "a key twice": (b'{"schemaVersion": 2, ' + pushed_image("m").lstrip(b"{ \n"), media.MANIFEST, "twice"),
    "a key twice deep inside": (pushed_image("m", x=[{"y": {"z": 0}}]).replace(b'"z": 0', b'"z": 0, "z": 1'),
                                media.MANIFEST, "twice"),
    "a key twice by an escape": (pushed_image("m", x={"z": 0}).replace(b'"z": 0', b'"z": 0, "\\u007a": 1'),
                                 media.MANIFEST, "twice"),
    "endless brackets": (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", media.MANIFEST, "deep"),
    "a number that is none": (pushed_image("m", x=float("nan")), media.MANIFEST, "JSON|number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_manifest_is_refused_with_the_reason(shop: Shop, case: str) -> None:
    data, media_type, words = REFUSED[case]
    message = await shop.refused(data, media_type)
    assert any(word in message for word in words.split("|")), message
    assert len(message) < 500


async def test_a_manifest_past_the_limit_is_refused_before_it_is_read(shop: Shop) -> None:
    for body in (
        GivenBody(b"{}", length=MAX_DOCUMENT + 1),
        GivenBody(b" " * (MAX_DOCUMENT + 1), length=None),
    ):
        response = await shop.say("PUT", "/v2/app/manifests/1", body)
        assert (response.status, code_of(response)) == (413, "SIZE_INVALID")
        assert body.taken in (0, MAX_DOCUMENT + 1)


async def test_a_manifest_of_nearly_four_megabytes_is_taken(shop: Shop) -> None:
    data = pushed_image("m", LAYER, annotations={f"key{number}": "v" * 1000 for number in range(3900)})
    assert 3_900_000 < len(data) < MAX_DOCUMENT
    assert (await shop.put(data)).status == 201
    assert await body_of(await shop.say("GET", "/v2/app/manifests/1")) == data


async def test_a_manifest_that_is_made_to_cost_much_costs_little_and_its_refusal_is_short(shop: Shop) -> None:
    keys = ",".join(f'"{number:x}":0' for number in range(400_000))
    endless = [{"digest": str(Digest.of(str(number).encode())), "size": 1} for number in range(9_000)]
    for data, code in (
        (f'{{{keys},"x":0,"x":0}}'.encode(), "MANIFEST_INVALID"),
        (pushed_image("m", layers=endless), "MANIFEST_BLOB_UNKNOWN"),
    ):
        began = time.process_time()
        response = await shop.put(data)
        assert time.process_time() - began < 5
        assert (response.status, code_of(response)) == (400, code)
        assert len(await body_of(response)) < 10_000


@pytest.mark.parametrize("reference", ["-a", ".a", "a" * 129, "a b", "a%2fb", "..", "a%00", "a?x", "ä"])
async def test_what_is_no_tag_is_refused(shop: Shop, reference: str) -> None:
    response = await shop.put(pushed_image("m"), reference.replace("?", "%3f"))
    assert response.status in (400, 404)
    assert await shop.tags() == []


async def test_a_tag_and_a_name_at_their_limits_are_taken(shop: Shop) -> None:
    data = pushed_image("m")
    assert (await shop.put(data, "t" * 128)).status == 201
    name = "/".join(["n" * 50] * 5)
    assert len(name) == 254
    await shop.push(b"{}", name + "x")
    assert (await shop.say("PUT", f"/v2/{name}x/manifests/{'t' * 128}", data)).status == 201
    assert (await shop.say("PUT", f"/v2/{name}xx/manifests/1", data)).status == 400


# deleting


async def test_a_tag_is_deleted_alone_and_a_manifest_with_its_tags_at_once(shop: Shop) -> None:
    data = pushed_image("m")
    digest = Digest.of(data)
    for tag in ("a", "b", "c"):
        await shop.put(data, tag)
    response = await shop.say("DELETE", "/v2/app/manifests/a")
    assert (response.status, response.headers.get("warning")) == (202, None)
    assert await shop.tags() == ["b", "c"]
    assert (await shop.say("GET", f"/v2/app/manifests/{digest}")).status == 200
    assert (await shop.say("DELETE", f"/v2/app/manifests/{digest}")).status == 202
    for reference in ("b", "c", str(digest)):
        assert (await shop.say("HEAD", f"/v2/app/manifests/{reference}")).status == 404
    response = await shop.say("DELETE", f"/v2/app/manifests/{digest}")
    assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")
    response = await shop.say("DELETE", f"/v2/nobody/manifests/{digest}")
    assert (response.status, code_of(response)) == (404, "NAME_UNKNOWN")


async def test_a_blob_is_deleted_and_who_needed_it_is_told_of(shop: Shop) -> None:
    await shop.put(pushed_image("m", LAYER))
    path = f"/v2/app/blobs/{Digest.of(LAYER)}"
    response = await shop.say("DELETE", path)
    assert response.status == 202
    assert (response.headers.get("warning") or "").startswith('299 - "a manifest of app still needed')
    assert (await shop.say("HEAD", path)).status == 404
    response = await shop.say("DELETE", path)
    assert (response.status, code_of(response)) == (404, "BLOB_UNKNOWN")


# referrers


async def test_what_refers_to_a_manifest_is_listed_with_its_annotations(shop: Shop) -> None:
    image = pushed_image("subject")
    digest = Digest.of(image)
    subject = listed(image)
    signature = pushed_image("s", subject=subject, artifactType="a/signature")
    sbom = pushed_image("b", subject=subject)
    group = index(subject=subject, annotations={"x": "y"})
    for data, kind in ((signature, media.MANIFEST), (sbom, media.MANIFEST), (group, media.INDEX)):
        response = await shop.put(data, str(Digest.of(data)), kind)
        assert (response.status, response.headers.get("oci-subject")) == (201, str(digest))
    response = await shop.say("GET", f"/v2/app/referrers/{digest}")
    assert response.headers.get("content-type") == media.INDEX
    found = {item["digest"]: item for item in json.loads(await body_of(response))["manifests"]}
    assert found == {
        str(Digest.of(signature)): {
            "mediaType": media.MANIFEST, "digest": str(Digest.of(signature)), "size": len(signature),
            "artifactType": "a/signature", "annotations": {"mark": "s"},
        },
        str(Digest.of(sbom)): {
            "mediaType": media.MANIFEST, "digest": str(Digest.of(sbom)), "size": len(sbom),
            "artifactType": "application/vnd.oci.empty.v1+json", "annotations": {"mark": "b"},
        },
        str(Digest.of(group)): {
            "mediaType": media.INDEX, "digest": str(Digest.of(group)), "size": len(group), "annotations": {"x": "y"},
        },
    }  # fmt: skip
    filtered = await shop.say("GET", f"/v2/app/referrers/{digest}?artifactType=a/signature")
    assert filtered.headers.get("oci-filters-applied") == "artifactType"
    assert [item["digest"] for item in json.loads(await body_of(filtered))["manifests"]] == [str(Digest.of(signature))]
    await shop.say("DELETE", f"/v2/app/manifests/{Digest.of(signature)}")
    rest = json.loads(await body_of(await shop.say("GET", f"/v2/app/referrers/{digest}")))["manifests"]
    assert len(rest) == 2


async def test_clients_that_know_no_referrers_find_the_same_list_under_a_tag(shop: Shop) -> None:
    digest = Digest.of(b"a manifest that is not here")
    tag = f"sha256-{digest.hex}"
    assert (await shop.say("GET", f"/v2/app/manifests/{tag}")).status == 404
    data = pushed_image("s", subject={"digest": str(digest), "size": 27})
    await shop.put(data)
    got = await shop.say("GET", f"/v2/app/manifests/{tag}")
    body = await body_of(got)
    assert fields_of(got, "content-type", "docker-content-digest") == [media.INDEX, str(Digest.of(body))]
    assert [item["digest"] for item in json.loads(body)["manifests"]] == [str(Digest.of(data))]
    assert await shop.tags() == ["1"], "it is no tag"
    other = index()
    assert (await shop.put(other, tag, media.INDEX)).status == 201
    assert await body_of(await shop.say("GET", f"/v2/app/manifests/{tag}")) == other, "what is pushed comes first"


async def test_long_lists_of_referrers_come_in_pages(shop: Shop) -> None:
    digest = Digest.of(b"subject")
    sums = set()
    for number in range(5):
        data = pushed_image(
            "", subject={"digest": str(digest), "size": 7}, annotations={"big": f"{number}" * 1_500_000}
        )
        sums.add(str(Digest.of(data)))
        assert (await shop.put(data, str(Digest.of(data)))).status == 201
    target: str | None = f"/v2/app/referrers/{digest}"
    seen: list[str] = []
    while target is not None:
        response = await shop.say("GET", target)
        body = await body_of(response)
        assert len(body) <= 4 << 20
        seen += [item["digest"] for item in json.loads(body)["manifests"]]
        link = response.headers.get("link")
        target = None if link is None else link.partition("<")[2].partition(">")[0]
    assert seen == sorted(sums)


async def test_a_push_that_asks_only_whether_a_blob_is_here_can_rely_on_it(shop: Shop) -> None:
    """Its use is written before the answer, though not for every question, and not for who pulls."""
    path = f"app/blobs/{Digest.of(LAYER)}"
    relied, clock = shop.world.publications.relied, shop.world.clock
    await shop.say("GET", f"/v2/{path}")
    assert relied == {}
    for wait, noted in ((0, 0), (60, 0), (600, 660)):
        clock.forward(wait)
        assert (await shop.say("HEAD", f"/v2/{path}")).status == 200
        assert relied["own", path] == 1_800_000_000 + noted


async def test_a_blob_that_is_swept_in_that_moment_is_not_said_to_be_here(shop: Shop) -> None:
    path = f"app/blobs/{Digest.of(LAYER)}"
    rely = shop.world.publications.rely

    async def late(repository: str, path: str, now: float) -> bool:
        await shop.world.catalog.forget_file(repository, path)
        return await rely(repository, path, now)

    shop.world.publications.rely = late  # type: ignore[method-assign]  # a sweeper after the blob was found
    assert (await shop.say("HEAD", f"/v2/{path}")).status == 404
    assert shop.world.blobs.opened == set()


async def test_manifests_through_a_proxy_are_kept_with_what_they_need(shop: Shop) -> None:
    world = shop.world
    data = pushed_image("m", LAYER, subject=listed(b"subject"))
    digest = world.upstream.add_manifest("a/b", data, "1", media_type=media.MANIFEST)
    response, _ = await world.ask(world.proxy(), "/v2/a/b/manifests/1")
    assert await body_of(response) == data
    key = ("hub", f"a/b/manifests/{digest}")
    assert world.publications.links[key] == {Digest.of(b"{}"), Digest.of(LAYER)}
    assert world.publications.referring[key].subject == Digest.of(b"subject")
    assert isinstance(world.catalog.file("hub", "a/b/manifests/1"), FileRecord)
    assert world.publications.tag_names("hub", "a/b", "", 9) == ["1"]
