"""What belongs to a manifest, and in which order it is sent."""

from __future__ import annotations

import json

import pytest

from mxart.digest import Digest
from mxart.errors import UpstreamFailed
from mxart.replicate.manifests import (
    Manifest,
    choose_platform,
    in_order,
    read_manifest,
    referrers_of,
    referrers_tag,
    with_referrers,
)
from mxart.repos.oci import media

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def digest(mark: str) -> str:
    return str(Digest.of(mark.encode()))


def part(mark: str, media_type: str = LAYER, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(mark), "size": len(mark), **more}


def made(media_type: str = media.MANIFEST, **fields: object) -> Manifest:
    data = json.dumps({"schemaVersion": 2, **fields}).encode()
    return read_manifest(Digest.of(data), media_type, data)


def test_a_manifest_needs_its_config_and_layers_but_for_foreign_ones() -> None:
    found = made(
        config=part("c"), layers=[part("l"), part("f", FOREIGN, urls=["https://x.example/f"]), part("g", FOREIGN)]
    )
    assert [str(item.digest) for item in found.blobs] == [digest("c"), digest("l"), digest("g")]
    assert [str(item.digest) for item in found.foreign] == [digest("f")]
    assert found.artifact_type == LAYER  # the config's type, where nothing else is said


def test_an_index_may_list_layers_as_build_caches_do() -> None:
    found = made(media.INDEX, manifests=[part("m", media.MANIFEST), part("i", media.DOCKER_LIST), part("l")])
    assert [str(item.digest) for item in found.manifests] == [digest("m"), digest("i")]
    assert [str(item.digest) for item in found.blobs] == [digest("l")]


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": [{"digest": "md5:00", "size": 1}]},
        {"layers": [{"digest": "sha256:../../etc", "size": 1}]},
        {"layers": [{"digest": digest("x"), "size": -1}]},
        {"layers": "many"},
        {"config": {"size": 1}},
        {"subject": {"digest": "sha256:1", "size": 1}},
    ],
)
def test_what_cannot_be_followed_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be followed"):
        made(**fields)  # type: ignore[arg-type]


def test_schema_1_is_refused_with_the_reason() -> None:
    with pytest.raises(UpstreamFailed, match="schema 1"):
        made(media.SIGNED_SCHEMA1)


def test_parts_come_before_what_is_made_of_them_and_subjects_before_their_referrers() -> None:
    leaf = made(layers=[part("l")])
    middle = made(media.INDEX, manifests=[{"mediaType": media.MANIFEST, "digest": str(leaf.digest), "size": 1}])
    root = made(media.INDEX, manifests=[{"mediaType": media.INDEX, "digest": str(middle.digest), "size": 1}])
    signature = made(subject={"digest": str(root.digest), "size": 1})
    on_signature = made(subject={"digest": str(signature.digest), "size": 1})
    stranger = made(subject={"digest": digest("elsewhere"), "size": 1})
    everything = [on_signature, signature, root, stranger, middle, leaf]
    order = in_order({item.digest: item for item in everything})
    assert len(order) == 6
    places = [order.index(item) for item in (leaf, middle, root, signature, on_signature)]
    assert places == sorted(places)


def test_a_chain_of_thousands_of_referrers_does_not_fill_the_stack() -> None:
    chain = [made(layers=[])]
    for _ in range(3000):
        chain.append(made(subject={"digest": str(chain[-1].digest), "size": 1}))
    assert in_order({item.digest: item for item in reversed(chain)}) == chain


def test_a_platform_is_chosen_or_told_what_there_is() -> None:
    index = made(
        media.INDEX,
        manifests=[
            part("amd64", media.MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
            part("arm", media.MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v7"}),
        ],
    )
    assert str(choose_platform(index, "linux/amd64")) == digest("amd64")
    assert str(choose_platform(index, "linux/arm")) == digest("arm")
    assert str(choose_platform(index, "linux/arm/v7")) == digest("arm")
    with pytest.raises(UpstreamFailed, match=r"no linux/s390x in it; there are: linux/amd64, linux/arm/v7"):
        choose_platform(index, "linux/s390x")


def test_a_list_of_referrers_grows_and_keeps_what_it_had() -> None:
    subject = made(layers=[])
    one = made(artifactType="a/sbom", annotations={"k": "v"}, subject={"digest": str(subject.digest), "size": 1})
    first = with_referrers(None, [one])
    assert first is not None
    entry = json.loads(first)["manifests"][0]
    assert entry == {
        "mediaType": media.MANIFEST,
        "digest": str(one.digest),
        "size": len(one.data),
        "artifactType": "a/sbom",
        "annotations": {"k": "v"},
    }
    other = {"mediaType": media.MANIFEST, "digest": digest("other"), "size": 3, "unknown": [1]}
    document = json.loads(first)
    document["manifests"] = [other]
    second = with_referrers(json.dumps(document).encode(), [one])
    assert second is not None
    assert json.loads(second)["manifests"] == [other, entry]
    assert with_referrers(second, [one]) is None
    assert [str(item.digest) for item in referrers_of(second)] == [digest("other"), str(one.digest)]


def test_a_list_of_referrers_that_is_none_is_not_overwritten() -> None:
    with pytest.raises(UpstreamFailed, match="cannot be read"):
        with_referrers(b"<html>", [])


def test_the_tag_that_stands_for_referrers_fits_into_a_tag() -> None:
    assert referrers_tag(Digest("sha256", "a" * 64)) == "sha256-" + "a" * 64
    assert referrers_tag(Digest("sha512", "b" * 128)) == "sha512-" + "b" * 64
