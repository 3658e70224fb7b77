"""The real go command verifies modules by a checksum database that it reaches through a proxy.

The database is the tests' own (kit.sumdb), laid out as files; it stands in for sum.golang.org.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.go_command import GoCommand, ModuleServer, Refused
from kit.modules import COMMIT, GRAPH, OLD, TOML, TOOLS, Module
from kit.servers import Mxart, mxart
from kit.sumdb import Database

APP = GRAPH[1]
NEEDED = (APP, TOOLS, TOML, COMMIT, OLD)
SECRET = Module("corp.example.test/Secret", "v1.0.0")
NAME = "sums.example.test"


class Sums:
    """A database and the server of its files, below /sumdb/NAME as a GOPROXY passes it on."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(NAME)
        self.database.fill(300)
        self.database.knows(*GRAPH)
        self.database.fill(500)
        self.server = ModuleServer(folder, [])
        self.publish()

    def publish(self) -> None:
        shutil.rmtree(self.server.tree / "sumdb", ignore_errors=True)
        self.database.lay_out(self.server.tree / "sumdb" / NAME)

    @property
    def key(self) -> str:
        return self.database.key

    @property
    def url(self) -> str:
        return f"{self.server.url}/sumdb/{NAME}"


@pytest.fixture
def sums(room: Path) -> Iterator[Sums]:
    made = Sums(room / "sums")
    yield made
    made.server.stop()


@pytest.fixture
def upstream(room: Path) -> Iterator[ModuleServer]:
    server = ModuleServer(room / "upstream", (*GRAPH, SECRET))
    yield server
    server.stop()


def configured(upstream: ModuleServer, sums: Sums) -> str:
    return f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
sumdb = "{sums.key} {sums.url}"
private = ["corp.example.test"]
path = "/go"
ttl = 0
negative_ttl = 0
"""


@pytest.fixture(params=["http1", "http2"])
def server(request: pytest.FixtureRequest, upstream: ModuleServer, sums: Sums, room: Path) -> Iterator[Mxart]:
    """cmd/go speaks HTTP/1.1 in plain text, and HTTP/2 over TLS."""
    with mxart(room / "mxart", configured(upstream, sums), tls=request.param == "http2", workers=2) as running:
        yield running


def command(server: Mxart, room: Path, sums: Sums, name: str = "client", **variables: str) -> GoCommand:
    ca = server.ca if server.url.startswith("https") else None
    return GoCommand(room / name, f"{server.url}/go", ca, **({"GOSUMDB": sums.key} | variables))


def test_go_verifies_a_graph_through_the_proxy_and_later_without_anybody(
    server: Mxart, upstream: ModuleServer, sums: Sums, room: Path
) -> None:
    """By files that were proven and kept; a second client starts from nothing, with upstream and database gone."""
    go = command(server, room, sums)
    go.requires(APP)
    found = go.download("all")
    assert {one.zip for one in found.values()} == {module.zip for module in NEEDED}
    asked = sums.server.asked()
    assert asked[f"sumdb/{NAME}/lookup/example.com/!burnt!wood/!toml@v1.2.0"] >= 1
    assert not any(path.endswith("supported") for path in asked)
    sums.server.stop()
    upstream.stop()
    again = command(server, room, sums, "again")
    again.requires(APP)
    assert again.download("all") == found


def test_go_takes_the_proxy_by_its_url_for_the_database(server: Mxart, sums: Sums, room: Path) -> None:
    go = command(server, room, sums, GOSUMDB=f"{sums.key} {server.url}/go/sumdb/{NAME}")
    assert go.download(f"{TOML.path}@{TOML.version}")


def test_go_follows_a_database_that_grows(server: Mxart, upstream: ModuleServer, sums: Sums, room: Path) -> None:
    go = command(server, room, sums)
    go.download(f"{TOML.path}@{TOML.version}")
    newer = Module(TOML.path, "v1.3.0")
    newer.lay_out(upstream.tree)
    sums.database.knows(newer)
    sums.database.fill(2000)
    sums.publish()
    assert go.download(f"{TOML.path}@v1.3.0")
    assert command(server, room, sums, "another").download(f"{TOML.path}@v1.3.0", f"{TOOLS.path}@{TOOLS.version}")


def test_a_zip_that_was_changed_upstream_reaches_nobody(
    server: Mxart, upstream: ModuleServer, sums: Sums, room: Path
) -> None:
    """Even clients that verify nothing do not get it."""
    changed = Module(TOML.path, TOML.version, extra={"backdoor.go": b"package toml\n"})
    upstream.file(TOML, "zip").write_bytes(changed.zip)
    go = command(server, room, sums, GOSUMDB="off")
    name = f"{TOML.path}@{TOML.version}"
    with pytest.raises(Refused):  # the first one sees it break off
        go.download(name)
    with pytest.raises(
        Refused, match=f"502 Bad Gateway.*SECURITY: upstream's zip of {name} is not the one that {NAME}"
    ):
        go.download(name)
    assert "SECURITY: upstream's zip of" in server.log()


def test_a_database_that_contradicts_itself_is_told_by_go_and_in_the_log(server: Mxart, sums: Sums, room: Path) -> None:
    command(server, room, sums).download(f"{TOML.path}@{TOML.version}")
    other = Database(NAME, sums.database.signer)
    other.fill(299)
    other.knows(*GRAPH)
    other.fill(900)
    sums.database = other
    sums.publish()
    with pytest.raises(Refused, match=r"502 Bad Gateway.*\n?.*SECURITY: the checksum database .* contradicts itself"):
        command(server, room, sums, "second").download(f"{TOOLS.path}@{TOOLS.version}")
    assert "SECURITY: the checksum database sums.example.test has forked" in server.log()


def test_private_modules_need_the_setting_that_go_is_told(server: Mxart, sums: Sums, room: Path) -> None:
    name = f"{SECRET.path}@{SECRET.version}"
    with pytest.raises(Refused, match=r"(?s)403 Forbidden.*set GONOSUMDB=corp\.example\.test "):
        command(server, room, sums).download(name)
    go = command(server, room, sums, "told", GONOSUMDB="corp.example.test")
    assert go.download(name)[name].zip == SECRET.zip
    assert not any("secret" in path.lower() for path in sums.server.asked())


def test_a_mirror_passes_the_database_of_another_on(upstream: ModuleServer, sums: Sums, room: Path) -> None:
    """Two of us in a row: the second finds the database at the first, as a client would."""
    first = configured(upstream, sums)
    with mxart(room / "first", first) as one:
        second = f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{one.url}/go"
sumdb = "{sums.key}"
path = "/go"
"""
        with mxart(room / "second", second) as two:
            go = command(two, room, sums)
            go.requires(APP)
            assert len(go.download("all")) == len(NEEDED)
