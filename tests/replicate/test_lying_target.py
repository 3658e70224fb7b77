"""Targets that break, forget, limit and lie: what arrives is right, what cannot be is told, nothing is sent twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, Image, image
from kit.replicating import CHUNK, NOISE, arrived, copy, offer, offer_manifest
from kit.target import FakeTarget, fake_target
from kit.upstream import FakeUpstream, Seen, challenge, fake_upstream, say
from mxart.config import Upstreams
from mxart.digest import Digest
from mxart.errors import MxartError
from mxart.replicate.target import Refused, Target
from mxart.replicate.uploading import Manner
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials


@pytest.fixture(scope="module")
def app() -> Image:
    """An image with one layer of 3 MiB, which is sent in chunks, and a config, which is not."""
    return image(NOISE)


@pytest.fixture
async def source() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as up:
        yield up


@pytest.fixture
async def target() -> AsyncIterator[FakeTarget]:
    async with fake_target() as fake:
        yield fake


def layer_patches(target: FakeTarget) -> list[str]:
    return [seen.headers.get("content-range", "whole") for seen in target.asked("PATCH")]


async def test_a_broken_patch_goes_on_where_the_target_says_it_is(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.cuts = [300_000, 500_000]
    outcome = await copy(source, target)
    assert arrived(target, app)
    size = len(app.layers[0].data)
    assert layer_patches(target)[:3] == ["0-1048575", "300000-1348575", "800000-1848575"]
    assert target.received == sum(len(blob.data) for blob in app.blobs)  # not a byte came twice
    assert outcome.bytes_sent == target.received
    ranges = [seen.headers["range"] for seen in source.requests if "range" in seen.headers]
    assert ranges == ["bytes=300000-", "bytes=800000-"]  # nor was one read twice
    assert size > 3 << 20


async def test_a_target_that_keeps_no_half_of_a_chunk_gets_that_chunk_again(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.forgets = True
    target.cuts = [10**9, 300_000]  # the second one
    await copy(source, target)
    assert arrived(target, app)
    assert layer_patches(target)[:3] == ["0-1048575", "1048576-2097151", "1048576-2097151"]


async def test_a_target_that_never_comes_further_is_given_up(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.forgets = True
    target.cuts = [300_000] * 100
    with pytest.raises(MxartError, match=r"reset|closed the connection"):
        await copy(source, target)
    assert len(target.asked("PATCH")) < 10
    assert target.manifests == {}


async def test_an_upload_that_is_forgotten_begins_anew(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)

    def forget(seen: Seen) -> None:
        target.uploads.clear()

    target.on("PATCH", lambda seen: None, forget)
    await copy(source, target)
    assert arrived(target, app)
    assert len(target.asked("POST")) == 3


async def test_an_offset_that_is_not_the_targets_is_corrected(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)

    def shorten(seen: Seen) -> None:
        del target.uploads[seen.path].data[1000:]

    target.on("PATCH", lambda seen: None, shorten)  # 416 follows
    await copy(source, target)
    assert arrived(target, app)
    assert layer_patches(target)[2] == "1000-1049575"


async def test_a_target_that_takes_no_chunks_gets_all_in_one_piece(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.on("PATCH", lambda seen: None, say(b"{}", status=405))
    await copy(source, target)
    assert arrived(target, app)
    assert layer_patches(target) == ["0-1048575", "1048576-2097151", "whole"]
    assert len(target.asked("DELETE")) == 1


async def test_a_limit_in_the_middle_is_waited_for(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    limit = say(b"{}", status=429, headers={"retry-after": "0"})
    target.on("PATCH", lambda seen: None, limit, limit)
    target.on("POST", limit)
    target.on("PUT", limit)
    await copy(source, target)
    assert arrived(target, app)


async def test_a_limit_for_hours_is_told(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    target.on("POST", *[say(b"{}", status=429, headers={"retry-after": "3000"})] * 9)
    with pytest.raises(MxartError, match="429"):
        await copy(source, target)


async def test_a_token_that_dies_in_the_middle_is_renewed(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    async with fake_upstream() as tokens:
        tokens.on("/token", *[say(json.dumps({"token": f"T{number}", "expires_in": 300})) for number in range(9)])
        want = f'Bearer realm="{tokens.url}/token",service="s",scope="repository:team/app:pull,push"'
        good = {"Bearer T0"}

        def guard(seen: Seen) -> object:
            if seen.headers.get("authorization") not in good:
                return challenge(f'{want},error="invalid_token"')
            return None

        def die(seen: Seen) -> object:
            good.clear()
            good.add("Bearer T1")
            return guard(seen)

        for method in ("HEAD", "POST", "PUT", "GET"):
            target.on(method, *[guard] * 50)  # type: ignore[list-item]
        target.on("PATCH", guard, die, *[guard] * 50)  # type: ignore[list-item]
        await copy(source, target, credentials=Credentials("me", "pw"))
        assert arrived(target, app)
        assert tokens.count() == 2
        assert target.received == sum(len(blob.data) for blob in app.blobs)


async def test_a_location_elsewhere_is_not_shown_the_password(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    async with fake_target() as store:
        store.uploads = target.uploads
        store.blobs = target.blobs
        target.location = store.location = lambda path: f"{store.url}{path}"
        target.on("HEAD", challenge('Basic realm="here"'))
        await copy(source, target, credentials=Credentials("me", "pw"))
        assert arrived(target, app)
        assert len(store.asked("PATCH")) >= 3
        assert not any("authorization" in seen.headers for seen in store.requests)
        assert all("authorization" in seen.headers for seen in target.asked("POST"))


async def test_an_upload_without_a_place_is_told(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    target.location = lambda path: "ftp://nowhere/"
    with pytest.raises(MxartError, match="without saying where"):
        await copy(source, target)


async def test_a_target_without_the_api_gets_a_list_under_the_tag_that_stands_for_it(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    fields = json.loads(app.manifest.data) | {"subject": app.manifest.descriptor(), "artifactType": "a/sbom"}
    sbom = Blob(OCI_MANIFEST, json.dumps(fields).encode())
    offer_manifest(source, sbom, "unused")
    listed = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [sbom.descriptor()]}).encode()
    source.on(f"/v2/app/referrers/{app.manifest.digest}", say(listed, headers={"content-type": OCI_INDEX}))
    tag = f"team/app:sha256-{app.manifest.digest[7:]}"
    await copy(source, target)
    assert tag not in target.manifests  # it has the API
    assert target.manifests[f"team/app@{sbom.digest}"] == (OCI_MANIFEST, sbom.data)
    target.lists_referrers = False
    other = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "1" * 64, "size": 3}
    target.manifests[tag] = (OCI_INDEX, json.dumps({"schemaVersion": 2, "manifests": [other]}).encode())
    await copy(source, target)
    entries = json.loads(target.manifests[tag][1])["manifests"]
    assert [entry["digest"] for entry in entries] == [other["digest"], sbom.digest]
    assert entries[1]["artifactType"] == "a/sbom"


async def test_a_digest_that_is_refused_again_and_again_is_told_and_no_manifest_is_sent(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    wrong = bytearray(app.layers[0].data)
    wrong[-1] ^= 1
    source.on(f"/v2/app/blobs/{app.layers[0].digest}", say(bytes(wrong)))
    with pytest.raises(MxartError, match=r"400 to PUT .*DIGEST_INVALID"):
        await copy(source, target)
    assert target.manifests == {}
    assert f"team/app@{app.layers[0].digest}" not in target.blobs
    assert target.uploads == {}  # what was refused was cancelled


async def test_a_target_that_makes_other_bytes_of_a_manifest_is_told(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)

    def lie(seen: Seen) -> object:
        if "/manifests/" in seen.path:
            return say(status=201, headers={"docker-content-digest": "sha256:" + "0" * 64})
        return None

    target.on("PUT", *[lie] * 9)  # type: ignore[list-item]
    with pytest.raises(MxartError, match=r"made sha256:0+ of the manifest"):
        await copy(source, target)


async def test_an_answer_that_was_lost_is_not_asked_for_by_sending_again(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.answers_lost = 2
    await copy(source, target)
    assert arrived(target, app)
    assert target.received == sum(len(blob.data) for blob in app.blobs)


async def test_rights_that_are_wanting_are_told_at_once(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    denied = json.dumps({"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]})
    target.on("POST", *[say(denied, status=403)] * 9)
    with pytest.raises(MxartError, match=r"403 to POST .*DENIED: requested access to the resource is denied"):
        await copy(source, target)
    assert len(target.asked("POST")) <= 2


async def test_a_mount_that_is_refused_becomes_an_upload(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    offer(source, app)
    manner = Manner(chunk=CHUNK, first_pause=0.001, mount_from=("other",))
    target.blobs[f"other@{app.config.digest}"] = app.config.data
    refused = say(b"{}", status=401)

    def refuse(seen: Seen) -> object:
        return refused if "mount=" in seen.target and app.layers[0].digest.replace(":", "%3A") in seen.target else None

    target.on("POST", *[refuse] * 9)  # type: ignore[list-item]
    outcome = await copy(source, target, manner=manner)
    assert arrived(target, app)
    assert (outcome.mounted, outcome.blobs) == (1, 1)


async def test_of_several_lenders_the_one_that_has_it_is_asked(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.blobs[f"two@{app.config.digest}"] = app.config.data
    target.blobs[f"three@{app.layers[0].digest}"] = app.layers[0].data
    manner = Manner(first_pause=0.001, mount_from=("one", "two", "three"))
    outcome = await copy(source, target, manner=manner)
    assert arrived(target, app)
    assert (outcome.mounted, outcome.blobs) == (2, 0)
    assert target.uploads == {}
    assert target.received == 0


async def test_a_digest_of_another_algorithm_is_said_at_the_beginning(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    digest = str(Digest.of(app.config.data, "sha512"))
    fields = json.loads(app.manifest.data)
    fields["config"]["digest"] = digest
    fields["layers"] = []
    manifest = Blob(OCI_MANIFEST, json.dumps(fields).encode())
    offer_manifest(source, manifest, "1")
    source.on(f"/v2/app/blobs/{digest}", say(app.config.data))
    with pytest.raises(MxartError, match="DIGEST_INVALID"):  # this target knows sha256 only
        await copy(source, target)
    assert target.asked("POST")[0].target.endswith("?digest-algorithm=sha512")


async def test_a_registry_that_believes_to_be_reached_by_http_is_told_of(tmp_path: Path) -> None:
    """As behind a proxy that ends TLS and does not say so."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with fake_upstream(tls=ca.issue_cert("localhost"), host="localhost") as up:
        place = f"http://localhost:{up.port}/v2/x/blobs/uploads/1"
        up.on("/v2/x/blobs/uploads/", say(status=202, headers={"location": place}))
        tls = ClientTls(str(tmp_path / "ca.pem"))
        writing = Remote("target", [up.url], Dialer(Upstreams()), tls=tls)
        with pytest.raises(Refused, match="has to be told that it is reached by https"):
            await Target(writing, "x").begin(Digest.of(b"x"))
        assert up.count() == 1
        await writing.aclose()
