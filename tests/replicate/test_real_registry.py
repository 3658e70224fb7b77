"""From one docker-registry to another, as Debian has it: it knows no referrers, so they go by the tag schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, Images, Registry, image, running, standard_images, tar
from kit.token_server import token_server
from mxart.config import Upstreams
from mxart.errors import MxartError, NotFound
from mxart.replicate.engine import Outcome
from mxart.replicate.run import Access, Choice, from_registry
from mxart.upstream.dial import Dialer
from mxart.upstream.tokens import Credentials


@pytest.fixture(scope="module")
def images() -> Images:
    return standard_images()


@pytest.fixture
def source(tmp_path: Path, images: Images) -> Iterator[Registry]:
    registry = Registry(tmp_path / "from", tmp_path / "from-run")
    with running(registry):
        for item in (images.amd64, images.arm64):
            registry.publish_image("library/tool", item.manifest.digest, item)
        registry.tag("library/tool", "1.0", images.index)
        registry.publish_image("library/tool", "docker", images.docker)
        yield registry


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "to", tmp_path / "to-run")
    with running(registry):
        yield registry


def attach(registry: Registry, repository: str, subject: Blob, mark: str) -> Blob:
    """Publish a signature, and list it under the tag that stands for the subject's referrers."""
    item = image(tar({"signature": mark.encode()}))
    fields = json.loads(item.manifest.data)
    fields |= {"subject": subject.descriptor(), "artifactType": f"application/x-{mark}"}
    manifest = Blob(OCI_MANIFEST, json.dumps(fields).encode())
    registry.publish(repository, *item.blobs)
    registry.tag(repository, manifest.digest, manifest)
    fields = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest.descriptor()]}
    registry.tag(repository, f"sha256-{subject.digest[7:]}", Blob(OCI_INDEX, json.dumps(fields).encode()))
    return manifest


async def copy(source: str, target: str, state: Path, **more: object) -> Outcome:
    return await from_registry(source, target, Dialer(Upstreams()), state, **more)  # type: ignore[arg-type]


def kept(root: Path, repository: str, digest: str) -> bytes:
    """A blob or manifest as the registry has it on disk."""
    hexed = digest.removeprefix("sha256:")
    link = root / "docker/registry/v2/repositories" / repository
    assert (link / "_layers/sha256" / hexed).exists() or (link / "_manifests/revisions/sha256" / hexed).exists()
    return (root / "docker/registry/v2/blobs/sha256" / hexed[:2] / hexed / "data").read_bytes()


async def test_an_index_arrives_byte_for_byte_with_all_that_belongs_to_it(
    source: Registry, target: Registry, images: Images, tmp_path: Path
) -> None:
    signature = attach(source, "library/tool", images.index, "signature")
    on_signature = attach(source, "library/tool", signature, "timestamp")
    sbom = attach(source, "library/tool", images.arm64.manifest, "sbom")
    cosign = image(tar({"sig": b"old"}))
    cosign_tag = f"sha256-{images.index.digest[7:]}.sig"
    source.publish_image("library/tool", cosign_tag, cosign)
    said: list[tuple[int, int | None]] = []

    outcome = await copy(
        f"{source.url}/library/tool:1.0",
        f"{target.url}/team/copy",
        tmp_path / "state",
        choice=Choice(tags=("stable",), chunk=1 << 20),
        progress=lambda done, total, what: said.append((done, total)),
    )

    assert outcome.tags == [cosign_tag, "1.0", "stable"]
    assert outcome.digests == {"1.0": images.index.digest}
    assert outcome.manifests == 7
    for manifest in (images.index, images.amd64.manifest, signature, on_signature, sbom, cosign.manifest):
        assert kept(tmp_path / "to", "team/copy", manifest.digest) == manifest.data
    for blob in (*images.amd64.blobs, *images.arm64.blobs):
        assert kept(tmp_path / "to", "team/copy", blob.digest) == blob.data
    asked = target.asked()
    puts = [item.path for item in asked if item.method == "PUT"]
    assert [path.rpartition("/")[2] for path in puts[-2:]] == ["1.0", "stable"]  # the tags come last
    assert sum("/manifests/sha256-" in path for path in puts) == 4  # three lists of referrers, and cosign's tag
    assert sum(item.method == "PATCH" for item in asked) >= 5  # 4 MiB in pieces of one
    assert said[-1][0] == said[-1][1]
    assert all(item.status < 400 or (item.method in ("HEAD", "GET") and item.status == 404) for item in asked)
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_second_run_sends_nothing(source: Registry, target: Registry, images: Images, tmp_path: Path) -> None:
    attach(source, "library/tool", images.index, "signature")
    places = (f"{source.url}/library/tool:1.0", f"{target.url}/team/copy:2.0", tmp_path / "state")
    await copy(*places)
    before = len(target.asked())
    outcome = await copy(*places)
    assert (outcome.manifests, outcome.blobs, outcome.bytes_sent, outcome.manifests_there) == (0, 0, 0, 4)
    assert {item.method for item in target.asked()[before:]} == {"HEAD", "GET"}


async def test_every_tag_is_copied_but_for_lists_of_referrers(
    source: Registry, target: Registry, images: Images, tmp_path: Path
) -> None:
    attach(source, "library/tool", images.index, "signature")
    every = Choice(all_tags=True)
    outcome = await copy(f"{source.url}/library/tool", f"{target.url}/a/b", tmp_path / "state", choice=every)
    assert sorted(outcome.tags) == ["1.0", "docker"]
    assert kept(tmp_path / "to", "a/b", images.docker.manifest.digest) == images.docker.manifest.data


async def test_one_platform_of_an_index(source: Registry, target: Registry, images: Images, tmp_path: Path) -> None:
    arm = Choice(platform="linux/arm64")
    outcome = await copy(f"{source.url}/library/tool:1.0", f"{target.url}/arm", tmp_path / "s", choice=arm)
    assert outcome.digests == {"1.0": images.arm64.manifest.digest}
    assert kept(tmp_path / "to", "arm", images.arm64.manifest.digest) == images.arm64.manifest.data
    assert not any(images.amd64.manifest.digest in item.path for item in target.asked())


async def test_within_one_registry_blobs_are_mounted(source: Registry, images: Images, tmp_path: Path) -> None:
    outcome = await copy(f"{source.url}/library/tool:docker", f"{source.url}/other/place", tmp_path / "s")
    assert (outcome.mounted, outcome.blobs, outcome.bytes_sent) == (len(images.docker.blobs), 0, 0)
    assert kept(tmp_path / "from", "other/place", images.docker.manifest.digest) == images.docker.manifest.data


async def test_a_target_behind_a_token_server_gives_tokens_for_pushing(
    source: Registry, images: Images, tmp_path: Path
) -> None:
    with token_server(tmp_path / "tokens", {"me": "secret", "other": "x"}, {"me": frozenset({"team/app"})}) as tokens:
        registry = Registry(tmp_path / "to", tmp_path / "run", auth=tokens.auth)
        places = (f"{source.url}/library/tool:docker", f"{registry.url}/team/app", tmp_path / "s")
        with running(registry):
            with pytest.raises(MxartError, match="refuses the configured credentials"):
                await copy(*places, target_access=Access(Credentials("me", "wrong")))
            with pytest.raises(MxartError, match="answers 401 to HEAD"):
                await copy(*places, target_access=Access(Credentials("other", "x")))
            with pytest.raises(MxartError, match="answers 401 to HEAD"):
                await copy(*places)
            outcome = await copy(*places, target_access=Access(Credentials("me", "secret")))
        assert outcome.tags == ["docker"]
        assert ("me", "repository:team/app:pull repository:team/app:pull,push") in tokens.asked


async def test_an_image_that_is_not_there_is_told(source: Registry, target: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"library/tool has no 9\.9"):
        await copy(f"{source.url}/library/tool:9.9", f"{target.url}/x", tmp_path / "s")
    assert target.asked() == []
