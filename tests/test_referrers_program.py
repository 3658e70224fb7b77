"""Referrers through whole programs: a registry without their API, one instance before it, and another before that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.http import Got, get
from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, Image, Registry, image, running, tar
from kit.servers import Mxart, mxart

SIGNATURE, SBOM = "application/vnd.example.signature", "application/vnd.example.sbom"
EMPTY = Blob("application/vnd.oci.empty.v1+json", b"{}")


def about(subject: Blob, artifact_type: str, mark: str) -> Blob:
    """An artifact that refers to a manifest, as oras attaches them."""
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.descriptor(),
        "layers": [EMPTY.descriptor()],
        "subject": subject.descriptor(),
        "annotations": {"mark": mark},
    }
    return Blob(OCI_MANIFEST, json.dumps(fields).encode())


def entry(artifact: Blob) -> dict[str, object]:
    fields = json.loads(artifact.data)
    return {**artifact.descriptor(), "artifactType": fields["artifactType"], "annotations": fields["annotations"]}


def attach(registry: Registry, name: str, subject: Blob, *artifacts: Blob) -> None:
    """What clients do where a registry has no API: an index of the referrers under a tag of the subject's digest."""
    registry.publish(name, EMPTY)
    for artifact in artifacts:
        registry.tag(name, artifact.digest, artifact)
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(artifact) for artifact in artifacts]}
    registry.tag(name, subject.digest.replace(":", "-"), Blob(OCI_INDEX, json.dumps(listed).encode()))


def proxy(upstream: str) -> str:
    return (
        f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "{upstream}"\npath = "/hub"\n'
        "ttl = 0\nnegative_ttl = 0\n[upstreams]\nconnect_seconds = 2\n"
    )


@dataclass
class Chain:
    """`far` asks `near`, which asks the registry."""

    registry: Registry
    image: Image
    near: Mxart
    far: Mxart

    async def referrers(self, server: Mxart, name: str, digest: str, query: str = "") -> Got:
        return await get(server.port, f"/v2/{name}/referrers/{digest}{query}")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    tool = image(tar({"etc/tool": b"tool\n"}))
    with running(Registry(tmp_path / "root", tmp_path / "registry")) as registry:
        registry.publish_image("team/tool", "1", tool)
        with (
            mxart(tmp_path / "near", proxy(registry.url)) as near,
            mxart(tmp_path / "far", proxy(near.url)) as far,
        ):
            yield Chain(registry, tool, near, far)


def listed(got: Got) -> list[dict[str, object]]:
    assert (got.status, got.headers["content-type"]) == (200, OCI_INDEX), got.body
    return list(json.loads(got.body)["manifests"])


def in_order(*artifacts: Blob) -> list[dict[str, object]]:
    return [entry(artifact) for artifact in sorted(artifacts, key=lambda artifact: artifact.digest)]


async def test_what_is_attached_in_a_registry_without_the_api_is_seen_through_two_instances(chain: Chain) -> None:
    subject = chain.image.manifest
    signature, sbom = about(subject, SIGNATURE, "signed"), about(subject, SBOM, "listed")
    for server, name in ((chain.near, "hub/team/tool"), (chain.far, "hub/hub/team/tool")):
        assert listed(await chain.referrers(server, name, subject.digest)) == []
    attach(chain.registry, "team/tool", subject, signature, sbom)
    for server, name in ((chain.near, "hub/team/tool"), (chain.far, "hub/hub/team/tool")):
        assert listed(await chain.referrers(server, name, subject.digest)) == in_order(signature, sbom)
        got = await chain.referrers(server, name, subject.digest, f"?artifactType={SBOM}")
        assert listed(got) == in_order(sbom)
        assert got.headers["oci-filters-applied"] == "artifactType"
        # And what is listed can be had.
        got = await get(server.port, f"/v2/{name}/manifests/{sbom.digest}")
        assert (got.status, got.body) == (200, sbom.data)
    # The one before the registry looked for the API once; the other had its answer from the first one's.
    asked = [line for line in chain.registry.asked() if "/referrers/" in line.path]
    assert [line.status for line in asked] == [404]
    asked_near = chain.near.log()
    assert f"GET /v2/hub/team/tool/referrers/{subject.digest} 200" in asked_near
    assert "/manifests/sha256-" not in asked_near


async def test_trouble_of_the_registry_is_told_or_the_old_list_is_shown(chain: Chain) -> None:
    subject = chain.image.manifest
    signature = about(subject, SIGNATURE, "signed")
    attach(chain.registry, "team/tool", subject, signature)
    assert listed(await chain.referrers(chain.far, "hub/hub/team/tool", subject.digest)) == in_order(signature)
    chain.registry.stop()
    got = await chain.referrers(chain.near, "hub/team/tool", subject.digest)
    assert listed(got) == in_order(signature)
    assert got.headers["warning"].startswith("111 ")
    got = await chain.referrers(chain.near, "hub/team/other", subject.digest)
    assert got.status in (502, 503, 504)
    got = await chain.referrers(chain.far, "hub/hub/team/other", subject.digest)
    assert got.status in (502, 503, 504)
