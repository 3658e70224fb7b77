"""Docker Hub intercepted by DNS, and its users still log in: at the real auth.docker.io, untouched, on the same port.

Nothing is set on the clients but the CA: the names of Docker Hub lead to us, its token server is a tunnel, and what
Alice may see is asked of Docker Hub with her own token.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from kit.clients import CLIENTS, Client, Ctr, Dockerd, Podman, Skopeo, closing
from kit.netns import World, world
from kit.registry import Images, Registry, running
from kit.servers import Mxart, mxart
from kit.token_server import auth, token_service

PASSWORD = "alices-password"
_CONFIG = """
[upstreams]
resolve = {{ "registry-1.docker.io" = "127.0.0.2", "auth.docker.io" = "127.0.0.3" }}
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["docker.io", "registry-1.docker.io", "index.docker.io"]
ca_file = "{authority}"
relay = "always"
ttl = 0
[[tunnel]]
sni = ["auth.docker.io"]
to = "127.0.0.3:443"
"""


@dataclass(frozen=True)
class Hub:
    """The world, the real registry in it, and us in front of it; `ca` is what its clients trust."""

    here: World
    registry: Registry
    server: Mxart
    ca: Path


@pytest.fixture
def hub(filled: Path, room: Path) -> Iterator[Hub]:
    authority = trustme.CA()
    issued = authority.issue_cert("registry-1.docker.io", "auth.docker.io")
    certificate, key = room / "hub.pem", room / "hub.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(room / "authority.pem"))
    names = ["docker.io", "registry-1.docker.io", "index.docker.io", "auth.docker.io"]
    shutil.copytree(filled, room / "hub-root")
    with (
        world(room / "world", dict.fromkeys(names, "127.0.0.1")) as here,
        token_service(
            room / "tokens",
            {"alice": PASSWORD},
            {"": frozenset({"library/tool"}), "alice": frozenset({"team/app"})},
            address=("127.0.0.3", 443),
            certificate=(certificate, key),
            inside=here,
        ) as bundle,
        running(
            Registry(
                room / "hub-root",
                room / "registry",
                inside=here,
                address="127.0.0.2",
                certificate=(certificate, key),
                auth=auth("https://auth.docker.io/token", bundle),
            )
        ) as registry,
        mxart(
            room / "mxart",
            _CONFIG.format(authority=room / "authority.pem"),
            listen=["127.0.0.1:443"],
            tls=True,
            within=here.enter,
        ) as server,
    ):
        trusted = room / "trusted.pem"
        trusted.write_bytes(server.ca.read_bytes() + (room / "authority.pem").read_bytes())
        yield Hub(here, registry, server, trusted)


def user(name: str, hub: Hub, folder: Path, login: str) -> Client:
    shown = f"{login}:{PASSWORD}"
    options = [f"creds={shown}"] if login else []
    match name:
        case "skopeo":
            return Skopeo(folder, hub.here, ca=hub.ca, options=options)
        case "podman":
            return Podman(folder, hub.here, ca=hub.ca, options=options)
        case "ctr":
            ctr = Ctr(folder, hub.here, ca=hub.ca)
            ctr._flags += ["--user", shown] if login else []
            return ctr
        case _:
            engine = Dockerd(folder, hub.here, ca=hub.ca)
            try:
                if login:
                    engine.run(*engine._base, "login", "--username", login, "--password", PASSWORD)
            except BaseException:
                engine.close()
                raise
            return engine


@pytest.mark.parametrize("name", CLIENTS)
def test_docker_hubs_users_see_their_private_images_and_nobody_else_does(
    name: str, hub: Hub, images: Images, room: Path
) -> None:
    with closing(user(name, hub, room / "alice", "alice")) as alice:
        assert alice.pull("docker.io/team/app:2") == images.docker.config.digest
        assert alice.pull("docker.io/library/tool:1.0") == images.amd64.config.digest
    asked = len(hub.registry.asked())
    with closing(user(name, hub, room / "nobody", "")) as nobody:
        with pytest.raises(AssertionError):
            nobody.pull("docker.io/team/app:2")
        assert nobody.pull("docker.io/library/tool:1.0") == images.amd64.config.digest
    with closing(user(name, hub, room / "again", "alice")) as alice:
        assert alice.pull("docker.io/team/app:2") == images.docker.config.digest
    fetched = [one for one in hub.registry.asked()[asked:] if "/blobs/" in one.path and one.method == "GET"]
    assert fetched == []
