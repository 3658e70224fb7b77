"""Each client pushes to a local repository that lives beside a proxy, and anybody pulls what was pushed."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kit.clients import CLIENTS, Buildah, Ctr, Dockerd, Make, Podman, Skopeo, closing
from kit.netns import World
from kit.pushes import OWN, admin_password, as_folder, beside_hub, media_types
from kit.registry import Images, Registry
from kit.servers import Mxart, mxart, program, wait_until

every_client = pytest.mark.parametrize("client", [*CLIENTS, "buildah"], indirect=True)

_PLAIN = ["tls-verify=false"]
_REFUSED = (
    r"needs a login|401 Unauthorized|failed to copy after 5 retries"  # the last two are what ctr says of anything
)
_WRONG = r"wrong user name or password|invalid username/password"  # our words; those of podman and its kin
_BUSYBOX = Path(program("busybox"))


@every_client
def test_what_was_pulled_through_the_proxy_is_pushed_beside_it(
    client: Make, upstream: Registry, images: Images, here: World, room: Path
) -> None:
    """The life of a login: not yet, wrong, right, and no longer; in the client's own words."""
    with mxart(room / "mxart", beside_hub(upstream), workers=2) as server:
        pusher = client(here, insecure=True)
        source, target = f"{server.address}/docker.io/library/tool:1.0", f"{server.address}/team/tool:1"
        assert pusher.pull(source) == images.amd64.config.digest
        with pytest.raises(AssertionError, match=_REFUSED):
            pusher.push(source, target)
        if not isinstance(pusher, Ctr):  # which asks nobody
            with pytest.raises(AssertionError, match=_WRONG):
                pusher.login(server.address, "admin", "wrong")
        pusher.login(server.address, "admin", admin_password(server))
        digest = pusher.push(source, target)
        assert pusher.push(source, target) == digest, "the same again is no mistake"
        pusher.logout(server.address)
        with pytest.raises(AssertionError, match=_REFUSED):
            pusher.push(source, f"{server.address}/team/tool:2")
        assert pusher.pull(target) == images.amd64.config.digest
        skopeo = Skopeo(room / "anybody", here, options=_PLAIN)
        assert skopeo.inspect(target)["Digest"] == digest
        assert skopeo.tags(f"{server.address}/team/tool") == ["1"]


@pytest.fixture
def server(upstream: Registry, room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", beside_hub(upstream), workers=2) as made:
        yield made


@pytest.fixture
def skopeo(server: Mxart, here: World, room: Path) -> Skopeo:
    """Logged in."""
    made = Skopeo(room / "skopeo", here, options=_PLAIN)
    made.login(server.address, "admin", admin_password(server))
    return made


def test_a_multi_platform_image_arrives_byte_for_byte(
    server: Mxart, skopeo: Skopeo, images: Images, room: Path
) -> None:
    place = as_folder(room / "laid", images.index, images.amd64, images.arm64)
    target = f"{server.address}/team/tool:1.0"
    digest = skopeo.copy(place, f"docker://{target}", "--all", "--preserve-digests")
    assert digest == images.index.digest
    assert skopeo.raw_manifest(target) == images.index.data
    assert skopeo.pull_all(target) == images.index.data
    for image in (images.amd64, images.arm64):
        assert all(skopeo.kept(blob) for blob in (*image.blobs, image.manifest))
        assert skopeo.raw_manifest(f"{server.address}/team/tool@{image.manifest.digest}") == image.manifest.data


def test_manifests_of_every_shape_arrive_byte_for_byte(
    server: Mxart, skopeo: Skopeo, images: Images, room: Path
) -> None:
    """Docker schema 2, and an OCI manifest that does not say its own media type; a name of many parts."""
    for number, image in enumerate((images.docker, images.nameless)):
        place = as_folder(room / f"laid{number}", image.manifest, image)
        target = f"{server.address}/a/name/of/many/parts:{number}"
        assert skopeo.copy(place, f"docker://{target}", "--preserve-digests") == image.manifest.digest
        assert skopeo.raw_manifest(target) == image.manifest.data
        assert skopeo.pull(target) == image.config.digest
    assert skopeo.tags(f"{server.address}/a/name/of/many/parts") == ["0", "1"]


def test_containerd_pushes_an_index_with_all_that_it_names(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    with closing(Ctr(room / "ctr", here)) as ctr:
        source = f"{server.address}/docker.io/library/tool:1.0"
        assert ctr.pull_all(source) == images.index.digest
        ctr.login(server.address, "admin", admin_password(server))
        target = f"{server.address}/team/tool:all"
        assert ctr.push_all(source, target) == images.index.digest
    assert skopeo.pull_all(target) == images.index.data


def test_a_whole_repository_is_synchronised_into_ours(
    server: Mxart, skopeo: Skopeo, upstream: Registry, images: Images
) -> None:
    upstream.tag("team/app", "3-rc", images.docker.manifest)
    skopeo.sync(f"{server.address}/docker.io/team/app", f"{server.address}/mirror")
    assert skopeo.tags(f"{server.address}/mirror/app") == ["2", "3-rc"]
    assert skopeo.raw_manifest(f"{server.address}/mirror/app:2") == images.docker.manifest.data


def test_layers_compressed_with_zstd(server: Mxart, skopeo: Skopeo, here: World, room: Path) -> None:
    """buildah builds and compresses them, podman unpacks and runs them."""
    target = f"{server.address}/team/small:zstd"
    with closing(Buildah(room / "buildah", here, options=_PLAIN)) as buildah:
        buildah.login(server.address, "admin", admin_password(server))
        built = buildah.build({"bin/cat": _BUSYBOX.read_bytes(), "etc/hello": b"zstd\n"}, "localhost/small:1")
        buildah.push("localhost/small:1", target, "--compression-format", "zstd", "--format", "oci")
    assert set(media_types(skopeo.raw_manifest(target))) == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    with closing(Podman(room / "podman", here, options=_PLAIN)) as podman:
        assert podman.pull(target) == built
        assert podman.execute(target, "/bin/cat", "/etc/hello") == "zstd\n"


def test_what_docker_builds_podman_runs(server: Mxart, images: Images, here: World, room: Path) -> None:
    target = f"{server.address}/team/built:1"
    with closing(Dockerd(room / "docker", here)) as docker:
        docker.login(server.address, "admin", admin_password(server))
        built = docker.build({"bin/cat": _BUSYBOX.read_bytes(), "etc/hello": b"built\n"}, "localhost/built")
        docker.push("localhost/built", target)
    with closing(Podman(room / "podman", here, options=_PLAIN)) as podman:
        assert podman.pull(target) == built
        assert podman.execute(target, "/bin/cat", "/etc/hello") == "built\n"


def test_docker_makes_a_list_of_images_and_podman_finds_it(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    """Mounting the images from where they are; podman searches in the catalog, and lists tags."""
    name = f"{server.address}/team/app"
    skopeo.copy(as_folder(room / "laid", images.docker.manifest, images.docker), f"docker://{name}:1")
    with closing(Dockerd(room / "docker", here)) as docker:
        docker.login(server.address, "admin", admin_password(server))
        made = f"{server.address}/team/list:1"
        docker.run(*docker._base, "manifest", "create", "--insecure", made, f"{name}:1")
        docker.run(*docker._base, "manifest", "push", "--insecure", made)
    (entry,) = json.loads(skopeo.raw_manifest(made))["manifests"]
    assert entry["digest"] == images.docker.manifest.digest
    with closing(Podman(room / "podman", here, options=_PLAIN)) as podman:
        search = [*podman._base, "search", "--tls-verify=false"]
        found = podman.run(*search, "--format", "{{.Name}}", f"{server.address}/team").decode().split()
        assert found == [name, f"{server.address}/team/list"]
        listed = podman.run(*search, "--list-tags", name).decode().splitlines()[1:]
        assert [line.split() for line in listed] == [[name, "1"]]


def test_what_buildah_builds_for_two_platforms(server: Mxart, skopeo: Skopeo, here: World, room: Path) -> None:
    with closing(Buildah(room / "buildah", here, options=_PLAIN)) as buildah:
        buildah.login(server.address, "admin", admin_password(server))
        for name in ("one", "two"):
            buildah.build({"etc/name": name.encode()}, f"localhost/{name}:1")
        target = f"{server.address}/team/both:1"
        digest = buildah.push_list("localhost/both:1", ["localhost/one:1", "localhost/two:1"], target)
        assert skopeo.inspect(target)["Digest"] == digest
        assert len(json.loads(skopeo.raw_manifest(target))["manifests"]) == 2


def test_a_server_without_any_configuration(images: Images, here: World, room: Path) -> None:
    """Log in as admin, push, and anybody pulls; the engine and skopeo."""
    with mxart(room / "mxart", workers=2) as server:
        skopeo = Skopeo(room / "skopeo", here, options=_PLAIN)
        skopeo.login(server.address, "admin", admin_password(server))
        place = as_folder(room / "laid", images.docker.manifest, images.docker)
        target = f"{server.address}/team/app:1"
        assert skopeo.copy(place, f"docker://{target}") == images.docker.manifest.digest
        with closing(Dockerd(room / "docker", here)) as docker:
            assert docker.pull(target) == images.docker.config.digest
            docker.login(server.address, "admin", admin_password(server))
            docker.push(target, f"{server.address}/team/app:2")
        anybody = Skopeo(room / "anybody", here, options=_PLAIN)
        assert anybody.pull(f"{server.address}/team/app:2") == images.docker.config.digest
        assert anybody.tags(f"{server.address}/team/app") == ["1", "2"]


def test_a_push_to_a_group_goes_where_it_publishes_to(
    upstream: Registry, images: Images, here: World, room: Path
) -> None:
    config = beside_hub(upstream) + (
        '[repository.all]\nformat = "oci"\nkind = "group"\nmembers = ["own", "hub"]\npath = "/all"\n'
        'publish_to = "own"\n'
    )
    with mxart(room / "mxart", config, workers=2) as server:
        skopeo = Skopeo(room / "skopeo", here, options=_PLAIN)
        skopeo.login(server.address, "admin", admin_password(server))
        place = as_folder(room / "laid", images.docker.manifest, images.docker)
        skopeo.copy(place, f"docker://{server.address}/all/team/mine:1")
        assert skopeo.pull(f"{server.address}/team/mine:1") == images.docker.config.digest
        assert skopeo.pull(f"{server.address}/all/team/mine:1") == images.docker.config.digest
        assert skopeo.pull(f"{server.address}/all/team/deep/app:latest") == images.nameless.config.digest


def test_a_push_to_a_proxy_says_where_to_push(
    server: Mxart, skopeo: Skopeo, upstream: Registry, images: Images, room: Path
) -> None:
    place = as_folder(room / "laid", images.docker.manifest, images.docker)
    with pytest.raises(AssertionError, match=r"unsupported: hub is for reading only: push to a local repository"):
        skopeo.copy(place, f"docker://{server.address}/docker.io/team/mine:1")
    assert [asked for asked in upstream.asked() if asked.method not in {"GET", "HEAD"}] == []


def test_several_push_the_same_image_to_the_same_tag_at_once(
    server: Mxart, skopeo: Skopeo, images: Images, here: World, room: Path
) -> None:
    """They share every blob, and the tag; each is told that all is well, and it is."""
    target = f"{server.address}/team/tool:race"
    pushers = [Skopeo(room / f"pusher{number}", here, options=_PLAIN) for number in range(4)]

    def push(number: int) -> str:
        pushers[number].login(server.address, "admin", admin_password(server))
        place = as_folder(room / f"laid{number}", images.index, images.amd64, images.arm64)
        return pushers[number].copy(place, f"docker://{target}", "--all", "--preserve-digests")

    with ThreadPoolExecutor() as pool:
        assert set(pool.map(push, range(len(pushers)))) == {images.index.digest}
    assert skopeo.pull_all(target) == images.index.data
    assert all(skopeo.kept(blob) for image in (images.amd64, images.arm64) for blob in (*image.blobs, image.manifest))


def test_docker_pushes_on_when_workers_are_killed_in_the_middle_of_a_layer(
    server: Mxart, here: World, room: Path
) -> None:
    """The supervisor starts others, the engine tries again, and what is stored is right."""
    uploads = server.data / "store" / "uploads"
    target = f"{server.address}/team/noise:1"

    def half_a_layer() -> bool:
        return any(file.stat().st_size > 4 << 20 for file in uploads.glob("*") if not file.suffix)

    with closing(Dockerd(room / "docker", here)) as docker, ThreadPoolExecutor() as pool:
        docker.login(server.address, "admin", admin_password(server))
        built = docker.build({"noise": random.Random(4).randbytes(48 << 20)}, "localhost/noise")
        pushing = pool.submit(docker.push, "localhost/noise", target)
        wait_until(half_a_layer, "half a layer")
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        pushing.result()
        docker.run(*docker._base, "rmi", "localhost/noise", target)
        assert docker.pull(target) == built


def test_pushes_survive_a_restart(images: Images, here: World, room: Path) -> None:
    skopeo = Skopeo(room / "skopeo", here, options=_PLAIN)
    with mxart(room / "mxart", OWN) as server:
        skopeo.login(server.address, "admin", admin_password(server))
        place = as_folder(room / "laid", images.index, images.amd64, images.arm64)
        skopeo.copy(place, f"docker://{server.address}/team/tool:1", "--all")
    with mxart(room / "mxart", OWN) as server:
        assert skopeo.pull_all(f"{server.address}/team/tool:1") == images.index.data
