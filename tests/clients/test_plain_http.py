"""Each client pulls over plain HTTP: cold, warm, and with upstream gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.clients import CLIENTS, Make, Podman, Skopeo
from kit.netns import World
from kit.pulls import check_three_pulls, hub
from kit.registry import Images, Registry
from kit.servers import Mxart, mxart

every_client = pytest.mark.parametrize("client", CLIENTS, indirect=True)


@every_client
def test_an_image_by_path_prefix_cold_warm_and_offline(
    client: Make, upstream: Registry, images: Images, here: World, room: Path
) -> None:
    with mxart(room / "mxart", hub(upstream)) as server:
        puller = client(here, insecure=True)
        check_three_pulls(puller, upstream, f"{server.address}/docker.io/library/tool:1.0", images.amd64)


@every_client
def test_manifests_of_every_shape(client: Make, upstream: Registry, images: Images, here: World, room: Path) -> None:
    """Docker schema 2, and a manifest that does not say its own media type, from nested names."""
    with mxart(room / "mxart", hub(upstream), workers=2) as server:
        puller = client(here, insecure=True)
        assert puller.pull(f"{server.address}/docker.io/team/app:2") == images.docker.config.digest
        assert puller.pull(f"{server.address}/docker.io/team/deep/app:latest") == images.nameless.config.digest


@every_client
def test_as_a_mirror_of_docker_hub(client: Make, upstream: Registry, images: Images, here: World, room: Path) -> None:
    """`pull docker.io/library/tool`, with nothing but the client's own setting for a mirror."""
    with mxart(room / "mxart", hub(upstream, names=("localhost",))) as server:
        puller = client(
            here,
            registries=f"""
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "{server.address}/docker.io"
insecure = true
""",
            # containerd says what it means by `ns`: no path needed.
            hosts={"docker.io": f'server = "http://{server.address}"\n[host."http://{server.address}"]\n'},
            # The engine asks its mirror without saying what for: a host of its own tells.
            mirrors=[f"http://localhost:{server.port}/"],
        )
        assert puller.pull("docker.io/library/tool:1.0") == images.amd64.config.digest


def test_through_a_group_of_groups(upstream: Registry, images: Images, here: World, room: Path) -> None:
    config = (
        hub(upstream)
        + """
[repository.own]
format = "oci"
kind = "local"
[repository.inner]
format = "oci"
kind = "group"
members = ["own", "hub"]
[repository.all]
format = "oci"
kind = "group"
members = ["inner"]
path = "/all"
"""
    )
    with mxart(room / "mxart", config) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        assert skopeo.pull_all(f"{server.address}/all/library/tool:1.0") == images.index.data
        assert skopeo.tags(f"{server.address}/all/team/app") == ["2"]


def test_what_was_pulled_runs(upstream: Registry, here: World, room: Path) -> None:
    with mxart(room / "mxart", hub(upstream)) as server:
        podman = Podman(room / "podman", here, options=["tls-verify=false"])
        reference = f"{server.address}/docker.io/team/deep/app:latest"
        podman.pull(reference)
        assert podman.execute(reference, "cat", "/etc/hello") == "hello from the registry\n"


def test_skopeo_copies_every_platform_byte_for_byte(
    upstream: Registry, images: Images, here: World, room: Path
) -> None:
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        assert skopeo.pull_all(f"{server.address}/docker.io/library/tool:1.0") == images.index.data
        for image in (images.amd64, images.arm64):
            assert all(skopeo.kept(blob) for blob in (*image.blobs, image.manifest))


def test_skopeo_inspects_and_lists_tags(upstream: Registry, images: Images, here: World, room: Path) -> None:
    upstream.tag("team/app", "3-rc", images.docker.manifest)
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        name = f"{server.address}/docker.io/team/app"
        assert skopeo.raw_manifest(f"{name}:2") == images.docker.manifest.data
        assert skopeo.inspect(f"{name}:2")["Digest"] == images.docker.manifest.digest
        assert skopeo.tags(name) == ["2", "3-rc"]


def test_a_moved_tag_is_seen_at_the_next_pull(upstream: Registry, images: Images, here: World, room: Path) -> None:
    upstream.tag("team/deep/app", "moving", images.nameless.manifest)
    upstream.publish_image("team/deep/app", "other", images.amd64)
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        reference = f"{server.address}/docker.io/team/deep/app:moving"
        assert skopeo.pull(reference) == images.nameless.config.digest
        upstream.tag("team/deep/app", "moving", images.amd64.manifest)
        assert skopeo.pull(reference) == images.amd64.config.digest


def test_a_tag_within_its_ttl_costs_upstream_nothing(
    upstream: Registry, images: Images, here: World, room: Path
) -> None:
    with mxart(room / "mxart", hub(upstream, ttl=300)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        reference = f"{server.address}/docker.io/team/app:2"
        skopeo.pull(reference)
        cold = len(upstream.asked())
        assert skopeo.pull(reference) == images.docker.config.digest
        assert upstream.asked()[cold:] == []


def test_a_server_that_starts_while_upstream_is_down_serves_what_it_has(
    upstream: Registry, images: Images, here: World, room: Path
) -> None:
    skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo.pull(f"{server.address}/docker.io/library/tool:1.0")
    upstream.stop()
    with mxart(room / "mxart", hub(upstream)) as server:
        assert skopeo.pull(f"{server.address}/docker.io/library/tool:1.0") == images.amd64.config.digest


def test_an_unknown_tag_is_said_to_be_unknown_in_the_clients_words(upstream: Registry, here: World, room: Path) -> None:
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        with pytest.raises(AssertionError, match="manifest unknown"):
            skopeo.pull(f"{server.address}/docker.io/team/app:nope")


def test_upstream_down_is_never_said_to_be_unknown(upstream: Registry, here: World, room: Path) -> None:
    with mxart(room / "mxart", hub(upstream)) as server:
        skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
        upstream.stop()
        with pytest.raises(AssertionError) as caught:
            skopeo.pull(f"{server.address}/docker.io/team/app:2")
        assert "unknown" not in str(caught.value)
        assert "50" in str(caught.value)


def test_the_default_server_starts_and_answers(room: Path, here: World) -> None:
    """`make serve` on a fresh machine: no configuration, an empty folder."""
    server = Mxart(room / "mxart")
    skopeo = Skopeo(room / "skopeo", here, options=["tls-verify=false"])
    with pytest.raises(AssertionError, match="unknown"):
        skopeo.pull(f"{server.address}/nobody/has/this:1")
    server.stop()
