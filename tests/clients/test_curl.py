"""curl and h2load over HTTP/1.1 and HTTP/2: the bytes, the ranges, and every way to name a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import curl
from kit.netns import World
from kit.pulls import hub
from kit.registry import OCI_INDEX, Images, Registry
from kit.servers import Mxart, mxart

versions = pytest.mark.parametrize("version", ["--http1.1", "--http2"])


@pytest.fixture
def plain(upstream: Registry, room: Path) -> Iterator[Mxart]:
    with mxart(room / "plain", hub(upstream)) as server:
        yield server


@pytest.fixture
def secure(upstream: Registry, room: Path) -> Iterator[Mxart]:
    with mxart(room / "secure", hub(upstream), tls=True, workers=2) as server:
        yield server


class Curl:
    """curl against one server, as the host that it takes us for."""

    def __init__(self, server: Mxart, home: Path, host: str = "registry-1.docker.io") -> None:
        self.base = f"{server.url.partition(':')[0]}://{host}:{server.port}"
        self._flags = ["--resolve", f"{host}:{server.port}:127.0.0.1"]
        self._home = home
        self._ca = server.ca if server.url.startswith("https") else None

    def get(self, path: str, *options: str) -> bytes:
        return curl(None, *self._flags, *options, self.base + path, ca=self._ca, home=self._home)

    def told(self, path: str, variables: str, *options: str) -> str:
        """What curl says of the answer; an error status is told, not raised."""
        flags = ["--no-fail", "--output", "/dev/null", "--write-out", variables]
        return self.get(path, *flags, *options).decode()


@versions
def test_a_pull_over_tls_is_byte_exact(secure: Mxart, images: Images, room: Path, version: str) -> None:
    ask = Curl(secure, room / "home")
    spoken = "2" if version == "--http2" else "1.1"
    assert ask.told("/v2/", "%{http_version} %{http_code}", version) == f"{spoken} 200"
    for _ in ("cold", "warm"):
        assert ask.get("/v2/library/tool/manifests/1.0", version) == images.index.data
        for image in (images.amd64, images.arm64):
            path = f"/v2/library/tool/manifests/{image.manifest.digest}"
            assert ask.get(path, version) == image.manifest.data
            for blob in image.blobs:
                assert ask.get(f"/v2/library/tool/blobs/{blob.digest}", version) == blob.data


@versions
def test_head_tells_what_get_would_send(secure: Mxart, images: Images, room: Path, version: str) -> None:
    ask = Curl(secure, room / "home")
    told = "%{http_code} %{content_type} %header{content-length} %header{docker-content-digest}"
    expected = f"200 {OCI_INDEX} {len(images.index.data)} {images.index.digest}"
    assert ask.told("/v2/library/tool/manifests/1.0", told, "--head", version) == expected
    assert ask.told("/v2/library/tool/manifests/1.0", told, version) == expected
    layer = images.amd64.layers[1]
    head = ask.told(f"/v2/library/tool/blobs/{layer.digest}", "%{http_code} %header{content-length}", "--head", version)
    assert head == f"200 {len(layer.data)}"


@versions
def test_ranges_of_a_blob(secure: Mxart, images: Images, room: Path, version: str) -> None:
    ask = Curl(secure, room / "home")
    layer = images.amd64.layers[1]
    path = f"/v2/library/tool/blobs/{layer.digest}"
    size = len(layer.data)
    for _ in ("cold", "warm"):
        assert ask.get(path, version, "--range", "1000000-1999999") == layer.data[1000000:2000000]
        assert ask.get(path, version, "--range", f"{size - 5}-") == layer.data[-5:]
        assert ask.get(path, version, "--range", "-100") == layer.data[-100:]
        ask.get(path, version)  # whole, so that the second round is warm
    assert ask.told(path, "%{http_code}", version, "--range", f"{size}-") == "416"
    several = ask.get(path, version, "--range", "0-9,100-109")
    assert layer.data[:10] in several
    assert layer.data[100:110] in several


@versions
def test_a_client_that_has_it_gets_304(secure: Mxart, room: Path, version: str) -> None:
    ask = Curl(secure, room / "home")
    path = "/v2/library/tool/manifests/1.0"
    etag = ask.told(path, "%header{etag}", version)
    assert etag.startswith('"')
    assert ask.told(path, "%{http_code} %{size_download}", version, "-H", f"If-None-Match: {etag}") == "304 0"


def test_the_repository_is_found_by_host_by_ns_and_by_path(plain: Mxart, images: Images, room: Path) -> None:
    by_host = Curl(plain, room / "home")
    assert by_host.get("/v2/library/tool/manifests/1.0") == images.index.data
    by_address = Curl(plain, room / "home", "localhost")
    assert by_address.get("/v2/library/tool/manifests/1.0?ns=docker.io") == images.index.data
    assert by_address.get("/v2/docker.io/library/tool/manifests/1.0") == images.index.data
    assert by_address.get("/v2/docker.io/tool/manifests/1.0") == images.index.data  # library/ is added
    assert by_address.told("/v2/library/tool/manifests/1.0?ns=gcr.io", "%{http_code}") == "404"
    assert by_address.told("/v2/library/tool/manifests/1.0", "%{http_code}") == "404"


def test_a_tags_list_is_paged(plain: Mxart, upstream: Registry, images: Images, room: Path) -> None:
    for name in ("1", "3", "4"):
        upstream.tag("team/app", name, images.docker.manifest)
    ask = Curl(plain, room / "home")
    seen, path = [], "/v2/team/app/tags/list?n=3"
    while path:
        seen += re.findall(r'"(\d)"', ask.get(path).decode())
        link = ask.told(path, "%header{link}")
        path = link.partition(">")[0].lstrip("<")
    assert seen == ["1", "2", "3", "4"]


def test_the_servers_own_pages(plain: Mxart, room: Path) -> None:
    ask = Curl(plain, room / "home", "localhost")
    assert ask.told("/-/health", "%{http_code}") == "200"
    assert ask.told("/-/ready", "%{http_code}") == "200"
    ask.told("/v2/docker.io/library/tool/manifests/1.0", "%{http_code}")
    assert b"# TYPE" in ask.get("/-/metrics")
    assert b"BEGIN CERTIFICATE" in ask.get("/-/ca.pem")


def test_h2load_gets_every_answer(secure: Mxart, images: Images, here: World) -> None:
    """Many streams on few connections, cold at first: all of them the whole thing."""
    target = f"https://registry-1.docker.io:{secure.port}/v2/library/tool"
    base = ["h2load", f"--connect-to=127.0.0.1:{secure.port}", "--clients=4", "--max-concurrent-streams=10"]
    layer = images.amd64.layers[1]
    for path, requests, size in (
        ("manifests/1.0", 400, len(images.index.data)),
        (f"blobs/{layer.digest}", 40, len(layer.data)),
    ):
        report = here.run(*base, f"--requests={requests}", f"{target}/{path}").decode()
        assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in report, report
        assert f"status codes: {requests} 2xx" in report, report
        traffic = re.search(r"\((\d+)\) data", report)
        assert traffic is not None
        assert int(traffic[1]) == requests * size, report
        assert "Application protocol: h2" in report
