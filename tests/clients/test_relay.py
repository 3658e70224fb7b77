"""A caller's own credentials, with real clients and a real registry: private images are for those who may see them.

The upstream is Debian's docker-registry: with a token server, as Docker Hub has, where library/tool is public and
team/app is Alice's; and with passwords at the registry itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import CLIENTS, Client, Ctr, Dockerd, Podman, Skopeo, closing, curl
from kit.netns import World
from kit.registry import Images, Registry, running
from kit.servers import Mxart, mxart
from kit.token_server import TokenServer, token_server

every_client = pytest.mark.parametrize("name", CLIENTS)

PUBLIC, PRIVATE = "library/tool", "team/app"
USERS = {"alice": "alices-password", "bob": "bobs-password"}
# htpasswd -nbB alice alices-password
HTPASSWD = "alice:$2b$04$0mBk0iuXA1ZhzRZWNh4psuCsw5rTBl0KejvmfV2dj/Y2MKz9KsgRe\n"


class User:
    """One user's client, with a home of its own; "" logs in as nobody."""

    def __init__(self, name: str, folder: Path, here: World, server: Mxart, user: str, password: str) -> None:
        shown = f"{user}:{password}"
        options = ["tls-verify=false", *([f"creds={shown}"] if user else [])]
        self.client: Client
        match name:
            case "skopeo":
                self.client = Skopeo(folder, here, options=options)
            case "podman":
                self.client = Podman(folder, here, options=options)
            case "ctr":
                self.client = ctr = Ctr(folder, here)
                ctr._flags += ["--user", shown] if user else []
            case "dockerd":
                self.client = engine = Dockerd(folder, here)
                if user:
                    login = ["login", "--username", user, "--password", password, server.address]
                    try:
                        engine.run(*engine._base, *login)
                    except BaseException:
                        engine.close()
                        raise
            case _:
                raise AssertionError(name)
        self._server = server

    def pull(self, image: str) -> str:
        return self.client.pull(f"{self._server.address}/{image}")

    def fails_to_pull(self, image: str) -> str:
        with pytest.raises(AssertionError) as caught:
            self.pull(image)
        return str(caught.value)


class Site:
    """The server before a guarded registry, and users before the server."""

    def __init__(self, room: Path, here: World, upstream: Registry, relay: str, ttl: int = 0) -> None:
        self.room, self.here, self.upstream = room, here, upstream
        self.config = f"""
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "{upstream.url}"
path = "/"
relay = "{relay}"
ttl = {ttl}
"""
        self._users = 0

    def user(self, name: str, server: Mxart, user: str = "", password: str = "") -> User:
        self._users += 1
        return User(name, self.room / f"user{self._users}", self.here, server, user, password or USERS.get(user, ""))

    def fetched(self) -> list[str]:
        """The blobs that upstream was asked for and gave."""
        return [
            asked.path.rpartition("/")[2]
            for asked in self.upstream.asked()
            if "/blobs/" in asked.path and asked.method == "GET" and asked.status == 200
        ]


@pytest.fixture
def tokens(room: Path) -> Iterator[TokenServer]:
    rights = {"": frozenset({PUBLIC}), "alice": frozenset({PRIVATE})}
    with token_server(room / "tokens", USERS, rights) as server:
        yield server


@pytest.fixture
def guarded(filled: Path, room: Path, tokens: TokenServer) -> Iterator[Registry]:
    shutil.copytree(filled, room / "guarded-root")
    with running(Registry(room / "guarded-root", room / "guarded", auth=tokens.auth)) as registry:
        yield registry


@pytest.fixture
def locked(filled: Path, room: Path) -> Iterator[Registry]:
    """Passwords at the registry itself."""
    shutil.copytree(filled, room / "locked-root")
    (room / "htpasswd").write_text(HTPASSWD)
    auth = f"{{htpasswd: {{realm: kit, path: {room / 'htpasswd'}}}}}"
    with running(Registry(room / "locked-root", room / "locked", auth=auth)) as registry:
        yield registry


@contextlib.contextmanager
def telling(folder: Path, config: str) -> Iterator[Mxart]:
    """A server that logs all it has to say."""
    server = Mxart(folder, config, arguments=["--log-level", "debug"])
    try:
        yield server
    except BaseException:
        sys.stderr.write(f"--- mxart's log ---\n{server.log()[-20000:]}\n")
        server.service.kill()
        raise
    server.stop()


def check_no_secret(server: Mxart, *more: str) -> None:
    log = server.log()
    assert '"level":"debug"' in log
    for secret in (*USERS.values(), *more):
        assert secret not in log
    for line in log.splitlines():
        assert "Bearer ey" not in line
        assert "Basic YW" not in line


@every_client
def test_a_private_image_is_for_those_who_may_see_it_and_a_public_one_for_all(
    name: str, guarded: Registry, images: Images, here: World, room: Path
) -> None:
    # containerd answers a challenge wherever it comes; the others only one at the door.
    site = Site(room, here, guarded, "denied" if name == "ctr" else "always")
    with telling(room / "mxart", site.config) as server:
        nobody = site.user(name, server)
        alice = site.user(name, server, "alice")
        bob = site.user(name, server, "bob")
        with closing(nobody.client), closing(alice.client), closing(bob.client):
            assert nobody.pull(f"{PUBLIC}:1.0") == images.amd64.config.digest
            # As if they spoke to upstream itself.
            assert "unauthorized" in nobody.fails_to_pull(f"{PRIVATE}:2").lower() or name in ("ctr", "dockerd")
            assert alice.pull(f"{PRIVATE}:2") == images.docker.config.digest
            fetched = site.fetched()
            bob.fails_to_pull(f"{PRIVATE}:2")
            nobody.fails_to_pull(f"{PRIVATE}:2")
            assert bob.pull(f"{PUBLIC}:1.0") == images.amd64.config.digest
            assert alice.pull(f"{PRIVATE}:2") == images.docker.config.digest
            assert site.fetched() == fetched  # from here, after upstream's word
            # Upstream gone: what is public goes on, what is private is shown to nobody without a word on him.
            guarded.stop()
            assert nobody.pull(f"{PUBLIC}:1.0") == images.amd64.config.digest
            bob.fails_to_pull(f"{PRIVATE}:2")
            nobody.fails_to_pull(f"{PRIVATE}:2")
        check_no_secret(server)


@every_client
def test_passwords_of_the_registry_itself(name: str, locked: Registry, images: Images, here: World, room: Path) -> None:
    site = Site(room, here, locked, "denied" if name == "ctr" else "always")
    with telling(room / "mxart", site.config) as server:
        alice = site.user(name, server, "alice")
        nobody = site.user(name, server)
        with closing(nobody.client), closing(alice.client):
            nobody.fails_to_pull(f"{PRIVATE}:2")
            assert alice.pull(f"{PRIVATE}:2") == images.docker.config.digest
            nobody.fails_to_pull(f"{PRIVATE}:2")
            if name == "dockerd":
                with pytest.raises(AssertionError, match="401"):
                    site.user(name, server, "alice", "a-wrong-password")
            else:
                mallory = site.user(name, server, "alice", "a-wrong-password")
                with closing(mallory.client):
                    mallory.fails_to_pull(f"{PRIVATE}:2")
        check_no_secret(server, "a-wrong-password")


def test_a_public_image_that_turns_private_is_not_served_from_the_cache(
    guarded: Registry, tokens: TokenServer, here: World, room: Path, images: Images
) -> None:
    site = Site(room, here, guarded, "denied")
    tokens.rights[""] = frozenset({PUBLIC, PRIVATE})
    blob = f"/v2/{PRIVATE}/blobs/{images.docker.config.digest}"
    tag = f"/v2/{PRIVATE}/manifests/2"

    def status(server: Mxart, path: str, *more: str) -> str:
        flags = ["--no-fail", "--output", "/dev/null", "--write-out", "%{http_code}", *more]
        return curl(None, *flags, f"{server.url}{path}", home=room / "home").decode()

    with mxart(room / "mxart", site.config) as server:
        assert (status(server, tag), status(server, blob)) == ("200", "200")
    tokens.rights[""] = frozenset({PUBLIC})
    guarded.stop()  # and with it the tokens that it had taken
    guarded.start()
    with mxart(room / "mxart", site.config) as server:
        assert (status(server, tag), status(server, blob)) == ("401", "401")
    # After a restart, with upstream gone: nobody has said yes again.
    guarded.stop()
    with mxart(room / "mxart", site.config) as server:
        assert status(server, blob) == "503"
    guarded.start()
    with mxart(room / "mxart", site.config, workers=2) as server:
        token = tokens.token("alice", [f"repository:{PRIVATE}:pull"])
        assert status(server, blob, "--header", f"Authorization: Bearer {token}") == "200"
        assert status(server, blob) == "401"


def test_the_challenge_is_upstreams_own(guarded: Registry, tokens: TokenServer, here: World, room: Path) -> None:
    site = Site(room, here, guarded, "always", ttl=300)
    with mxart(room / "mxart", site.config) as server:
        for path, scope in (("/v2/", ""), (f"/v2/{PRIVATE}/manifests/2", f'scope="repository:{PRIVATE}:pull"')):
            head = curl(None, "--no-fail", "--include", f"{server.url}{path}", home=room / "home").decode()
            (line,) = [line for line in head.splitlines() if line.lower().startswith("www-authenticate:")]
            assert f'realm="{tokens.url}"' in line
            assert scope in line
            assert "error" not in line
            assert json.loads(head.split("\r\n\r\n")[1])["errors"][0]["code"] == "UNAUTHORIZED"
