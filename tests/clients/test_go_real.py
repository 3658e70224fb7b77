"""A real graph of modules: what the ordinary client downloaded is served to us, from its own module cache.

That is laid out as a GOPROXY is.  The client verified all of it by the real checksum database; the sums that it noted
are in one of the tests' own, since a cache holds no more of the real one's tree than its own questions took.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.go_command import GO_VERSIONS, GoCommand, ModuleServer
from kit.servers import mxart
from kit.sumdb import Database, sum_of

NEEDS = {
    "github.com/spf13/viper": "v1.19.0",
    "github.com/gin-gonic/gin": "v1.10.0",
    "go.uber.org/zap": "v1.27.0",
    "google.golang.org/grpc": "v1.64.0",
}
DATABASE = "sums.example.test"
LEAST = 100  # modules that these need, all together


def require(go: GoCommand) -> None:
    needs = "".join(f"require {path} {version}\n" for path, version in NEEDS.items())
    (go.work / "go.mod").write_text(f"module example.com/real\n\ngo 1.21\n\n{needs}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleServer, Database, dict[str, str]]]:
    """A server of what the ordinary client has got, and the sums that it found."""
    folder = tmp_path_factory.mktemp("real")
    go = GoCommand(folder / "ordinary", "", GOSUMDB="sum.golang.org")  # by the proxy that is its own default
    require(go)
    sums = {name: one.sum for name, one in go.download("all").items()}
    database = Database(DATABASE)
    noted: dict[tuple[str, str], dict[str, str]] = {}
    for line in (go.work / "go.sum").read_text().splitlines():
        path, version, checksum = line.split()
        noted.setdefault((path, version.removesuffix("/go.mod")), {})[version.rpartition("/")[2]] = checksum
    for (path, version), each in noted.items():
        database.add(path, version, each.get(version, sum_of("never asked for")), each["go.mod"])
    server = ModuleServer(folder / "server", [])
    kept = Path(go.env["GOPATH"]) / "pkg"
    shutil.copytree(kept / "mod" / "cache" / "download", server.tree, dirs_exist_ok=True)
    shutil.rmtree(kept / "mod")
    database.lay_out(server.tree / "sumdb" / DATABASE)
    yield server, database, sums
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize("version", [GO_VERSIONS[0], GO_VERSIONS[-1]])
def test_a_real_graph_is_had_and_verified_by_its_sums_and_each_file_fetched_once(
    world: tuple[ModuleServer, Database, dict[str, str]], room: Path, version: str
) -> None:
    upstream, database, sums = world
    config = f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
sumdb = "{database.key} {upstream.url}/sumdb/{DATABASE}"
path = "/go"
"""
    before = upstream.asked()
    with mxart(room / "mxart", config, tls=True) as server:
        go = GoCommand(room / "client", f"{server.url}/go", server.ca, version=version, GOSUMDB=database.key)
        require(go)
        found = go.download("all")
        assert len(found) >= LEAST
        assert {name: one.sum for name, one in found.items()} == sums
        go.run("mod", "verify")
    asked = upstream.asked() - before
    # A tile is kept when it has proven something; until then another proof may ask for it, too.
    lasting = {path: count for path, count in asked.items() if "/@v/" in path or "/lookup/" in path}
    assert set(lasting.values()) == {1}
    assert len([path for path in asked if path.endswith(".zip")]) == len(sums)
    assert any(path.startswith(f"sumdb/{DATABASE}/tile/") for path in asked)
