"""Searching Docker Hub through an interception: the clients ask index.docker.io by its old API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import Dockerd, Podman, closing, curl
from kit.netns import World
from kit.pulls import hub
from kit.registry import Registry
from kit.servers import Mxart, Service, mxart

_INDEX = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, self.headers.get("Authorization"), flush=True)
        if self.path.startswith("/v1/search"):
            found = {"name": "library/tool", "description": "a tool of the tests", "star_count": 7, "is_official": True,
                     "is_automated": False, "is_trusted": False}
            data = json.dumps({"num_results": 1, "num_pages": 1, "page": 1, "page_size": 25, "query": "tool",
                               "results": [found]}).encode()
            self.send_response(200)
        else:
            data = b'"not here"'
            self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.2", 8071), Handler)
print("the index is ready", flush=True)
server.serve_forever()
"""


@pytest.fixture
def index(room: Path, redirected: World) -> Iterator[Service]:
    """The old API of Docker Hub's index, inside the world where its name leads to us."""
    service = Service("index", [sys.executable, "-c", _INDEX], room / "index", within=redirected.enter)
    try:
        service.wait_for_line("the index is ready")
        yield service
    finally:
        service.kill()


@pytest.fixture
def server(inner: Registry, index: Service, redirected: World, room: Path) -> Iterator[Mxart]:
    config = hub(inner) + 'index = "http://127.0.0.2:8071"\nrelay = "denied"\n'
    with mxart(room / "mxart", config, listen=["127.0.0.1:443"], tls=True, within=redirected.enter) as made:
        yield made


def test_podman_search(server: Mxart, index: Service, redirected: World, room: Path) -> None:
    podman = Podman(room / "podman", redirected, ca=server.ca)
    found = podman.run(*podman._base, "search", "--format", "{{.Name}} {{.Description}}", "docker.io/tool")
    assert found.decode().split("\n")[0] == "docker.io/library/tool a tool of the tests"
    assert "asked /v1/search?n=25&q=tool None" in index.output()


def test_docker_search(server: Mxart, index: Service, redirected: World, room: Path) -> None:
    docker = Dockerd(room / "docker", redirected, ca=server.ca)
    with closing(docker):
        found = docker.run(*docker._base, "search", "--format", "{{.Name}} {{.Description}} {{.StarCount}}", "tool")
        # The engine drops "library/" from what is official.
        assert found.decode().split("\n")[0] in {"tool a tool of the tests 7", "library/tool a tool of the tests 7"}
        assert "asked /v1/search?" in index.output()


def test_what_the_index_does_not_have_is_its_own_404(server: Mxart, redirected: World, room: Path) -> None:
    flags = ["--no-fail", "--write-out", " %{http_code}", "https://index.docker.io/v1/repositories/x/tags"]
    assert curl(redirected, *flags, ca=server.ca, home=room / "home") == b'"not here" 404'


def test_an_index_that_is_gone_is_trouble_and_no_empty_result(
    server: Mxart, index: Service, redirected: World, room: Path
) -> None:
    index.kill()
    podman = Podman(room / "podman", redirected, ca=server.ca)
    with pytest.raises(AssertionError):
        podman.run(*podman._base, "search", "docker.io/tool")
    flags = [
        "--no-fail",
        "--write-out",
        "%{http_code}",
        "--output",
        "/dev/null",
        "https://index.docker.io/v1/search?q=a",
    ]
    assert curl(redirected, *flags, ca=server.ca, home=room / "home") == b"503"
