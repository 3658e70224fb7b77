"""Logins of real clients: tokens in place of passwords, what a user may not do, and users and tokens that end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import Ctr, Dockerd, Make, Podman, Skopeo, closing
from kit.netns import World
from kit.oras_client import Oras
from kit.pushes import OWN, admin_password, as_folder, mxart_command
from kit.registry import Images
from kit.servers import Mxart, mxart

_PLAIN = ["tls-verify=false"]
_NOT_ALLOWED = r"(?i)denied|unauthorized|forbidden|failed to copy after 5 retries"
_OVER = r"(?i)denied|unauthorized|invalid username/password|401|failed to copy after 5 retries"
_RULES = """
[[permission]]
repository = "own"
path = "secret/**"
groups = ["core"]
actions = ["read", "publish"]
"""


@pytest.fixture
def server(room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", OWN, workers=2) as made:
        yield made


@pytest.fixture
def pushed(server: Mxart, images: Images, here: World, room: Path) -> str:
    """What somebody has pushed before."""
    skopeo = Skopeo(room / "somebody", here, options=_PLAIN)
    skopeo.login(server.address, "admin", admin_password(server))
    target = f"{server.address}/builds/base:1"
    skopeo.copy(as_folder(room / "laid", images.docker.manifest, images.docker), f"docker://{target}")
    return target


def _token(server: Mxart, user: str, *bounds: str) -> str:
    printed = mxart_command(server, "token", "create", "--user", user, "--name", f"of-{user}", *bounds)
    found = re.search(r"mxt_\S+", printed)
    assert found, printed
    return found[0]


def _add(server: Mxart, name: str, *options: str) -> None:
    mxart_command(server, "user", "add", name, "--password-stdin", *options, stdin=f"{name}-and-her-password\n")


@pytest.mark.parametrize("client", ["podman", "ctr", "dockerd"], indirect=True)
def test_a_token_is_a_password_until_it_is_revoked(
    client: Make, server: Mxart, pushed: str, images: Images, here: World, room: Path
) -> None:
    """A robot's, good for one part of one repository; the server runs all the time."""
    mxart_command(server, "user", "add", "ci", "--robot")
    token = _token(server, "ci", "--repository", "own:builds/**")
    pusher = client(here, insecure=True)
    pusher.pull(pushed)
    pusher.login(server.address, "ci", token)
    pusher.push(pushed, f"{server.address}/builds/app:1")
    with pytest.raises(AssertionError, match=_NOT_ALLOWED):
        pusher.push(pushed, f"{server.address}/team/other:1")
    mxart_command(server, "token", "revoke", token.split("_")[1])
    with pytest.raises(AssertionError, match=_OVER):
        pusher.push(pushed, f"{server.address}/builds/app:2")
    if not isinstance(pusher, Ctr):  # which asks nobody at a login
        with pytest.raises(AssertionError, match=_OVER):
            pusher.login(server.address, "ci", token)
    assert Skopeo(room / "anybody", here, options=_PLAIN).tags(f"{server.address}/builds/app") == ["1"]


def test_what_only_a_group_may_see(images: Images, here: World, room: Path) -> None:
    """Who is not logged in, or not of the group, is refused: pulling, pushing, and in docker's own words."""
    with mxart(room / "mxart", OWN + _RULES, workers=2) as server:
        mxart_command(server, "group", "add", "core")
        _add(server, "ann", "--group", "core")
        _add(server, "bob")
        ann, bob, anybody = (Skopeo(room / name, here, options=_PLAIN) for name in ("ann", "bob", "anybody"))
        for name, who in (("ann", ann), ("bob", bob)):
            who.login(server.address, name, f"{name}-and-her-password")
        place = as_folder(room / "laid", images.docker.manifest, images.docker)
        target = f"{server.address}/secret/app:1"
        for stranger in (bob, anybody):
            with pytest.raises(AssertionError, match=_NOT_ALLOWED):
                stranger.copy(place, f"docker://{target}")
        ann.copy(place, f"docker://{target}")
        assert ann.pull(target) == images.docker.config.digest
        for stranger in (bob, anybody):
            with pytest.raises(AssertionError, match=_NOT_ALLOWED):
                stranger.pull(target)
        bob.copy(place, f"docker://{server.address}/open/app:1")
        with closing(Dockerd(room / "docker", here)) as docker:
            with pytest.raises(AssertionError, match=_NOT_ALLOWED):
                docker.pull(target)
            docker.login(server.address, "ann", "ann-and-her-password")
            assert docker.pull(target) == images.docker.config.digest
            docker.login(server.address, "bob", "bob-and-her-password")
            with pytest.raises(AssertionError, match=_NOT_ALLOWED):
                docker.pull(target)
            assert docker.pull(f"{server.address}/open/app:1") == images.docker.config.digest


def test_a_user_who_is_deleted_is_refused_with_what_he_holds(
    server: Mxart, pushed: str, here: World, room: Path
) -> None:
    _add(server, "cat")
    with closing(Podman(room / "podman", here, options=_PLAIN)) as podman:
        podman.pull(pushed)
        podman.login(server.address, "cat", "cat-and-her-password")
        podman.push(pushed, f"{server.address}/team/cats:1")
        mxart_command(server, "user", "delete", "cat")
        with pytest.raises(AssertionError, match=_OVER):
            podman.push(pushed, f"{server.address}/team/cats:2")


def test_oras_with_a_token(server: Mxart, here: World, room: Path) -> None:
    oras = Oras(room / "oras", here)
    oras.login(server.address, "admin", _token(server, "admin", "--action", "publish", "--action", "read"))
    oras.push(f"{server.address}/team/files:1", {"file": b"by a token"})
    assert oras.pull(f"{server.address}/team/files:1") == {"file": b"by a token"}
    with pytest.raises(AssertionError):
        oras.delete(f"{server.address}/team/files", "1")
    assert oras.tags(f"{server.address}/team/files") == ["1"]
