"""Deleting with real clients: gone at once for everybody, and nothing else with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import Podman, Skopeo, closing, curl
from kit.netns import World
from kit.oras_client import Oras
from kit.pushes import OWN, admin_password, as_folder
from kit.registry import Images
from kit.servers import Mxart, mxart

_PLAIN = ["tls-verify=false"]


@pytest.fixture
def server(room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", OWN, workers=2) as made:
        yield made


@pytest.fixture
def skopeo(server: Mxart, here: World, room: Path) -> Skopeo:
    """Logged in as the administrator."""
    made = Skopeo(room / "skopeo", here, options=_PLAIN)
    made.login(server.address, "admin", admin_password(server))
    return made


def test_a_deleted_image_is_gone_at_once_and_what_it_shared_is_not(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    """The two share a layer; skopeo deletes the manifest that a tag names, and with it all its tags."""
    name = f"{server.address}/team/app"
    for tag, image in (("docker", images.docker), ("nameless", images.nameless)):
        place = as_folder(room / f"laid-{tag}", image.manifest, image)
        for also in (tag, f"{tag}-too"):
            skopeo.copy(place, f"docker://{name}:{also}", "--preserve-digests")
    skopeo.delete(f"{name}:docker")
    for _ in range(4):  # by whichever worker
        with pytest.raises(AssertionError, match=r"(?i)manifest.unknown"):
            skopeo.raw_manifest(f"{name}:docker-too")
        with pytest.raises(AssertionError, match=r"(?i)manifest.unknown"):
            skopeo.raw_manifest(f"{name}@{images.docker.manifest.digest}")
    assert skopeo.tags(name) == ["nameless", "nameless-too"]
    with closing(Podman(room / "podman", here, options=_PLAIN)) as podman:
        assert podman.pull(f"{name}:nameless") == images.nameless.config.digest
    place = as_folder(room / "again", images.docker.manifest, images.docker)
    skopeo.copy(place, f"docker://{name}:docker", "--preserve-digests")
    assert skopeo.pull(f"{name}:docker") == images.docker.config.digest


def test_who_may_not_delete_is_told_so_and_nothing_happens(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    target = f"{server.address}/team/app:1"
    skopeo.copy(as_folder(room / "laid", images.docker.manifest, images.docker), f"docker://{target}")
    stranger = Skopeo(room / "stranger", here, options=_PLAIN)
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|denied|authentication required"):
        stranger.delete(target)
    assert stranger.pull(target) == images.docker.config.digest


def test_one_tag_of_several_is_taken_away_alone(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    """`DELETE manifests/<tag>`, which curl can say and the others cannot."""
    name = f"{server.address}/team/app"
    place = as_folder(room / "laid", images.docker.manifest, images.docker)
    for tag in ("1", "2"):
        skopeo.copy(place, f"docker://{name}:{tag}")
    login = ["--user", f"admin:{admin_password(server)}", "--request", "DELETE"]
    curl(here, *login, f"{server.url}/v2/team/app/manifests/1", home=room / "home")
    assert skopeo.tags(name) == ["2"]
    assert skopeo.pull(f"{name}:2") == images.docker.config.digest


def test_oras_deletes_an_artifact(server: Mxart, here: World, room: Path) -> None:
    oras = Oras(room / "oras", here)
    oras.login(server.address, "admin", admin_password(server))
    name = f"{server.address}/team/files"
    for tag in ("1", "2"):
        oras.push(f"{name}:{tag}", {"file": tag.encode()})
    oras.delete(name, "1")
    assert oras.tags(name) == ["2"]
    assert oras.pull(f"{name}:2") == {"file": b"2"}
