"""The real go command verifies by this server's own checksum database: modules of its own, and everybody else's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from kit.go_command import GO_VERSIONS, GoCommand, ModuleServer, Refused
from kit.http import Got, get
from kit.modules import GRAPH, TOML, TOOLS, Module
from kit.publishers import Publisher, sumdb_key
from kit.pushes import mxart_command
from kit.servers import Mxart, mxart
from kit.sumdb import Database
from kit.witness import Forked, Witness

APP = GRAPH[1]
OURS = Module("example.com/Team/own", "v1.2.0", ((APP.path, APP.version),), {"big.bin": bytes(range(256)) * 512})
UPSTREAM_SUMS = "sums.example.test"


class World:
    """An upstream with modules and a checksum database of its own."""

    def __init__(self, folder: Path) -> None:
        self.sums = Database(UPSTREAM_SUMS)
        self.sums.fill(40)
        self.sums.knows(*GRAPH)
        self.sums.fill(300)
        self.server = ModuleServer(folder, GRAPH)
        self.sums.lay_out(self.server.tree / "sumdb" / UPSTREAM_SUMS)

    def served(self, more: str = "") -> str:
        return f"""
[repository.go-local]
format = "go"
kind = "local"
[repository.go-proxy]
format = "go"
kind = "proxy"
upstream = "{self.server.url}"
sumdb = "{self.sums.key} {self.server.url}/sumdb/{UPSTREAM_SUMS}"
[repository.go]
format = "go"
kind = "group"
members = ["go-local", "go-proxy"]
publish_to = "go-local"
path = "/go"
{more}
"""


@pytest.fixture
def world(room: Path) -> Iterator[World]:
    made = World(room / "upstream")
    yield made
    made.server.stop()


def gosumdb(server: Mxart) -> str:
    key = sumdb_key(server)
    return f"{key} {server.url}/go/sumdb/{key.partition('+')[0]}"


def command(server: Mxart, room: Path, name: str = "client", version: str = "", **variables: str) -> GoCommand:
    ca = server.ca if server.url.startswith("https") else None
    return GoCommand(room / name, f"{server.url}/go", ca, version=version, **({"GOSUMDB": gosumdb(server)} | variables))


def witness(server: Mxart, key: str = "") -> Witness:
    key = key or sumdb_key(server)

    async def asked(path: str) -> Got:
        return await get(server.port, f"/go/sumdb/{key.partition('+')[0]}/{path}")

    return Witness(key, asked)


@pytest.mark.parametrize(("version", "tls"), [(GO_VERSIONS[0], True), (GO_VERSIONS[1], False), (GO_VERSIONS[-1], True)])
async def test_go_verifies_our_modules_and_everybody_elses_by_our_database(
    world: World, room: Path, version: str, tls: bool
) -> None:
    with mxart(room / "mxart", world.served(), tls=tls, workers=2) as server:
        assert (await Publisher(server).put(OURS)).status == 201
        go = command(server, room, version=version)
        go.requires(OURS)
        found = await trio.to_thread.run_sync(go.download, "all")
        assert found[f"{OURS.path}@{OURS.version}"].zip == OURS.zip
        assert len(found) == 6
        sums = (go.work / "go.sum").read_text()
        assert f"{OURS.path} {OURS.version} h1:" in sums
        world.server.stop()
        key = mxart_command(server, "go", "sumdb").strip()
        again = command(server, room, "again", version=version, GOSUMDB=key)  # GOPROXY says where it is
        again.requires(OURS)
        assert await trio.to_thread.run_sync(again.download, "all") == found
        assert "SECURITY" not in server.log()


async def test_the_checksums_of_what_upstream_knows_cost_no_zip(world: World, room: Path) -> None:
    with mxart(room / "mxart", world.served()) as server:
        text = await witness(server).lookup(TOOLS.path, TOOLS.version)
        assert text == world.sums.log.records[world.sums.log.records.index(text.encode())].decode()
        assert not [path for path in world.server.asked() if path.endswith(".zip")]


async def test_a_module_that_was_tampered_with_is_refused_by_go(world: World, room: Path) -> None:
    """Somebody has put other bytes under the name, past all checks of the server's."""
    other = Module(OURS.path, OURS.version, extra={"backdoor.go": b"package own\n"})
    with mxart(room / "mxart", world.served()) as server:
        assert (await Publisher(server).put(OURS)).status == 201
    with mxart(room / "other", world.served()) as server:
        assert (await Publisher(server).put(other)).status == 201
    shutil.rmtree(room / "other" / "data" / "sumdb")
    shutil.copytree(room / "mxart" / "data" / "sumdb", room / "other" / "data" / "sumdb")
    with mxart(room / "other", world.served()) as server:
        go = command(server, room)
        with pytest.raises(Refused, match=r"(?s)checksum mismatch.*SECURITY ERROR"):
            await trio.to_thread.run_sync(go.download, f"{OURS.path}@{OURS.version}")


async def test_another_log_under_the_same_key_is_noticed_by_go_and_by_a_witness(world: World, room: Path) -> None:
    """A disk was put back, and nobody looked: that is what the program refuses to do (see below)."""
    config = world.served('[go]\nsumdb_name = "sum.example.test"\n')
    with mxart(room / "mxart", config) as server:
        sees, go = witness(server), command(server, room)
        assert (await Publisher(server).put(OURS)).status == 201
        await sees.lookup(OURS.path, OURS.version)
        await trio.to_thread.run_sync(go.download, f"{OURS.path}@{OURS.version}")
        port = server.port
    sumdb = room / "mxart" / "data" / "sumdb"
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm", "sum.example.test.mark"):
        (sumdb / name).unlink(missing_ok=True)
    with mxart(room / "mxart", config, listen=[f"127.0.0.1:{port}"]) as server:
        publisher = Publisher(server)
        assert (await publisher.put(Module(OURS.path, "v1.3.0"))).status == 201
        with pytest.raises(Forked):
            await sees.lookup(OURS.path, "v1.3.0")
        with pytest.raises(Refused, match=r"(?s)SECURITY ERROR|misbehavior"):
            await trio.to_thread.run_sync(go.download, f"{OURS.path}@v1.3.0")


async def test_a_log_that_was_put_back_stops_the_start_and_another_name_heals_it(world: World, room: Path) -> None:
    sumdb = room / "mxart" / "data" / "sumdb"
    with mxart(room / "mxart", world.served()) as server:
        publisher = Publisher(server)
        assert (await publisher.put(OURS)).status == 201
        await witness(server).latest()
    shutil.copy(sumdb / "log.sqlite", room / "backup")
    with mxart(room / "mxart", world.served()) as server:
        assert (await Publisher(server).put(Module(OURS.path, "v1.3.0"))).status == 201
        await witness(server).latest()
    shutil.copy(room / "backup", sumdb / "log.sqlite")
    start = [sys.executable, "-m", "mxart", "--data", str(sumdb.parent), "--config", str(room / "mxart" / "mxart.toml")]
    done = await trio.run_process([*start, "--listen", "127.0.0.1:0"], capture_stderr=True, check=False)
    assert done.returncode == 2
    assert b"has 1 records, and 2 of it were signed" in done.stderr
    assert b"[go] sumdb_name" in done.stderr
    with mxart(room / "mxart", world.served('[go]\nsumdb_name = "sum.second.test"\n')) as server:
        key = mxart_command(server, "go", "sumdb").strip()
        assert key.startswith("sum.second.test+")
        for version in ("v1.2.0", "v1.3.0"):  # the second is measured anew
            assert await witness(server, key).lookup(OURS.path, version)


async def test_what_was_deleted_comes_back_as_it_was_or_not_at_all(world: World, room: Path) -> None:
    with mxart(room / "mxart", world.served(), workers=2) as server:
        publisher, sees = Publisher(server), witness(server)
        assert (await publisher.put(OURS)).status == 201
        text = await sees.lookup(OURS.path, OURS.version)
        gone = await publisher.delete(OURS)
        assert gone.status == 200
        assert b"it can be published again as it was, and never with other content" in gone.body
        assert (await publisher.get(f"{OURS.base}.zip")).status == 404
        assert await sees.lookup(OURS.path, OURS.version) == text
        other = await publisher.put(Module(OURS.path, OURS.version, says="other"))
        assert other.status == 409
        assert b"the checksum database" in other.body
        assert b"publish this as a new version" in other.body
        assert (await publisher.put(OURS)).status == 201
        assert (await publisher.put(OURS)).status == 200
        assert await sees.lookup(OURS.path, OURS.version) == text
        assert await sees.latest() == 1


async def test_nobody_publishes_other_content_of_what_upstream_was_known_to_have(world: World, room: Path) -> None:
    with mxart(room / "mxart", world.served()) as server:
        publisher, sees = Publisher(server), witness(server)
        text = await sees.lookup(TOML.path, TOML.version)
        got = await publisher.put(Module(TOML.path, TOML.version, says="mine"))
        assert got.status == 409
        assert b"in another repository" in got.body
        assert (await publisher.put(TOML)).status == 201  # the very same
        assert await sees.lookup(TOML.path, TOML.version) == text


def test_many_clients_at_once_make_one_tree(world: World, room: Path) -> None:
    with mxart(room / "mxart", world.served(), tls=True, workers=3) as server:
        commands = [command(server, room, f"client{n}") for n in range(6)]
        for go in commands:
            go.requires(APP)
        with ThreadPoolExecutor(len(commands)) as pool:
            found = list(pool.map(lambda go: go.download("all"), commands))
        assert all(one == found[0] for one in found)
        last = command(server, room, "last")
        last.requires(APP)
        assert last.download("all") == found[0]
        mxart_command(server, "go", "sumdb", "--check")
    assert {path: count for path, count in world.server.asked().items() if count > 1 and "/@v/" in path} == {}


_RULES = """
[repository.open]
format = "go"
kind = "group"
members = ["go-proxy"]
path = "/open"
[[permission]]
repository = "go-local"
path = "example.com/Team/**"
groups = ["core"]
actions = ["read"]
"""


async def test_a_look_up_tells_nobody_more_than_he_may_read(world: World, room: Path) -> None:
    with mxart(room / "mxart", world.served(_RULES), tls=True) as server:
        mxart_command(server, "group", "add", "core")
        for user, options in (("ann", ["--group", "core"]), ("bob", [])):
            mxart_command(server, "user", "add", user, "--password-stdin", *options, stdin=f"{user}-and-her-password\n")
        publisher = Publisher(server)
        assert (await publisher.put(OURS)).status == 201
        name = sumdb_key(server).partition("+")[0]
        lookup = f"sumdb/{name}/lookup/example.com/!team/own@v1.2.0"
        assert (await publisher.get(lookup, login=False)).status == 401
        # By a group that does not hold it there is no such thing.
        got = await publisher.get(lookup, login=False, below="/open")
        assert got.status == 404
        assert b"h1:" not in got.body
        tiles = await publisher.get(f"sumdb/{name}/tile/8/data/000.p/1", login=False)
        assert (tiles.status, b"example.com" in tiles.body) == (403, False)
        for path in ("supported", "latest", "tile/8/0/000.p/1"):
            assert (await publisher.get(f"sumdb/{name}/{path}", login=False)).status == 200
        wanted = f"{OURS.path}@{OURS.version}"
        nobody = command(server, room, "nobody")
        with pytest.raises(Refused, match="401 Unauthorized"):
            await trio.to_thread.run_sync(nobody.download, wanted)
        bob = command(server, room, "bob")
        bob.logs_in(server.address, "bob", "bob-and-her-password")
        with pytest.raises(Refused, match="403 Forbidden"):
            await trio.to_thread.run_sync(bob.download, wanted)
        ann = command(server, room, "ann")
        ann.logs_in(server.address, "ann", "ann-and-her-password")
        assert (await trio.to_thread.run_sync(ann.download, wanted))[wanted].zip == OURS.zip


@pytest.mark.parametrize("after", [1, 4, 11, 23])
async def test_after_a_kill_the_log_goes_on_where_it_was(world: World, room: Path, after: int) -> None:
    modules = [Module(OURS.path, f"v1.0.{number}") for number in range(40)]
    public = list(GRAPH)
    done: list[Module] = []
    server = Mxart(room / "mxart", world.served(), workers=2)
    publisher, sees = Publisher(server), witness(server)

    async def work(mine: list[Module], publishes: bool) -> None:
        for module in mine:
            try:
                if publishes and (await publisher.put(module)).status != 201:
                    return
                await sees.lookup(module.path, module.version)
            except (OSError, AssertionError):
                return
            done.append(module)
            if len(done) == after:
                server.service.kill()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for first in range(4):
                nursery.start_soon(work, modules[first::4], True)
            nursery.start_soon(work, public, False)
    assert len(done) >= after
    with mxart(room / "mxart", world.served(), workers=2) as again:
        publisher = Publisher(again)
        sees.get = witness(again).get
        for module in done:
            await sees.lookup(module.path, module.version)
        for module in modules:
            assert (await publisher.put(module)).status in (200, 201)
            await sees.lookup(module.path, module.version)
            assert (await publisher.put(Module(module.path, module.version, says="other"))).status == 409
        size = await sees.latest()
        assert len(modules) <= size <= len(modules) + len(public)
        mxart_command(again, "go", "sumdb", "--check")


async def test_what_setup_prints_is_all_that_a_go_command_needs(world: World, room: Path) -> None:
    """Its lines are taken as a shell of the user's takes them."""
    with mxart(room / "mxart", world.served(), tls=True) as server:
        assert (await Publisher(server).put(OURS)).status == 201
        printed = mxart_command(server, "setup", "go", "--url", server.url)
        lines = "\n".join(line for line in printed.splitlines() if line.startswith("export "))
        shell = ["sh", "-c", f'{lines}\nprintf \'%s\\n\' "$GOPROXY" "$GOSUMDB"']
        told = (await trio.run_process(shell, capture_stdout=True)).stdout.decode().splitlines()
        assert told == [f"{server.url}/go", gosumdb(server)]
        go = GoCommand(room / "client", told[0], server.ca, GOSUMDB=told[1])
        go.requires(OURS)
        assert len(await trio.to_thread.run_sync(go.download, "all")) == 6


def test_the_key_is_there_once_the_server_has_started(room: Path) -> None:
    command = [sys.executable, "-m", "mxart", "--data", str(room / "data"), "go", "sumdb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the server makes its key when it starts" in done.stderr
    assert not (room / "data" / "sumdb").exists()
