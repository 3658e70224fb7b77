"""A real graph of modules: what the ordinary client downloaded is served to us, from its own module cache.

That is laid out as a GOPROXY is.  The client verified all of it by the real checksum database; the sums that it noted
are in one of the tests' own, since a cache holds no more of the real one's tree than its own questions took.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.go_command import GO_VERSIONS, GoCommand, ModuleServer
from kit.go_fill import place, require
from kit.servers import missing, mxart
from kit.sumdb import Database, sum_of

DATABASE = "sums.example.test"
LEAST = 100  # modules that these need, all together


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleServer, Database, dict[str, str]]]:
    """A server of what the ordinary client has got, and the sums that it found."""
    filled = place()
    if not filled.exists():
        missing("no tree of real modules: PYTHONPATH=tests .venv/bin/python -m kit.go_fill")
    database = Database(DATABASE)
    noted: dict[tuple[str, str], dict[str, str]] = {}
    for line in (filled / "go.sum").read_text().splitlines():
        path, version, checksum = line.split()
        noted.setdefault((path, version.removesuffix("/go.mod")), {})[version.rpartition("/")[2]] = checksum
    for (path, version), each in noted.items():
        database.add(path, version, each.get(version, sum_of("never asked for")), each["go.mod"])
    folder = tmp_path_factory.mktemp("real")
    server = ModuleServer(folder / "server", [])
    shutil.copytree(filled / "download", server.tree, dirs_exist_ok=True)
    database.lay_out(server.tree / "sumdb" / DATABASE)
    yield server, database, json.loads((filled / "sums.json").read_text())
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
