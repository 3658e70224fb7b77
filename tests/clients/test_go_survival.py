"""What a proxy of modules survives: two hundred go commands at once, a kill at any moment, a tag that moves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kit.go_command import GoCommand, ModuleServer, Refused
from kit.http import get
from kit.modules import Module
from kit.servers import Mxart, mxart, wait_until

_CROWD = 200
_HELD = 20.0  # seconds; we wait for an upstream's first byte for 25
KINDS = ("info", "mod", "zip")
LEAVES = [Module(f"example.com/leaf{n}", f"v1.{n}.0") for n in range(5)]
TOP = Module("example.com/top", "v1.0.0", tuple((leaf.path, leaf.version) for leaf in LEAVES))
GRAPH = (TOP, *LEAVES)


@pytest.fixture
def upstream(room: Path) -> Iterator[ModuleServer]:
    server = ModuleServer(room / "upstream", GRAPH)
    yield server
    server.stop()


def served(upstream: ModuleServer) -> str:
    return f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
path = "/go"
sumdb = "off"
"""


def connections(port: int) -> int:
    """How many are established with a port of ours (proc_net_tcp.txt: 01 is that state)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


def test_two_hundred_go_commands_at_once_on_a_cold_graph_fetch_each_file_once(
    upstream: ModuleServer, room: Path
) -> None:
    """All of them real, each with a module cache of its own; small modules, since 200 unpack them.

    Upstream answers nobody before they all have come: it is cold for every one of them.
    """
    with mxart(room / "mxart", served(upstream), tls=True, workers=2) as server:
        shared = {"GOMAXPROCS": "1", "GOCACHE": str(room / "cache")}  # of what is built, which is nothing
        crowd = [GoCommand(room / f"client{n}", f"{server.url}/go", server.ca, **shared) for n in range(_CROWD)]
        for go in crowd:
            go.requires(TOP)
        with ThreadPoolExecutor(_CROWD) as pool:
            with upstream.held():
                running = [pool.submit(go.download, "all") for go in crowd]
                wait_until(lambda: connections(server.port) >= _CROWD, "everybody has come", _HELD)
            found = [one.result() for one in running]
    expected = {f"{module.path}@{module.version}": (module.mod, module.zip) for module in GRAPH}
    for one in found:
        assert {name: (item.mod, item.zip) for name, item in one.items()} == expected
    assert set(upstream.asked().values()) == {1}


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8, 13])
async def test_killed_between_the_files_of_a_version_what_is_kept_is_right_and_whole(
    upstream: ModuleServer, room: Path, after: int
) -> None:
    """Some clients get the files of versions one by one; the server is killed when so many were answered."""
    answered: list[str] = []
    server = Mxart(room / "mxart", served(upstream), workers=2)

    async def client(mine: list[Module]) -> None:
        for module in mine:
            for kind in KINDS:
                try:
                    got = await get(server.port, f"/go/{module.base}.{kind}")
                except OSError:
                    return
                if got.status == 200:
                    answered.append(f"{module.base}.{kind}")
                if len(answered) == after:
                    server.service.kill()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for first in range(2):
                nursery.start_soon(client, list(GRAPH[first::2]))
    assert after <= len(answered) < len(GRAPH) * len(KINDS)

    with mxart(room / "mxart", served(upstream), workers=2) as again:
        for module in GRAPH:
            kept = {}
            for kind in KINDS:
                got = await get(again.port, f"/go/cached-only/{module.base}.{kind}")
                assert got.status in (200, 404)
                if got.status == 200:
                    kept[kind] = got.body
            assert all(data == getattr(module, kind) for kind, data in kept.items())
            assert "zip" not in kept or len(kept) == len(KINDS)
        go = GoCommand(room / "client", f"{again.url}/go")
        go.requires(TOP)
        found = await trio.to_thread.run_sync(go.download, "all")
        assert {one.zip for one in found.values()} == {module.zip for module in GRAPH}
        upstream.stop()
        other = GoCommand(room / "other", f"{again.url}/go")
        other.requires(TOP)
        assert await trio.to_thread.run_sync(other.download, "all") == found


def test_a_tag_that_moves_between_the_go_mod_and_the_zip_is_told_by_go(upstream: ModuleServer, room: Path) -> None:
    """Where no checksum database vouches for either."""
    name = f"{TOP.path}@{TOP.version}"
    with mxart(room / "mxart", served(upstream)) as server:
        go = GoCommand(room / "client", f"{server.url}/go")
        go.requires(TOP)
        assert f"{LEAVES[0].path}@{LEAVES[0].version}" in go.run("mod", "graph")
        replace(TOP, needs=TOP.needs[:1]).lay_out(upstream.tree)
        with pytest.raises(Refused):  # the first one sees it break off
            go.download(name)
        with pytest.raises(Refused, match=f"502 Bad Gateway.*upstream's zip of {name} holds another go.mod"):
            go.download(name)
