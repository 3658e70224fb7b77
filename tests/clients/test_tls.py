"""Each client pulls over TLS that the program's own CA vouches for, in a world where the names are redirected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trustme

from kit.clients import CLIENTS, Make, Skopeo, curl
from kit.netns import World
from kit.pulls import check_three_pulls, hub
from kit.registry import Images, Registry, running
from kit.servers import mxart

every_client = pytest.mark.parametrize("client", CLIENTS, indirect=True)


@every_client
def test_docker_hub_is_intercepted_without_touching_the_client(
    client: Make, inner: Registry, images: Images, redirected: World, room: Path
) -> None:
    """The name resolves to us on port 443 and our CA is trusted: nothing else is set."""
    with mxart(room / "mxart", hub(inner), listen=["127.0.0.1:443"], tls=True, within=redirected.enter) as server:
        puller = client(redirected, ca=server.ca)
        check_three_pulls(puller, inner, "docker.io/library/tool:1.0", images.amd64)


@every_client
def test_a_name_of_our_own_with_our_ca_in_the_clients_settings(
    client: Make, inner: Registry, images: Images, redirected: World, room: Path
) -> None:
    config = hub(inner) + '[tls]\nnames = ["registry.test"]\n'
    listen = ["127.0.0.1:8443"]
    with mxart(room / "mxart", config, listen=listen, tls=True, workers=2, within=redirected.enter) as server:
        name = "registry.test:8443"
        trust = room / "certs.d" / name
        trust.mkdir(parents=True)
        shutil.copy(server.ca, trust / "ca.crt")
        # What the engine reads is at a fixed place; in this world that is a folder in memory.
        redirected.run("mkdir", "-p", "/etc/docker/certs.d")
        redirected.run("cp", "-r", trust, "/etc/docker/certs.d/")
        puller = client(
            redirected,
            cert_dir=trust,
            hosts={name: f'server = "https://{name}"\n[host."https://{name}"]\nca = "{trust}/ca.crt"\n'},
        )
        check_three_pulls(puller, inner, f"{name}/docker.io/library/tool:1.0", images.amd64)


@every_client
def test_a_client_that_does_not_trust_our_ca_refuses(
    client: Make, inner: Registry, redirected: World, room: Path
) -> None:
    with mxart(room / "mxart", hub(inner), listen=["127.0.0.1:443"], tls=True, within=redirected.enter):
        stranger = room / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(str(stranger))
        puller = client(redirected, ca=stranger)
        with pytest.raises(AssertionError, match="x509: certificate signed by unknown authority"):
            puller.pull("docker.io/library/tool:1.0")
        assert inner.asked() == []


def test_upstream_is_found_by_its_real_address_while_its_name_leads_to_us(
    filled: Path, images: Images, redirected: World, room: Path, certified: tuple[Path, Path, Path]
) -> None:
    """Redirected DNS would make us ask ourselves: `resolve` breaks the circle, TLS to upstream is checked by name."""
    authority, certificate, key = certified
    config = f"""
[upstreams]
resolve = {{ "registry-1.docker.io" = "127.0.0.2" }}
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["docker.io", "registry-1.docker.io", "index.docker.io"]
ca_file = "{authority}"
"""
    real = Registry(filled, room / "upstream", inside=redirected, address="127.0.0.2", certificate=(certificate, key))
    listen = ["127.0.0.1:443"]
    with (
        running(real),
        mxart(room / "mxart", config, listen=listen, tls=True, within=redirected.enter) as server,
    ):
        skopeo = Skopeo(room / "skopeo", redirected, ca=server.ca)
        assert skopeo.pull_all("docker.io/library/tool:1.0") == images.index.data
        assert {asked.status for asked in real.asked()} == {200}


def test_plain_http_to_a_tls_port_is_sent_to_https(inner: Registry, redirected: World, room: Path) -> None:
    with mxart(room / "mxart", hub(inner), listen=["127.0.0.1:443"], tls=True, within=redirected.enter) as server:
        base = ["--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}"]
        seen = curl(redirected, *base, "http://registry-1.docker.io:443/v2/", home=room / "home")
        code, _, where = seen.decode().partition(" ")
        assert code in {"301", "307", "308"}
        assert where.startswith("https://registry-1.docker.io")
        followed = curl(redirected, "--location", "http://docker.io:443/v2/", ca=server.ca, home=room / "home")
        assert followed.strip() == b"{}"


def test_a_name_that_nothing_claims_gets_no_certificate(inner: Registry, redirected: World, room: Path) -> None:
    elsewhere = ["--connect-to", "stranger.test:443:127.0.0.1:443"]
    with (
        mxart(room / "mxart", hub(inner), listen=["127.0.0.1:443"], tls=True, within=redirected.enter) as server,
        pytest.raises(AssertionError, match=r"curl: \((35|60)\)"),
    ):
        curl(redirected, *elsewhere, "https://stranger.test/v2/", ca=server.ca, home=room / "home")
