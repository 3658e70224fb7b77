"""`mxart ca trust CLIENT`: what it prints is run as it is, the client then pulls; and what a stolen key is good for.

The worlds here have an /etc of their own: nothing of the machine's is changed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from kit.clients import Ctr, Dockerd, Podman, Skopeo, clean_environment, closing, curl
from kit.netns import World
from kit.pulls import hub
from kit.registry import Images, Registry, running
from kit.servers import Mxart, mxart, program
from mxart.proto.authority import Authority, key_pem

OUR_ADDRESS = "10.1.1.1"  # the engine does not verify loopback
LISTEN = ["127.0.0.1:443", f"{OUR_ADDRESS}:8443"]
OWN = "registry.test:8443/docker.io/library/tool:1.0"
HUB = "docker.io/library/tool:1.0"


@pytest.fixture
def server(inner: Registry, redirected: World, room: Path) -> Iterator[Mxart]:
    """Docker Hub, redirected here, and a name of our own."""
    places = {"etc": Path("/etc"), "anchors": Path("/usr/local/share/ca-certificates")}
    for name, place in places.items():
        redirected.run("cp", "-a", place, room / name)
        redirected.run("mount", "--bind", room / name, place)
    for hook in (room / "etc" / "ca-certificates" / "update.d").glob("*"):
        hook.unlink()  # they write elsewhere
    hosts = room / "etc" / "hosts"
    hosts.write_text(hosts.read_text().replace("127.0.0.1 registry.test", f"{OUR_ADDRESS} registry.test"))
    redirected.run("ip", "address", "add", f"{OUR_ADDRESS}/32", "dev", "lo")
    config = hub(inner) + '[tls]\nnames = ["registry.test"]\n'
    with mxart(room / "mxart", config, listen=LISTEN, tls=True, workers=2, within=redirected.enter) as made:
        yield made


def trust(server: Mxart, client: str, inside: World, home: Path) -> None:
    """Run what is printed for a client."""
    command = [sys.executable, "-m", "mxart", "--config", server.data.parent / "mxart.toml", "--data", server.data]
    for address in LISTEN:
        command += ["--listen", address]
    printed = subprocess.run(
        [*command, "--tls", "ca", "trust", client], capture_output=True, timeout=30, check=True, text=True
    )
    inside.run("sh", "-c", printed.stdout, env=clean_environment(home))


def test_the_store_of_debian_is_enough_for_curl_skopeo_and_the_engine(
    server: Mxart, images: Images, redirected: World, room: Path
) -> None:
    skopeo = Skopeo(room / "skopeo", redirected)
    with pytest.raises(AssertionError, match="x509: certificate signed by unknown authority"):
        skopeo.pull(HUB)
    trust(server, "debian", redirected, room / "home")
    assert curl(redirected, "https://registry-1.docker.io/v2/", home=room / "home") == b"{}"
    assert skopeo.pull(HUB) == images.amd64.config.digest
    with closing(Dockerd(room / "dockerd", redirected)) as engine:
        assert engine.pull(HUB) == images.amd64.config.digest


def test_the_engine_has_a_folder_for_registries_of_our_own(
    server: Mxart, images: Images, redirected: World, room: Path
) -> None:
    with closing(Dockerd(room / "dockerd", redirected)) as engine:
        with pytest.raises(AssertionError, match="x509: certificate signed by unknown authority"):
            engine.pull(OWN)
        trust(server, "docker", redirected, room / "home")  # without a restart
        assert engine.pull(OWN) == images.amd64.config.digest


def test_podman_and_skopeo_have_a_folder_for_every_registry(
    server: Mxart, images: Images, redirected: World, room: Path
) -> None:
    trust(server, "podman", redirected, room / "home")
    for name in (HUB, OWN):
        assert Podman(room / "podman", redirected).pull(name) == images.amd64.config.digest
        assert Skopeo(room / "skopeo", redirected).pull(name) == images.amd64.config.digest


def test_containerd_has_a_hosts_file_for_every_registry(
    server: Mxart, images: Images, redirected: World, room: Path
) -> None:
    trust(server, "containerd", redirected, room / "home")
    with closing(Ctr(room / "ctr", redirected)) as ctr:
        ctr._flags += ["--hosts-dir", "/etc/containerd/certs.d"]
        for name in (HUB, OWN):
            assert ctr.pull(name) == images.amd64.config.digest


def test_the_store_of_java(server: Mxart, redirected: World, room: Path) -> None:
    """Only where there is a JDK: it is too large to be asked for."""
    if shutil.which("keytool") is None or shutil.which("javac") is None:
        pytest.skip("there is no JDK")
    redirected.run("update-ca-certificates")
    source = room / "Ask.java"
    source.write_text(
        """public class Ask { public static void main(String[] names) throws Exception {
             var url = new java.net.URL("https://registry-1.docker.io/v2/");
             System.out.println(new String(url.openStream().readAllBytes())); } }"""
    )
    env = clean_environment(room / "home")
    with pytest.raises(AssertionError, match="unable to find valid certification path"):
        redirected.run("java", source, env=env)
    trust(server, "java", redirected, room / "home")
    assert redirected.run("java", source, env=env).strip() == b"{}"


@pytest.mark.parametrize("name", ["registry-1.docker.io", "passed.test"])
def test_what_a_stolen_key_is_good_for(name: str, filled: Path, inner: Registry, redirected: World, room: Path) -> None:
    """OpenSSL (curl), GnuTLS (git) and Go (skopeo) take a certificate for a registry, and none for anything else."""
    with mxart(room / "mxart", hub(inner), listen=LISTEN[:1], tls=True, within=redirected.enter) as server:
        ca = shutil.copy(server.ca, room / "ca.pem")
        stolen = Authority.open(server.data / "ca")
    issued = stolen.issue((name,))
    certificate, key = room / "leaf.pem", room / "leaf.key"
    certificate.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in issued.chain))
    key.write_bytes(key_pem(issued.key))
    git = {**clean_environment(room / "home"), "GIT_SSL_CAINFO": str(ca)}
    skopeo = Skopeo(room / "skopeo", redirected, ca=Path(ca))
    with running(Registry(filled, room / "other", inside=redirected, certificate=(certificate, key))):
        if name == "passed.test":
            with pytest.raises(AssertionError, match="permitted subtree violation"):
                curl(redirected, f"https://{name}/v2/", ca=Path(ca), home=room / "home")
            with pytest.raises(AssertionError, match=r"x509: .*is not permitted by any constraint"):
                skopeo.raw_manifest(f"{name}/library/tool:1.0")
            with pytest.raises(AssertionError, match="server certificate verification failed"):
                redirected.run(program("git"), "ls-remote", f"https://{name}/x", env=git)
        else:
            assert curl(redirected, f"https://{name}/v2/", ca=Path(ca), home=room / "home") == b"{}"
            assert skopeo.raw_manifest("docker.io/library/tool:1.0")
            with pytest.raises(AssertionError, match="not found"):  # and not a certificate's fault
                redirected.run(program("git"), "ls-remote", f"https://{name}/x", env=git)
