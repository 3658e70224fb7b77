"""Sources that break, lie, redirect and count: only what was asked for is passed on, and it is asked for once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, Image, image
from kit.replicating import NOISE, QUICK, arrived, copy, offer, offer_manifest
from kit.target import FakeTarget, fake_target
from kit.upstream import FakeUpstream, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import MxartError
from mxart.replicate.engine import Replication
from mxart.replicate.memo import Memo
from mxart.replicate.openers import UpstreamOpener
from mxart.replicate.source import Source
from mxart.replicate.target import Target
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote


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


async def test_a_blob_that_ends_too_soon_is_told_of_the_source(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    source.on(f"/v2/app/blobs/{app.layers[0].digest}", say(app.layers[0].data[:-1]))
    with pytest.raises(MxartError, match="its manifest says"):
        await copy(source, target)
    assert target.manifests == {}


async def test_a_source_that_breaks_off_is_asked_for_the_rest(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    layer = app.layers[0]
    source.on(f"/v2/app/blobs/{layer.digest}", say(layer.data, reset_after=700_000), say(layer.data))
    await copy(source, target)
    assert arrived(target, app)


async def test_a_source_without_ranges_is_read_from_the_beginning(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    source.on(f"/v2/app/blobs/{app.layers[0].digest}", say(app.layers[0].data, ranges=False))
    target.cuts = [300_000]
    await copy(source, target)
    assert arrived(target, app)


async def test_manifests_with_other_bytes_than_their_digest_are_not_passed_on(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    wrong = app.manifest.data + b"\n"
    offer(source, app)
    fields = {"docker-content-digest": app.manifest.digest, "content-type": OCI_MANIFEST}
    source.on("/v2/app/manifests/1", say(wrong, headers=fields))
    with pytest.raises(MxartError, match=f"for {app.manifest.digest}"):
        await copy(source, target)
    assert target.requests == []


async def test_foreign_layers_are_left_out_and_told(source: FakeUpstream, target: FakeTarget) -> None:
    item = image(b"x" * 100, docker=True)
    fields = json.loads(item.manifest.data)
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": "sha256:" + "f" * 64,
        "size": 12345,
        "urls": ["https://vendor.example/layer"],
    }
    fields["layers"].insert(0, foreign)
    manifest = Blob(item.manifest.media_type, json.dumps(fields).encode())
    offer(source, item)
    offer_manifest(source, manifest, "1")
    outcome = await copy(source, target)
    assert target.manifests["team/app:1"][1] == manifest.data
    assert outcome.notes == [
        f"left out: {foreign['digest']} (12345 bytes), a foreign layer, which is not for passing on"
    ]


async def test_a_registry_for_manifests_that_redirects_blobs_is_read_as_clients_do(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    async with fake_upstream(host="localhost") as cdn:
        cdn.on("/layer", say(app.layers[0].data))
        source.on(f"/v2/app/blobs/{app.layers[0].digest}", redirect(f"{cdn.url}/layer?signature=1"))
        target.cuts = [300_000]
        await copy(source, target)
        assert arrived(target, app)
        assert [seen.headers.get("range") for seen in cdn.requests] == [None, "bytes=300000-"]


async def test_a_blob_without_a_byte_arrives(source: FakeUpstream, target: FakeTarget, app: Image) -> None:
    empty = Blob("application/vnd.oci.image.layer.v1.tar", b"")
    fields = json.loads(app.manifest.data)
    fields["layers"] = [empty.descriptor()]
    item = Image(Blob(OCI_MANIFEST, json.dumps(fields).encode()), app.config, (empty,))
    offer(source, item)
    await copy(source, target)
    assert arrived(target, item)


async def test_a_tag_that_goes_while_all_are_copied_is_told_and_the_others_arrive(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    source.on("/v2/app/tags/list", say(json.dumps({"name": "app", "tags": ["0", "1"]})))
    reading = Remote("source", [source.url], Dialer(Upstreams()), patience=QUICK)
    writing = Remote("target", [target.url], Dialer(Upstreams()), patience=QUICK)
    replication = Replication(
        Source(UpstreamOpener(reading), "app", "source/app"), Target(writing, "team/app"), Memo(None)
    )
    outcome = await replication.run(await replication.every_tag())
    assert arrived(target, app)
    assert (outcome.tags, outcome.notes) == (["1"], ["0 has gone since it was listed"])
    await reading.aclose()
    await writing.aclose()


async def test_a_registry_that_counts_questions_is_asked_for_each_manifest_once(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    signature = image(b"signed")
    tag = f"sha256-{app.manifest.digest[7:]}.sig"
    for blob in signature.blobs:
        source.on(f"/v2/app/blobs/{blob.digest}", say(blob.data))
    offer_manifest(source, signature.manifest, tag)
    source.on("/v2/app/tags/list", say(json.dumps({"name": "app", "tags": ["1", tag]})))
    outcome = await copy(source, target)
    assert outcome.tags == [tag, "1"]
    asked = [seen.path.rpartition("/")[2] for seen in source.requests if "/manifests/" in seen.path]
    assert asked == ["1", tag]
    assert source.count("/v2/app/tags/list") == 1


async def test_an_index_without_end_is_refused_before_it_is_fetched(source: FakeUpstream, target: FakeTarget) -> None:
    parts = [{"mediaType": OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 1} for number in range(20_001)]
    endless = Blob(OCI_INDEX, json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": parts}).encode())
    offer_manifest(source, endless, "1")
    with pytest.raises(MxartError, match="more than 20000 manifests"):
        await copy(source, target)
    assert source.count() < 10
    assert target.requests == []


async def test_an_index_that_lists_what_is_not_there_is_told(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    gone = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "a" * 64, "size": 1}
    fields = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [app.manifest.descriptor(), gone]}
    offer(source, app, "other")
    offer_manifest(source, Blob(OCI_INDEX, json.dumps(fields).encode()), "1")
    with pytest.raises(MxartError, match="source/app has no sha256:aaaa"):
        await copy(source, target)
    assert target.requests == []


async def test_a_referrer_that_is_listed_and_gone_is_left_out_and_told(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    gone = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "b" * 64, "size": 1}
    listed = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [gone]}).encode()
    source.on(f"/v2/app/referrers/{app.manifest.digest}", say(listed, headers={"content-type": OCI_INDEX}))
    outcome = await copy(source, target)
    assert arrived(target, app)
    assert outcome.notes == [f"listed as a referrer, but not there: {gone['digest']}"]


async def test_referrers_that_cannot_be_asked_for_are_not_taken_for_none(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    source.on(f"/v2/app/referrers/{app.manifest.digest}", say(b"{}", status=503))
    with pytest.raises(MxartError, match="503"):
        await copy(source, target)
    assert target.requests == []
