"""What the tests of git share: a server, and copies of its repositories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.git_server import GitHosts, git_hosts
from mxart.config import Upstreams
from mxart.git.clones import Clones
from mxart.git.depot import Depot
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.ways import Ways
from mxart.store.paths import GitPaths
from mxart.upstream.dial import Dialer


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[GitHosts]:
    with git_hosts(tmp_path / "hosts", "git.test", "other.test") as running:
        yield running


@pytest.fixture
def depot(hosts: GitHosts, tmp_path: Path) -> Depot:
    paths = GitPaths(tmp_path / "data")
    paths.create()
    dialer = Dialer(Upstreams(resolve={"git.test": "127.0.0.1", "other.test": "127.0.0.1"}))
    login = Login(("*",), ca_file=str(hosts.ca))
    return Depot("corp", Git(paths.home, silence=10), paths, Logins([login]), Ways(dialer))


@pytest.fixture
def clones(depot: Depot) -> Clones:
    return Clones(depot)
