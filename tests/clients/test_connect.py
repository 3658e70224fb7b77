"""Clients whose only setting is a proxy variable: they have no address for any registry, and pull all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kit.clients import Client, Ctr, Dockerd, Podman, Skopeo, clean_environment, curl
from kit.netns import World, world
from kit.pulls import check_three_pulls, hub
from kit.registry import Images, Registry, running
from kit.servers import Mxart, mxart, program, wait_until

_HTTP, _HTTPS = 8080, 8443
_CONFIG = """
[tls]
names = ["proxy.test"]
[[tunnel]]
sni = ["passed.test"]
to = "127.0.0.2:443"
"""


@pytest.fixture
def office(room: Path) -> Iterator[World]:
    """Nothing has an address but the proxy."""
    with world(room / "office", {"proxy.test": "127.0.0.1"}) as made:
        yield made


@pytest.fixture
def remote(filled: Path, room: Path, office: World) -> Iterator[Registry]:
    with running(Registry(_copy(filled, room / "remote-root"), room / "remote", inside=office)) as registry:
        yield registry


@pytest.fixture(params=["http", "https"])
def proxy(request: pytest.FixtureRequest, remote: Registry, office: World, room: Path) -> Iterator[str]:
    """The server, as what a proxy variable says."""
    tls = request.param == "https"
    port = _HTTPS if tls else _HTTP
    with _serving(remote, office, room, port, tls=tls):
        yield f"{request.param}://proxy.test:{port}"


def _copy(filled: Path, to: Path) -> Path:
    subprocess.run(["/bin/cp", "-r", str(filled), str(to)], check=True)
    return to


def _serving(remote: Registry, office: World, room: Path, port: int, *, tls: bool) -> AbstractContextManager[Mxart]:
    listen = [f"127.0.0.1:{port}"]
    return mxart(room / "mxart", hub(remote) + _CONFIG, listen=listen, tls=tls, within=office.enter)


def _ca(room: Path) -> Path:
    return room / "mxart" / "data" / "ca" / "ca.pem"


@pytest.mark.parametrize("name", ["skopeo", "podman", "ctr", "dockerd"])
def test_docker_hub_is_pulled_through_the_proxy_and_kept(
    name: str, proxy: str, remote: Registry, images: Images, office: World, room: Path
) -> None:
    client = _client(name, proxy, office, room)
    try:
        check_three_pulls(client, remote, "docker.io/library/tool:1.0", images.amd64)
    finally:
        client.close()


def _client(name: str, proxy: str, office: World, room: Path) -> Client:
    variable = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
    folder, ca = room / name, _ca(room)
    match name:
        case "skopeo":
            skopeo = Skopeo(folder, office, ca=ca)
            skopeo.env |= variable
            return skopeo
        case "podman":
            podman = Podman(folder, office, ca=ca)
            podman.env |= variable
            return podman
        case "ctr":
            return Ctr(folder, office, ca=ca, env=variable)
        case _:
            return Dockerd(folder, office, ca=ca, env=variable)


def test_a_listed_name_is_passed_through_untouched(
    proxy: str, filled: Path, images: Images, office: World, room: Path, certified: tuple[Path, Path, Path]
) -> None:
    """The certificate that the client checks is the registry's own."""
    authority, certificate, key = certified
    place = _copy(filled, room / "passed-root")
    real = Registry(place, room / "passed", inside=office, address="127.0.0.2", certificate=(certificate, key))
    both = room / "both.pem"
    both.write_bytes(authority.read_bytes() + _ca(room).read_bytes())
    with running(real):
        skopeo = Skopeo(room / "skopeo", office, ca=both)
        skopeo.env["HTTPS_PROXY"] = proxy
        assert skopeo.pull_all("passed.test/library/tool:1.0") == images.index.data


def test_anything_else_is_refused_and_the_user_reads_why(proxy: str, office: World, room: Path) -> None:
    skopeo = Skopeo(room / "skopeo", office, ca=_ca(room))
    skopeo.env["HTTPS_PROXY"] = proxy
    with pytest.raises(AssertionError, match=r"evil\.test:443 is not allowed here: served are"):
        skopeo.inspect("evil.test/library/tool:1.0")
    done = subprocess.run(
        [*office.enter, program("curl"), "--include", "--proxy-cacert", _ca(room), "-x", proxy, "https://evil.test/"],
        env=clean_environment(room / "home"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 56, done.stderr
    assert done.stdout.startswith(b"HTTP/1.1 403 CONNECT evil.test:443 is not allowed here: served are")
    log = room / "mxart" / "mxart.err"
    wait_until(lambda: '"path":"evil.test:443"' in log.read_text(), "a line in the log")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_by_connect_and_by_whole_urls(version: str, proxy: str, images: Images, office: World, room: Path) -> None:
    manifest = f"//registry-1.docker.io/v2/library/tool/manifests/{images.amd64.manifest.digest}"
    layer = images.amd64.layers[1]
    blob = f"//registry-1.docker.io/v2/library/tool/blobs/{layer.digest}"
    flags = ["--noproxy", "", "--proxy", proxy, "--proxy-cacert", _ca(room), version]
    for path, data in ((manifest, images.amd64.manifest.data), (blob, layer.data), (blob, layer.data)):
        for url, more in ((f"https:{path}", ()), (f"http:{path}", ()), (f"http:{path}", ("--proxytunnel",))):
            assert curl(office, *flags, *more, url, ca=_ca(room), home=room / "home") == data
