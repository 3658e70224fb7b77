"""The promise itself: machines with addresses and a resolver of their own, clients that nobody configured.

A client's machine trusts our CA and asks our DNS; ours runs with nothing but `--listen :443 --tls`; behind it lies
the Internet of the test: a nameserver, Docker Hub with a certificate of its own authority, its login server.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from kit.clients import Buildah, Client, Ctr, Dockerd, Podman, Skopeo, clean_environment, curl
from kit.network import Host, network
from kit.registry import Images, Registry, running
from kit.servers import Mxart, Service, mxart, nginx, program

_CLIENT, _NEAR = "10.1.0.2", "10.1.0.1"
_FAR, _HUB, _LOGIN = "10.2.0.1", "10.2.0.2", "10.2.0.3"
_NAMES = {
    "registry-1.docker.io": _HUB,
    "index.docker.io": _HUB,
    "docker.io": _HUB,
    "auth.docker.io": _LOGIN,
    "unlisted.example": _LOGIN,
}


@dataclass
class Site:
    """What a test sees of it all."""

    client: Host
    gateway: Host
    hub: Registry
    server: Mxart
    ca: Path  # ours
    far_ca: Path  # the Internet's


@pytest.fixture
def site(filled: Path, room: Path) -> Iterator[Site]:
    authority = trustme.CA()
    far_ca = room / "far-ca.pem"
    authority.cert_pem.write_to_path(str(far_ca))
    issued = authority.issue_cert("registry-1.docker.io", "auth.docker.io", "unlisted.example")
    key, certificate = room / "far.key", room / "far.pem"
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    with network(room / "net") as net, contextlib.ExitStack() as services:
        client, gateway, internet = net.host("client"), net.host("gateway"), net.host("internet")
        net.join({client: f"{_CLIENT}/24", gateway: f"{_NEAR}/24"})
        net.join({gateway: f"{_FAR}/24", internet: f"{_HUB}/24"})
        internet.also(f"{_LOGIN}/24")
        names = [f"--host-record={name},{address}" for name, address in _NAMES.items()]
        dnsmasq = [program("dnsmasq"), "--keep-in-foreground", "--log-facility=-", "--no-hosts", "--no-resolv"]
        dnsmasq += ["--conf-file=/dev/null", "--pid-file", f"--listen-address={_HUB}", "--bind-interfaces", *names]
        resolver = Service("dnsmasq", dnsmasq, room / "dnsmasq", within=internet.enter)
        services.callback(resolver.kill)
        resolver.wait_for_line("started")
        gateway.asks(_HUB)
        client.asks(_NEAR)
        secure = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
        login = nginx(
            room / "login",
            f'server {{ listen {_LOGIN}:443 ssl; {secure} location / {{ return 200 "logged in"; }} }}',
            port=443,
            host=_LOGIN,
            within=internet.enter,
        )
        services.callback(login.kill)
        hub = Registry(filled, room / "hub", inside=internet, address=_HUB, certificate=(certificate, key))
        trusting = clean_environment(room / "home", far_ca)
        with (
            running(hub),
            mxart(room / "mxart", listen=[":443"], tls=True, within=gateway.enter, env=trusting) as server,
        ):
            asked = [sys.executable, "-m", "mxart", "--data", server.data, "--workers", "1", "dns"]
            asked += ["--answer", _NEAR, "--forward", _HUB, "--name", "auth.docker.io"]
            dns = Service("dns", asked, room / "dns", within=gateway.enter, env=trusting)
            services.callback(dns.kill)
            dns.wait_for_line("^mxart dns ready: ")
            yield Site(client, gateway, hub, server, server.ca, far_ca)
            assert dns.stop() == 0


_SHORT = 'unqualified-search-registries = ["docker.io"]\n'


def _make(name: str, folder: Path, site: Site) -> Client:
    match name:
        case "skopeo":
            return Skopeo(folder, site.client, ca=site.ca)
        case "podman":
            return Podman(folder, site.client, ca=site.ca, registries=_SHORT)
        case "buildah":
            return Buildah(folder, site.client, ca=site.ca, registries=_SHORT)
        case "ctr":
            return Ctr(folder, site.client, ca=site.ca)
        case "dockerd":
            return Dockerd(folder, site.client, ca=site.ca)
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("skopeo", ("docker.io/library/tool:1.0", "docker.io/tool:1.0", "tool:1.0", "team/deep/app")),
        ("podman", ("docker.io/library/tool:1.0", "tool:1.0", "docker.io/team/deep/app")),
        ("buildah", ("docker.io/library/tool:1.0", "tool:1.0", "team/deep/app")),
        ("ctr", ("docker.io/library/tool:1.0", "docker.io/team/deep/app:latest")),
        ("dockerd", ("docker.io/library/tool:1.0", "tool:1.0", "team/deep/app")),
    ],
)
def test_a_client_that_nobody_configured_pulls_through_us(
    name: str, references: tuple[str, ...], site: Site, images: Images, room: Path
) -> None:
    client = _make(name, room / name, site)
    try:
        for reference in references:
            wanted = images.nameless if "deep" in reference else images.amd64
            assert client.pull(reference) == wanted.config.digest
        blobs = [asked.path for asked in site.hub.asked() if asked.method == "GET" and "/blobs/" in asked.path]
        assert len(blobs) == len(set(blobs)), "each blob crossed the link once"
        site.hub.stop()
        assert client.pull(references[0]) == images.amd64.config.digest, "the Internet is gone, the image is not"
    finally:
        client.close()
    lines = [json.loads(line) for line in site.server.log().splitlines() if line.startswith("{")]
    seen = {(line.get("client"), line.get("host")) for line in lines if "/manifests/" in str(line.get("path"))}
    assert {host for address, host in seen if address == _CLIENT} == {"registry-1.docker.io"}


def test_a_listed_name_on_the_same_port_goes_through_untouched(site: Site, room: Path) -> None:
    """The client sees the real server's own certificate; ours never comes into play."""
    where = "https://auth.docker.io/token"
    assert curl(site.client, where, ca=site.far_ca, home=room / "home") == b"logged in"
    with pytest.raises(AssertionError, match=r"curl: \(60\)"):
        curl(site.client, where, ca=site.ca, home=room / "home")


def test_a_name_that_is_not_listed_does_not_go_through(site: Site, room: Path) -> None:
    around = ["--connect-to", f"unlisted.example:443:{_NEAR}:443"]
    with pytest.raises(AssertionError, match=r"curl: \((35|60)\)"):
        curl(site.client, *around, "https://unlisted.example/", ca=site.far_ca, home=room / "home")


def test_dns_tells_the_rest_of_the_world_as_it_is(site: Site) -> None:
    def ask(*question: str) -> list[str]:
        return site.client.run(program("dig"), "+short", *question).decode().split()

    assert ask("registry-1.docker.io") == [_NEAR]
    assert ask("unlisted.example") == [_LOGIN]
    assert ask("registry-1.docker.io", "HTTPS") == []
    assert ask("registry-1.docker.io", "AAAA") == []
