"""An air-gapped site: auth.docker.io is answered here; scripts and clients that ask it for a token go on as ever."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import Dockerd, Podman, Skopeo, closing, curl
from kit.netns import World, world
from kit.registry import Images, Registry, running
from kit.servers import Mxart, Service, mxart

CONFIG = """
[upstreams]
resolve = {{ "registry-1.docker.io" = "127.0.0.2" }}
[token_server]
hosts = ["auth.docker.io"]
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["docker.io", "registry-1.docker.io", "index.docker.io"]
ca_file = "{ca}"
relay = "denied"
"""
REALM = "https://auth.docker.io/token?service=registry.docker.io"
TAG = "https://registry-1.docker.io/v2/library/tool/manifests/1.0"
HUB = "docker.io/library/tool:1.0"


@pytest.fixture
def closed(room: Path) -> Iterator[World]:
    """Nothing but loopback; Docker Hub's names are ours, the token server's among them."""
    names = ["docker.io", "registry-1.docker.io", "index.docker.io", "auth.docker.io"]
    with world(room / "closed", dict.fromkeys(names, "127.0.0.1")) as made:
        yield made


@pytest.fixture
def server(filled: Path, closed: World, room: Path, certified: tuple[Path, Path, Path]) -> Iterator[Mxart]:
    """In front of a real registry that has Docker Hub's name, and another address."""
    ca, certificate, key = certified
    real = Registry(filled, room / "upstream", inside=closed, address="127.0.0.2", certificate=(certificate, key))
    config = CONFIG.format(ca=ca)
    with (
        running(real),
        mxart(room / "mxart", config, listen=["127.0.0.1:443"], tls=True, workers=2, within=closed.enter) as made,
    ):
        yield made


def test_a_script_fetches_a_token_and_then_the_manifest(
    server: Mxart, images: Images, closed: World, room: Path
) -> None:
    def ask(*arguments: str) -> bytes:
        return curl(closed, *arguments, ca=server.ca, home=room / "home")

    answer = json.loads(ask(f"{REALM}&scope=repository:library/tool:pull"))
    assert answer["expires_in"] >= 60
    for _ in range(6):  # by whichever worker
        bearer = f"Authorization: Bearer {answer['token']}"
        assert ask("--header", bearer, "--header", "Accept: */*", TAG) == images.index.data
    form = ["--data", "grant_type=password&client_id=x&service=registry.docker.io&scope=repository:library/tool:pull"]
    posted = json.loads(ask(*form, "https://auth.docker.io/token"))
    assert ask("--header", f"Authorization: Bearer {posted['access_token']}", TAG) == images.index.data
    forged = answer["token"][:-6] + "AAAAAA"
    code = ["--no-fail", "--output", "/dev/null", "--write-out", "%{http_code} %header{www-authenticate}"]
    told = ask(*code, "--header", f"Authorization: Bearer {forged}", TAG).decode()
    assert told.startswith('401 Bearer realm="https://auth.docker.io/token"')


def test_skopeo_with_a_token_of_ours_and_podman_without(
    server: Mxart, images: Images, closed: World, room: Path
) -> None:
    answer = json.loads(curl(closed, f"{REALM}&scope=repository:library/tool:pull", ca=server.ca, home=room / "home"))
    skopeo = Skopeo(room / "skopeo", closed, ca=server.ca, options=[f"registry-token={answer['token']}"])
    assert skopeo.pull(HUB) == images.amd64.config.digest
    with closing(Podman(room / "podman", closed, ca=server.ca)) as podman:
        assert podman.pull(HUB) == images.amd64.config.digest


def test_a_password_of_nobody_here_is_told_what_to_do(server: Mxart, closed: World, room: Path) -> None:
    code = ["--no-fail", "--user", "me:secret", "--write-out", "\n%{http_code}"]
    body, _, status = curl(closed, *code, REALM, ca=server.ca, home=room / "home").decode().rpartition("\n")
    assert status == "401"
    assert "docker logout" in json.loads(body)["details"]


UPSTREAM = """
import http.server
class Asks(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        realm = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
        self.send_header("WWW-Authenticate", realm)
        self.send_header("Content-Length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Asks)
print("listening", flush=True)
server.serve_forever()
"""


def test_docker_login_says_why_it_is_refused(closed: World, room: Path) -> None:
    """Where the registry asks for a login at its door, as the real one does, docker and skopeo show our words."""
    (room / "upstream.py").write_text(UPSTREAM)
    upstream = Service("asks", [sys.executable, room / "upstream.py"], room, within=closed.enter)
    config = CONFIG.format(ca="").replace('"denied"', '"always"').replace("127.0.0.2", "127.0.0.1")
    config = config.replace(
        'upstream = "https://registry-1.docker.io"', 'upstream = "http://registry-1.docker.io:5000"'
    )
    try:
        upstream.wait_for_line("listening")
        with mxart(room / "mxart", config, listen=["127.0.0.1:443"], tls=True, within=closed.enter) as server:
            skopeo = Skopeo(room / "skopeo", closed, ca=server.ca, options=["creds=me:secret"])
            with pytest.raises(AssertionError, match=r"unauthorized: wrong user name or password.*docker logout"):
                skopeo.pull(HUB)
            with (
                closing(Dockerd(room / "dockerd", closed, ca=server.ca)) as engine,
                pytest.raises(AssertionError, match=r"unauthorized: wrong user name or password.*docker logout"),
            ):
                engine.run(*engine._base, "login", "--username", "me", "--password", "secret")
    finally:
        upstream.kill()


def test_the_key_survives_a_restart_and_so_do_tokens(server: Mxart, images: Images, closed: World, room: Path) -> None:
    def token() -> str:
        return str(json.loads(curl(closed, REALM, ca=server.ca, home=room / "home"))["token"])

    before = token()
    server.service.stop()
    with mxart(
        room / "mxart",
        (room / "mxart" / "mxart.toml").read_text(),
        listen=["127.0.0.1:443"],
        tls=True,
        within=closed.enter,
    ) as again:
        bearer = ["--header", f"Authorization: Bearer {before}", "--header", "Accept: */*"]
        assert curl(closed, *bearer, TAG, ca=again.ca, home=room / "home") == images.index.data
        assert token()
