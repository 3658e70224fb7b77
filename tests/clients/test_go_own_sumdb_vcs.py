"""Private modules from git are verified by our own checksum database, which outlives what their servers do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.git_server import GitHosts, git_hosts
from kit.go_command import GO_VERSIONS, GoCommand, Refused
from kit.publishers import sumdb_key
from kit.servers import Mxart, mxart

LIBRARY = "corp.test/team/lib"
SOURCE: dict[str, str | bytes | None] = {"go.mod": f"module {LIBRARY}\n\ngo 1.16\n", "lib.go": "package lib\n"}


@pytest.fixture
def hosts(room: Path) -> Iterator[GitHosts]:
    with git_hosts(room / "hosts", "corp.test", "git.test") as running:
        running.site("corp.test").tells(LIBRARY, "https://git.test/lib")
        yield running


def served(hosts: GitHosts) -> str:
    return f"""
[upstreams]
proxy = "{hosts.proxy}"
[repository.corp]
format = "go"
kind = "vcs"
modules = ["corp.test/*"]
negative_ttl = 0
[[repository.corp.login]]
ca_file = "{hosts.ca}"
[repository.own]
format = "go"
kind = "local"
[repository.all]
format = "go"
kind = "group"
members = ["own", "corp"]
path = "/go"
"""


def command(server: Mxart, room: Path, name: str, version: str = "") -> GoCommand:
    key = sumdb_key(server)
    place = f"{key} {server.url}/go/sumdb/{key.partition('+')[0]}"
    return GoCommand(room / name, f"{server.url}/go", version=version, GOSUMDB=place)


@pytest.mark.parametrize("version", GO_VERSIONS)
def test_what_comes_from_git_is_verified_commits_and_branches_too(hosts: GitHosts, room: Path, version: str) -> None:
    lib = hosts.repository("git.test/lib")
    lib.commit(SOURCE, "v1.0.0")
    lib.commit({"more.go": "package lib\n"})
    with mxart(room / "mxart", served(hosts), workers=2) as server:
        go = command(server, room, "first", version)
        (one,) = go.download(f"{LIBRARY}@v1.0.0").values()
        (commit,) = go.download(f"{LIBRARY}@main").values()
        assert commit.version.startswith("v1.0.1-0.")
        hosts.stop()
        again = command(server, room, "again", version).download(f"{LIBRARY}@v1.0.0", f"{LIBRARY}@{commit.version}")
        assert [found.sum for found in again.values()] == [one.sum, commit.sum]


def test_a_tag_that_was_moved_while_nothing_was_kept_is_refused_by_go(hosts: GitHosts, room: Path) -> None:
    """The server was set up anew, but for its log: it cannot know of the first commit, and the log does."""
    lib = hosts.repository("git.test/lib")
    lib.commit(SOURCE, "v1.0.0")
    with mxart(room / "mxart", served(hosts)) as server:
        command(server, room, "first").download(f"{LIBRARY}@v1.0.0")
    lib.commit({"lib.go": "package lib\n\nconst Is = 2\n"}, "v1.0.0")
    (room / "anew" / "data").mkdir(parents=True, mode=0o700)
    shutil.copytree(room / "mxart" / "data" / "sumdb", room / "anew" / "data" / "sumdb")
    with mxart(room / "anew", served(hosts)) as server:
        go = command(server, room, "second")
        with pytest.raises(Refused, match=r"(?s)checksum mismatch.*SECURITY ERROR"):
            go.download(f"{LIBRARY}@v1.0.0")
