"""What the tests with real clients share: an upstream registry filled once, and short-named folders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme

from kit.clients import Buildah, Ctr, Dockerd, Make, Podman, Pusher, Skopeo
from kit.netns import World, world
from kit.registry import Images, Registry, fill, running, standard_images


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder with a short name (the path of a Unix socket may have 107 bytes); nothing of it stays."""
    folder = Path(tempfile.mkdtemp(prefix="mx-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    assert not folder.exists(), f"something still holds {folder}"


@pytest.fixture(scope="session")
def images() -> Images:
    return standard_images()


@pytest.fixture(scope="session")
def filled(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's folder with the standard images in it; copied by whoever runs one."""
    folder = tmp_path_factory.mktemp("registry")
    fill(folder / "root", folder, images)
    return folder / "root"


@pytest.fixture
def upstream(filled: Path, room: Path) -> Iterator[Registry]:
    """A real registry on the machine's own loopback."""
    shutil.copytree(filled, room / "upstream-root")
    with running(Registry(room / "upstream-root", room / "upstream")) as registry:
        yield registry


@pytest.fixture
def here(room: Path) -> Iterator[World]:
    """The machine's own network; mounts of the test's own."""
    with world(room / "world", network=False) as made:
        yield made


@pytest.fixture
def redirected(room: Path) -> Iterator[World]:
    """A world with nothing but loopback, where DNS says that Docker Hub, and more, is here."""
    names = ["docker.io", "registry-1.docker.io", "index.docker.io", "registry.test", "passed.test"]
    with world(room / "redirected", dict.fromkeys(names, "127.0.0.1")) as made:
        yield made


@pytest.fixture
def inner(filled: Path, room: Path, redirected: World) -> Iterator[Registry]:
    """A registry inside that world, in plain text on a port of its own."""
    shutil.copytree(filled, room / "inner-root")
    with running(Registry(room / "inner-root", room / "inner", inside=redirected)) as registry:
        yield registry


@pytest.fixture
def certified(room: Path) -> tuple[Path, Path, Path]:
    """Another authority than ours, and a certificate and key of the real registry's: CA, certificate, key."""
    authority = trustme.CA()
    issued = authority.issue_cert("registry-1.docker.io", "passed.test")
    authority.cert_pem.write_to_path(str(room / "upstream-ca.pem"))
    issued.private_key_pem.write_to_path(str(room / "upstream.key"))
    issued.cert_chain_pems[0].write_to_path(str(room / "upstream.pem"))
    return room / "upstream-ca.pem", room / "upstream.pem", room / "upstream.key"


@pytest.fixture
def client(request: pytest.FixtureRequest, room: Path) -> Iterator[Make]:
    """Makes the client that the test's parameter names; closed at the end."""
    made: list[Pusher] = []

    def make(
        inside: World,
        *,
        ca: Path | None = None,
        insecure: bool = False,
        cert_dir: Path | None = None,
        registries: str = "",
        hosts: dict[str, str] | None = None,
        mirrors: Sequence[str] = (),
    ) -> Pusher:
        name = str(request.param)
        options = ["tls-verify=false"] if insecure else [f"cert-dir={cert_dir}"] if cert_dir else []
        folder = room / f"{name}{len(made)}"
        found: Pusher
        match name:
            case "skopeo":
                found = Skopeo(folder, inside, ca=ca, options=options, registries=registries)
            case "podman":
                found = Podman(folder, inside, ca=ca, options=options, registries=registries)
            case "buildah":
                found = Buildah(folder, inside, ca=ca, options=options, registries=registries)
            case "ctr":
                found = Ctr(folder, inside, ca=ca, hosts=hosts)
            case "dockerd":
                found = Dockerd(folder, inside, ca=ca, mirrors=mirrors)
            case _:
                raise AssertionError(name)
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()
