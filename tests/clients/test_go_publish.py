"""What is published is downloaded by the real go command, beside what an upstream has; and it outlives any kill."""

from __future__ import annotations

import base64
import json
import random
import sys
from pathlib import Path

import pytest
import trio

from kit.go_command import GoCommand, ModuleServer
from kit.http import Got, get, head, parse
from kit.modules import COMMIT, OLD, TOML, TOOLS, Module
from kit.servers import Mxart, mxart

OURS = Module(
    "example.com/Team/app",
    "v1.2.0",
    tuple((module.path, module.version) for module in (TOML, TOOLS, COMMIT, OLD)),
    {"big.bin": bytes(range(256)) * 4096},
)
EVERY_STEP = 60


def served(upstream: str = "http://127.0.0.1:9", quota: str = "") -> str:
    limit = f'quota = "{quota}"' if quota else ""
    return f"""
[repository.go-local]
format = "go"
kind = "local"
{limit}
[repository.go-proxy]
format = "go"
kind = "proxy"
upstream = "{upstream}"
sumdb = "off"
[repository.go]
format = "go"
kind = "group"
members = ["go-local", "go-proxy"]
publish_to = "go-local"
path = "/go"
"""


class Publisher:
    """Whoever may do everything, by `/go`."""

    def __init__(self, server: Mxart) -> None:
        self.port = server.port
        password = (server.data / "admin-password").read_text().strip()
        self.login = {"authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}

    async def put(self, module: Module, data: bytes | None = None) -> Got:
        body = module.zip if data is None else data
        return await get(self.port, f"/go/{module.base}.zip", method="PUT", headers=self.login, body=body)

    async def get(self, path: str) -> Got:
        return await get(self.port, f"/go/{path}")


async def test_what_is_published_is_downloaded_beside_what_an_upstream_has(room: Path) -> None:
    upstream = ModuleServer(room / "upstream", (TOML, TOOLS, COMMIT, OLD))
    try:
        with mxart(room / "mxart", served(upstream.url), workers=2) as server:
            publisher = Publisher(server)
            got = await publisher.put(OURS)
            assert got.status == 201, got
            go = GoCommand(room / "go", f"{server.url}/go", GOSUMDB="sum.golang.org", GONOSUMDB="example.com")
            go.requires(OURS)
            found = go.download("all")
            ours = found[f"{OURS.path}@{OURS.version}"]
            assert (ours.zip, ours.mod, len(found)) == (OURS.zip, OURS.mod, 5)
            assert ours.sum in got.body.decode()
            assert json.loads(ours.info)["Version"] == OURS.version
            go.run("mod", "verify")
            assert go.run("list", "-m", f"{OURS.path}@latest") == f"{OURS.path} {OURS.version}\n"
            for version in ("v1.3.0", "v1.4.0-rc.1"):
                assert (await publisher.put(Module(OURS.path, version))).status == 201
            assert go.run("list", "-m", "-versions", OURS.path) == f"{OURS.path} v1.2.0 v1.3.0 v1.4.0-rc.1\n"
            assert not [path for path in upstream.asked() if "!team" in path]
    finally:
        upstream.stop()


async def test_two_workers_take_a_version_once(room: Path) -> None:
    with mxart(room, served(), workers=2) as server:
        publisher = Publisher(server)
        for number in range(5):
            answers: list[int] = []

            async def publish(module: Module, answers: list[int] = answers) -> None:
                answers.append((await publisher.put(module)).status)

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for says in ("one", "one", "two", "two"):
                        nursery.start_soon(publish, Module(OURS.path, f"v1.0.{number}", says=says))
            assert sorted(answers) == [200, 201, 409, 409]


async def test_whoever_may_not_publish_sends_nothing(room: Path) -> None:
    with mxart(room, served()) as server:
        publisher = Publisher(server)
        for login, status in (({}, 401), (publisher.login, 100)):
            fields = {**login, "content-length": str(len(OURS.zip)), "expect": "100-continue"}
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(head(f"/go/{OURS.base}.zip", method="PUT", headers=fields))
                with trio.fail_after(10):
                    answer = parse(await stream.receive_some(4096))
            assert answer.status == status
        assert (await publisher.get(f"{OURS.base}.zip")).status != 200


async def test_collections_take_nothing_but_what_was_deleted_by_whatever_way(room: Path) -> None:
    modules = [Module(OURS.path, f"v1.0.{number}") for number in range(4)]
    api = "/-/api/v1/repositories/go-local/packages/example.com%2FTeam%2Fapp"
    with mxart(room, served()) as server:
        publisher = Publisher(server)

        async def delete(target: str) -> int:
            return (await get(publisher.port, target, method="DELETE", headers=publisher.login)).status

        for module in modules:
            assert (await publisher.put(module)).status == 201
        assert await delete(f"/go/{modules[0].base}.zip") == 200
        assert await delete(f"{api}/tags/{modules[1].version}") == 204
        tag = await get(publisher.port, f"{api}/tags/{modules[2].version}", headers=publisher.login)
        assert await delete(f"{api}/versions/{json.loads(tag.body)['digest']}") == 204
        assert await delete(f"{api}/versions/{json.loads(tag.body)['digest']}") == 404
        assert await delete(f"{api}/tags/v1.9.9") == 404
        collect = [sys.executable, "-m", "mxart", "--data", str(server.data), "--config", str(room / "mxart.toml")]
        done = await trio.run_process([*collect, "gc", "--grace", "0", "--json"], capture_stdout=True)
        assert json.loads(done.stdout)["blobs"]["default"]["files"] == 3 + 3  # their .mod has another's bytes
        for number, module in enumerate(modules):
            for kind in ("zip", "mod", "info"):
                status = (await publisher.get(f"{module.base}.{kind}")).status
                assert (status == 200) == (number == 3)


async def test_a_full_repository_says_so_and_takes_nothing(room: Path) -> None:
    with mxart(room, served(quota="1MiB")) as server:
        publisher = Publisher(server)
        filling = [Module(OURS.path, f"v1.0.{number}", extra={"a.bin": _noise(number, 400_000)}) for number in range(3)]
        answers = [await publisher.put(module) for module in filling]
        assert [answer.status for answer in answers] == [201, 201, 507]
        assert b"its quota is 1048576 bytes" in answers[2].body
        huge = Module(OURS.path, "v1.1.0", extra={"a.bin": _noise(9, 2_000_000)})
        assert (await publisher.put(huge)).status == 413
        assert (await publisher.get(f"{OURS.base.rpartition('/')[0]}/list")).body == b"v1.0.0\nv1.0.1\n"


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("after", [1, 5, 12])
async def test_a_version_is_there_with_all_its_files_or_not_at_all_after_a_kill(room: Path, after: int) -> None:
    modules = [Module(OURS.path, f"v1.0.{number}") for number in range(EVERY_STEP)]
    done: set[str] = set()
    server = Mxart(room, served(), workers=2)
    publisher = Publisher(server)

    async def publish(mine: list[Module]) -> None:
        for module in mine:
            try:
                answer = await publisher.put(module)
            except OSError:
                return
            if answer.status != 201:
                return
            done.add(module.version)
            if len(done) == after:
                server.service.kill()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for first in range(4):
                nursery.start_soon(publish, modules[first::4])
    assert after <= len(done) < EVERY_STEP
    with mxart(room, served(), workers=2) as again:
        publisher = Publisher(again)
        listed = (await publisher.get(f"{OURS.base.rpartition('/')[0]}/list")).body.decode().split()
        assert done <= set(listed)
        for module in modules:
            for kind, data in (("zip", module.zip), ("mod", module.mod), ("info", None)):
                got = await publisher.get(f"{module.base}.{kind}")
                assert (got.status == 200) == (module.version in listed)
                assert got.status != 200 or data is None or got.body == data
        for module in modules:
            assert (await publisher.put(module)).status == (200 if module.version in listed else 201)
