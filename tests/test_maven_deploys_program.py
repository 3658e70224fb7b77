"""Many deploy to one running server at once, and some of it is killed: nothing is lost, and every checksum is right."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from kit.deploys import PACKAGE, SNAPSHOT, Line, command, deploy_build, deploy_release
from kit.http import head
from kit.maven import jar, listing, pom, sums
from kit.servers import Mxart, mxart
from mxart.repos.maven import metadata
from mxart.repos.maven.metadata import Metadata

OWN = '[repository.maven]\nformat = "maven"\nkind = "local"\npath = "/maven"\n'
PROCESSES, EACH = 4, 10
LIST = f"{PACKAGE}/maven-metadata.xml"
BUILDS = f"{PACKAGE}/{SNAPSHOT}/maven-metadata.xml"


class Deployers:
    """Processes that deploy, and what of it has been acknowledged."""

    def __init__(self, server: Mxart, what: str, processes: int = PROCESSES, each: int = EACH) -> None:
        self.password = (server.data / "admin-password").read_text().strip()
        self.server = server
        self.acknowledged: list[str] = []
        self.done = False
        self._moved = trio.Event()
        self._commands = [command(server.port, self.password, what, seed, each) for seed in range(1, processes + 1)]

    def line(self) -> Line:
        return Line(self.server.port, self.password)

    async def run(self, *, check: bool = True) -> None:
        async with trio.open_nursery() as nursery:
            for arguments in self._commands:
                nursery.start_soon(self._run, arguments, check)
        self.done = True

    async def _run(self, arguments: list[str], check: bool) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, arguments, stdout=subprocess.PIPE, env=env, check=check)
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            rest = b""
            async for chunk in process.stdout:
                *whole, rest = (rest + chunk).split(b"\n")
                self.acknowledged += [line.decode() for line in whole]
                self._moved.set()

    async def until(self, count: int) -> None:
        """Wait until so many were acknowledged."""
        while len(self.acknowledged) < count:
            self._moved = trio.Event()
            await self._moved.wait()


async def read(line: Line, path: str) -> Metadata | None:
    """A list, then all its checksums, on one connection: they agree, whoever writes meanwhile."""
    got = await line.ask("GET", path)
    if got.status == 404:
        return None
    assert (got.status, got.complete) == (200, True), got
    for algorithm, right in sums(got.body).items():
        assert got.headers[f"x-checksum-{algorithm}"] == right
        said = await line.ask("GET", f"{path}.{algorithm}")
        assert (said.status, said.body.decode()) == (200, right), (path, algorithm)
    return metadata.parse(got.body)


async def check_file(line: Line, path: str, data: bytes | None = None) -> None:
    """A file that a list names is there, and its checksums are right."""
    got = await line.ask("GET", path)
    assert (got.status, got.complete) == (200, True), (path, got)
    assert data is None or got.body == data
    for algorithm, right in sums(got.body).items():
        assert got.headers[f"x-checksum-{algorithm}"] == right
        assert (await line.ask("GET", f"{path}.{algorithm}")).body.decode() == right


async def test_forty_deploys_of_an_artifact_at_once_lose_no_version_at_any_moment(tmp_path: Path) -> None:
    with mxart(tmp_path, OWN, workers=2) as server:
        deployers = Deployers(server, "release")
        seen = 0

        async def watch() -> None:
            nonlocal seen
            async with deployers.line() as line:
                while not deployers.done:
                    before = set(deployers.acknowledged)
                    found = await read(line, LIST)
                    assert before <= set(found.versions if found is not None else ())
                    if found is not None:
                        await check_file(line, f"{PACKAGE}/{found.latest}/app-{found.latest}.jar", jar(found.latest))
                        seen += 1

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deployers.run)
                for _ in range(3):
                    nursery.start_soon(watch)
            assert seen
            wanted = {f"{seed}.{number}" for seed in range(1, PROCESSES + 1) for number in range(EACH)}
            assert set(deployers.acknowledged) == wanted
            async with deployers.line() as line:
                found = await read(line, LIST)
                assert found is not None
                assert set(found.versions) == wanted
                for version in wanted:
                    await check_file(line, f"{PACKAGE}/{version}/app-{version}.jar", jar(version))
                    await check_file(line, f"{PACKAGE}/{version}/app-{version}.pom", pom(version=version))


@pytest.mark.parametrize("what", ["build", "literal"])
async def test_forty_builds_of_a_snapshot_at_once_are_all_there(tmp_path: Path, what: str) -> None:
    with mxart(tmp_path, OWN, workers=2) as server:
        deployers = Deployers(server, what)

        async def watch() -> None:
            newest = ""
            async with deployers.line() as line:
                while not deployers.done:
                    found = await read(line, BUILDS)
                    if found is None:
                        continue
                    value = found.find("", "jar")
                    assert value >= newest or what == "literal"
                    newest = max(newest, value)
                    await check_file(line, f"{PACKAGE}/{SNAPSHOT}/app-{value}.jar")

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deployers.run)
                for _ in range(2):
                    nursery.start_soon(watch)
            async with deployers.line() as line:
                page = await line.ask("GET", f"{PACKAGE}/{SNAPSHOT}/")
                names = [part.split(b'"')[0].decode() for part in page.body.split(b'href="')[1:]]
                jars = [name for name in names if name.endswith(".jar")]
                if what == "build":
                    assert sorted(jars) == sorted(f"app-{value}.jar" for value in deployers.acknowledged)
                    for value in deployers.acknowledged:
                        await check_file(line, f"{PACKAGE}/{SNAPSHOT}/app-{value}.jar", jar(value))
                else:
                    numbers = sorted(int(name.removesuffix(".jar").rpartition("-")[2]) for name in jars)
                    assert numbers == list(range(1, PROCESSES * EACH + 1))
                found = await read(line, LIST)
                assert found is not None
                assert found.versions == (SNAPSHOT,)


@pytest.mark.parametrize("whom", ["a worker", "the program"])
async def test_what_was_acknowledged_outlives_a_kill_in_the_middle_of_deploys(tmp_path: Path, whom: str) -> None:
    server = Mxart(tmp_path, OWN, workers=2)
    deployers = Deployers(server, "release", processes=2)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await deployers.until(3)
                if whom == "the program":
                    server.service.kill()
                else:
                    os.kill(server.workers()[0], signal.SIGKILL)

            nursery.start_soon(partial(deployers.run, check=False))
            nursery.start_soon(kill)
        if whom == "the program":
            server = deployers.server = Mxart(tmp_path, OWN, workers=2)
        wanted = [f"{seed}.{number}" for seed in (1, 2) for number in range(EACH)]
        async with deployers.line() as line:
            found = await read(line, LIST)
            assert found is not None
            assert set(deployers.acknowledged) <= set(found.versions)
            for version in deployers.acknowledged:
                await check_file(line, f"{PACKAGE}/{version}/app-{version}.jar", jar(version))
                await check_file(line, f"{PACKAGE}/{version}/app-{version}.pom", pom(version=version))
            for version in set(found.versions) - set(deployers.acknowledged):
                # What has a name is whole; which of a version's files came first is no matter.
                for end, data in ((".jar", jar(version)), (".pom", pom(version=version))):
                    got = await line.ask("GET", f"{PACKAGE}/{version}/app-{version}{end}")
                    assert (got.status, got.body == data) in ((200, True), (404, False))
            for version in wanted:  # whoever was cut does it again
                await deploy_release(line, version)
            found = await read(line, LIST)
            assert found is not None
            assert set(found.versions) == set(wanted)
    server.stop()


GROUP = """
[repository.releases]
format = "maven"
kind = "local"
policy = "releases"
[repository.snapshots]
format = "maven"
kind = "local"
policy = "snapshots"
[repository.maven]
format = "maven"
kind = "group"
path = "/maven"
members = ["releases", "snapshots"]
publish_to = ["releases"]
"""


async def answers_to(server: Mxart, path: str, *, login: bool = True, length: int = 1000) -> list[int]:
    """The statuses that a client gets which waits for 100 before it sends its body."""
    password = (server.data / "admin-password").read_text().strip()
    fields = {"expect": "100-Continue", "content-length": str(length), "connection": "close"}
    if login:
        fields["authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
    data = b""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(head(f"/maven/{path}", method="PUT", headers=fields))
        while chunk := await stream.receive_some(65536):
            data += chunk
            if data.startswith(b"HTTP/1.1 100 ") and data.endswith(b"\r\n\r\n") and data.count(b"HTTP/1.1") == 1:
                await stream.send_all(jar().ljust(length, b"\0"))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", data)]


async def test_who_waits_before_he_sends_is_told_at_once_where_it_would_be_in_vain(tmp_path: Path) -> None:
    with mxart(tmp_path, GROUP) as server, trio.fail_after(60):
        release = f"{PACKAGE}/1.0/app-1.0.jar"
        for path, login, length, statuses in (
            (release, True, 1000, [100, 201]),
            (release, True, 1001, [100, 409]),
            (release, False, 1000, [401]),
            (f"{PACKAGE}/{SNAPSHOT}/app-{SNAPSHOT}.jar", True, 1000, [409]),
            (f"{PACKAGE}/1.0/other-1.0.jar", True, 1000, [400]),
            (f"{PACKAGE}/1.0/app-1.0.pom", True, 11 << 20, [413]),
            (LIST, True, 11 << 20, [413]),
            (f"{release}.sha1", True, 5000, [413]),
        ):
            assert await answers_to(server, path, login=login, length=length) == statuses, path
        lines = [json.loads(line) for line in (server.data / "audit" / "audit.jsonl").read_text().splitlines()]
        told = [tuple(line[key] for key in ("action", "repository", "path", "outcome")) for line in lines[:2]]
        assert told[0] == ("publish", "releases", PACKAGE, "done")
        assert told[1] == ("publish", "releases", PACKAGE, "failed")


async def test_old_builds_go_by_the_rules_and_the_lists_are_right_at_once(tmp_path: Path) -> None:
    rules = "retention = [{ packages = 'org/**', tags = '*-SNAPSHOT', keep = 2 }]\n"
    with mxart(tmp_path, OWN + rules) as server, trio.fail_after(60):
        password = (server.data / "admin-password").read_text().strip()
        options = ["--config", str(tmp_path / "mxart.toml"), "--data", str(server.data)]

        async def retention(word: str) -> str:
            run = [sys.executable, "-m", "mxart", *options, "retention", word]
            return (await trio.run_process(run, capture_stdout=True)).stdout.decode()

        async with Line(server.port, password) as line:
            await deploy_release(line, "0.9")
            values = [await deploy_build(line, f"20240101.12000{number}") for number in range(4)]
            assert [value.rpartition("-")[2] for value in values] == ["1", "2", "3", "4"]
            told = await retention("preview")
            assert f"maven  {PACKAGE}/{SNAPSHOT}/20240101.120000-1.jar  not one of the newest 2 (*-SNAPSHOT)" in told
            assert told.endswith("with them\n")
            assert told.splitlines()[-1].startswith("maven: 4 builds would go")
            assert "4 builds went" in await retention("run")
            found = await read(line, BUILDS)
            assert found is not None
            assert (found.time, found.number) == ("20240101.120003", 4)
            for value, status in zip(values, (404, 404, 200, 200), strict=True):
                for end in (".jar", ".pom", ".jar.sha1"):
                    assert (await line.ask("GET", f"{PACKAGE}/{SNAPSHOT}/app-{value}{end}")).status == status
            await check_file(line, f"{PACKAGE}/{SNAPSHOT}/app-{SNAPSHOT}.jar", jar(values[-1]))
            await check_file(line, f"{PACKAGE}/0.9/app-0.9.jar", jar("0.9"))
            assert (await deploy_build(line, "20240101.120009")).endswith("-5")
            assert (await line.ask("DELETE", f"{PACKAGE}/{SNAPSHOT}/")).status == 204
            assert (await deploy_build(line, "20240101.120010")).endswith("-6")


@pytest.mark.parametrize("killed", [False, True])
async def test_a_deploy_that_is_held_outlives_a_collection_and_a_kill_and_is_seen_as_a_whole(
    tmp_path: Path, *, killed: bool
) -> None:
    server = Mxart(tmp_path, OWN + "staging = true\n", workers=2)
    password = (server.data / "admin-password").read_text().strip()
    base, data = f"{PACKAGE}/1.0/app-1.0", {".jar": jar(), ".pom": pom(), "-big.bin": bytes(range(256)) * 2000}
    with trio.fail_after(60):
        async with Line(server.port, password) as line:
            for end, body in data.items():
                await line.put(f"{base}{end}", body)
                assert (await line.ask("GET", f"{base}{end}")).status == 404
        options = ["--config", str(tmp_path / "mxart.toml"), "--data", str(server.data)]
        told = await trio.run_process(
            [sys.executable, "-m", "mxart", *options, "gc", "--grace", "0"], capture_stdout=True
        )
        assert b"the configuration has not" not in told.stdout
        if killed:
            server.service.kill()
            server = Mxart(tmp_path, OWN + "staging = true\n", workers=2)
        async with Line(server.port, password) as line:
            assert (await line.ask("GET", LIST)).status == 404
            await line.put(LIST, listing("1.0"))
            for end, body in data.items():
                await check_file(line, f"{base}{end}", body)
            found = await read(line, LIST)
            assert found is not None
            assert found.versions == ("1.0",)
    server.stop()


async def test_people_see_a_version_by_its_pom_and_delete_it_by_its_name(tmp_path: Path) -> None:
    with mxart(tmp_path, OWN) as server, trio.fail_after(60):
        password = (server.data / "admin-password").read_text().strip()
        api = f"/-/api/v1/repositories/maven/packages/{quote(PACKAGE, safe='')}"
        async with Line(server.port, password) as line, Line(server.port, password, "") as people:
            for version in ("1.0", "2.0"):
                await deploy_release(line, version)
            shown = json.loads((await people.ask("GET", f"{api[1:]}/versions")).body)["items"]
            by_name = {item["tags"][0]: item["digest"] for item in shown}
            assert by_name == {version: f"sha256:{sums(pom(version=version))['sha256']}" for version in ("1.0", "2.0")}
            assert (await people.ask("DELETE", f"{api[1:]}/tags/1.0")).status == 204
            assert (await people.ask("DELETE", f"{api[1:]}/tags/1.0")).status == 404
            found = await read(line, LIST)
            assert found is not None
            assert found.versions == ("2.0",)
            assert (await people.ask("DELETE", f"{api[1:]}/versions/{by_name['2.0']}")).status == 204
            assert await read(line, LIST) is None
