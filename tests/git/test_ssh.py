"""Repositories over ssh: a real sshd, a key, and hosts that have to be known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from kit.git_server import Repository
from kit.ssh_server import SshServer, ssh_server
from mxart.config import Upstreams
from mxart.errors import NotFound, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.git.clones import Clone, Clones
from mxart.git.depot import Depot
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.url import GitUrl
from mxart.git.ways import Ways
from mxart.store.paths import GitPaths
from mxart.upstream.dial import Dialer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path / "ssh") as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "app.git", tmp_path / "work")


@pytest.fixture
def depot(server: SshServer, tmp_path: Path) -> Depot:
    paths = GitPaths(tmp_path / "data")
    paths.create()
    login = Login(("git.test",), key_file=str(server.key), known_hosts_file=str(server.known_hosts))
    ways = Ways(Dialer(Upstreams(resolve={"git.test": "127.0.0.1"})))
    return Depot("corp", Git(paths.home, silence=20), paths, Logins([login]), ways)


def clone_of(depot: Depot, url: str, **changed: str) -> Clone:
    (login,) = depot.logins.all()
    return Clones(replace(depot, logins=Logins([replace(login, **changed)]))).of(GitUrl.parse(url))


async def test_a_repository_is_read_over_ssh(server: SshServer, depot: Depot, repository: Repository) -> None:
    commit = repository.commit({"a": "1", "b/c": "2"}, "v1.0.0")
    clone = clone_of(depot, server.url(repository.folder))
    assert (await clone.references(0)).tags() == {"v1.0.0": commit}
    await clone.obtain(commit, "refs/tags/v1.0.0")
    await clone.history(await clone.references(60))
    assert [entry.path for entry in await clone.files(commit)] == ["a", "b/c"]


async def test_a_key_that_is_not_known_there_is_refused(
    server: SshServer, depot: Depot, repository: Repository
) -> None:
    repository.commit({"a": "1"})
    url = server.url(repository.folder)
    for key in (str(server.stranger), ""):
        with pytest.raises(UpstreamDenied, match=r"look at the login of its host \(.*Permission denied"):
            await clone_of(depot, url, key_file=key).references(0)


async def test_a_host_that_is_not_known_here_gets_no_word(
    server: SshServer, depot: Depot, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a": "1"})
    url = server.url(repository.folder)
    forged = tmp_path / "forged"
    forged.write_text(f"[git.test]:{server.port} {server.stranger.with_suffix('.pub').read_text()}")
    for known in (str(forged), ""):
        with pytest.raises(UpstreamFailed, match="not who it should be"):
            await clone_of(depot, url, known_hosts_file=known).references(0)
    assert "Accepted" not in server.log()


async def test_a_repository_that_is_not_there_and_a_server_that_is_not(
    server: SshServer, depot: Depot, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="there is no such repository"):
        await clone_of(depot, server.url(tmp_path / "nothing")).references(0)
    server.stop()
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        await clone_of(depot, server.url(tmp_path / "nothing")).references(0)


async def test_nobodys_own_settings_count(
    server: SshServer, depot: Depot, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those of the user that runs the server, nor what is in its environment, lead git elsewhere."""
    repository.commit({"a": "1"})
    settings = tmp_path / "gitconfig"
    settings.write_text('[url "file:///"]\n\tinsteadOf = ssh://\n[core]\n\tsshCommand = false\n')
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_CONFIG_SYSTEM": str(settings),
        "GIT_SSH": "false",
        "GIT_SSH_COMMAND": "false",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "SSH_AUTH_SOCK": "/nowhere",
        "GIT_DIR": "/nowhere",
        "GIT_TRACE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert (await clone_of(depot, server.url(repository.folder)).references(0)).head
