"""Signatures and SBOMs travel beside an image: oras pushes them as artifacts with a subject, the API finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from kit.clients import Skopeo, curl
from kit.netns import World
from kit.oras_client import Oras
from kit.pushes import OWN, admin_password, as_folder, mxart_command
from kit.registry import Images, Registry, running
from kit.servers import Mxart, mxart

_PLAIN = ["tls-verify=false"]
_SBOM, _SIGNATURE = "application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"


@pytest.fixture
def server(room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", OWN, workers=2) as made:
        yield made


@pytest.fixture
def skopeo(server: Mxart, here: World, room: Path) -> Skopeo:
    made = Skopeo(room / "skopeo", here, options=_PLAIN)
    made.login(server.address, "admin", admin_password(server))
    return made


@pytest.fixture
def oras(server: Mxart, here: World, room: Path) -> Oras:
    made = Oras(room / "oras", here)
    made.login(server.address, "admin", admin_password(server))
    return made


def test_a_signature_and_an_sbom_of_an_image(
    server: Mxart, skopeo: Skopeo, oras: Oras, images: Images, here: World, room: Path
) -> None:
    def referrers(kind: str = "") -> list[dict[str, object]]:
        wanted = f"?artifactType={quote(kind, safe='')}" if kind else ""
        found = curl(here, f"{server.url}/v2/team/app/referrers/{images.index.digest}{wanted}", home=room / "home")
        return list(json.loads(found)["manifests"])

    name = f"{server.address}/team/app"
    # The SBOM may come before what it describes.
    sbom = oras.push(
        f"{name}:sbom",
        {"sbom.json": b'{"spdxVersion": "SPDX-2.3"}'},
        artifact_type=_SBOM,
        subject=images.index.descriptor(),
        annotations={"made.by": "kit"},
    )
    assert [entry["digest"] for entry in referrers()] == [sbom]
    place = as_folder(room / "laid", images.index, images.amd64, images.arm64)
    skopeo.copy(place, f"docker://{name}:1", "--all", "--preserve-digests")
    signature = oras.push(
        f"{name}:signature", {"signature": b"signed"}, artifact_type=_SIGNATURE, subject=images.index.descriptor()
    )
    assert {entry["digest"] for entry in referrers()} == {sbom, signature}
    (only,) = referrers(_SBOM)
    assert only["digest"] == sbom
    assert only["artifactType"] == _SBOM
    assert only["annotations"] == {"made.by": "kit"}
    assert oras.pull(f"{name}@{sbom}") == {"sbom.json": b'{"spdxVersion": "SPDX-2.3"}'}
    assert skopeo.pull_all(f"{name}:1") == images.index.data, "the image itself is what it was"
    oras.delete(name, "signature")
    assert [entry["digest"] for entry in referrers()] == [sbom]


def test_an_artifact_in_chunks_and_its_tags(server: Mxart, oras: Oras) -> None:
    """oras sends a large file in requests of its own size, each with a Content-Range."""
    name = f"{server.address}/team/files"
    large = bytes(range(256)) * (3 << 12)
    oras.push(f"{name}:1", {"large": large, "small": b"x"}, chunk=1 << 20)
    assert oras.pull(f"{name}:1") == {"large": large, "small": b"x"}
    assert oras.tags(name) == ["1"]


def test_oras_by_basic_and_who_is_not_logged_in(server: Mxart, here: World, room: Path) -> None:
    stranger = Oras(room / "stranger", here)
    with pytest.raises(AssertionError, match=r"(?i)authentication|401|unauthorized"):
        stranger.push(f"{server.address}/team/files:1", {"file": b"x"})
    basic = Oras(room / "basic", here, auth="basic")
    basic.login(server.address, "admin", admin_password(server))
    basic.push(f"{server.address}/team/files:1", {"file": b"x"})
    assert stranger.pull(f"{server.address}/team/files:1") == {"file": b"x"}


def test_an_image_and_its_sbom_are_replicated_to_another_registry_and_back(
    server: Mxart, skopeo: Skopeo, oras: Oras, images: Images, here: World, room: Path
) -> None:
    """The other one is docker-registry, which has no referrers API: there the tag stands in for it."""
    name = f"{server.address}/team/app"
    place = as_folder(room / "laid", images.index, images.amd64, images.arm64)
    skopeo.copy(place, f"docker://{name}:1", "--all", "--preserve-digests")
    sbom = oras.push(f"{name}:sbom", {"sbom.json": b"{}"}, artifact_type=_SBOM, subject=images.index.descriptor())
    with running(Registry(room / "other-root", room / "other")) as other:
        copies = f"127.0.0.1:{other.port}/copies/app"
        away = f"{copies}:1"
        state = ["--state", str(room / "state")]
        mxart_command(server, "replicate", *state, f"{server.url}/team/app:1", f"http://{away}")
        assert skopeo.pull_all(away) == images.index.data
        stand_in = json.loads(skopeo.raw_manifest(f"{copies}:{images.index.digest.replace(':', '-')}"))
        assert [entry["digest"] for entry in stand_in["manifests"]] == [sbom]
        back = ["--target-user", "admin", "--target-password-file", str(server.data / "admin-password")]
        mxart_command(server, "replicate", *state, *back, f"http://{away}", f"{server.url}/back/app:1")
    assert skopeo.pull_all(f"{server.address}/back/app:1") == images.index.data
    found = curl(here, f"{server.url}/v2/back/app/referrers/{images.index.digest}", home=room / "home")
    assert [entry["digest"] for entry in json.loads(found)["manifests"]] == [sbom]
