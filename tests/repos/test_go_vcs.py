"""Modules from git as a repository among others: whose they are, who may have them made, what a version is for good."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from kit.git_server import GitHosts, Reply, git_hosts
from kit.modules import TOML
from kit.publishing import Rights
from kit.repos import Answer, FakeUpstream, World, body_of
from mxart.config import Upstreams
from mxart.errors import Forbidden, NotFound
from mxart.git.clones import Clones
from mxart.git.depot import Depot
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.ways import Ways
from mxart.message import Headers, Trace
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.go.format import Go
from mxart.repos.go.hosts import Urls
from mxart.repos.go.sums import Private
from mxart.repos.group import Group
from mxart.repos.operations import Artifact, Document
from mxart.repos.remote import Rules
from mxart.repos.vcs.hosts import Hosts
from mxart.repos.vcs.kind import Vcs
from mxart.repos.vcs.roots import Roots
from mxart.repos.vcs.upstream import GitModules
from mxart.store.paths import GitPaths
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote

LIB = "corp.test/libs/one"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[GitHosts]:
    with git_hosts(tmp_path / "hosts", "git.test") as running:
        yield running


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def vcs(world: World, hosts: GitHosts, folder: Path, rules: Rules = Rules(ttl=60.0)) -> Vcs:  # noqa: B008 frozen
    def nobody(url: str) -> Remote:
        raise NotFound(f"{url} has no pages")

    paths = GitPaths(folder / "data")
    paths.create()
    logins = Logins([Login(("*",), ca_file=str(hosts.ca))])
    ways = Ways(Dialer(Upstreams(resolve={"git.test": "127.0.0.1"})))
    depot = Depot("corp", Git(paths.home, silence=10), paths, logins, ways, clock=world.clock)
    urls = Urls({"corp.test/libs/*": f"https://git.test:{hosts.port}/libs/*"})

    async def kept(path: str) -> bytes | None:
        record = world.catalog.file("corp", path)
        return None if record is None else await world.blobs.read(record.digest, 1 << 20)

    roots = Roots(urls, logins, Hosts(nobody), 10.0, world.clock)
    upstream = GitModules("corp", roots, Clones(depot), paths, kept, 10.0)
    modules = Private(["corp.test"])
    return Vcs("corp", upstream, modules, world.stock, nursery=world.nursery, rules=rules, clock=world.clock)


def source(says: int = 1, module: str = LIB) -> dict[str, str | bytes | None]:
    return {"go.mod": f"module {module}\n\ngo 1.16\n", "lib.go": f"package lib\n\nconst Is = {says}\n"}


async def get(world: World, repository: Repository, path: str, *fields: tuple[str, str]) -> tuple[int, bytes]:
    response, _ = await world.ask(repository, f"/{path}", *fields)
    return response.status, await body_of(response)


def lib_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(f"{LIB}@v1.0.0/lib.go")


async def test_what_is_private_is_asked_of_git_and_all_else_of_others(
    world: World, hosts: GitHosts, tmp_path: Path
) -> None:
    hosts.repository("git.test/libs/one").commit(source(), "v1.0.0")
    public = FakeUpstream()
    public.answers["example.com/%21burnt%21wood/%21toml/@v/v1.2.0.mod"] = Answer(TOML.mod)
    corp = vcs(world, hosts, tmp_path)
    proxy = world.proxy("public", form=Go(), upstream=public)
    group = Group("all", Go(), [world.local(form=Go()), proxy, corp])
    assert await get(world, group, f"{LIB}/@v/list") == (200, b"v1.0.0\n")
    assert (await get(world, group, f"{TOML.base}.mod"))[0] == 200
    for missing in ("corp.test/@v/list", "corp.test/libs/@v/list", f"{LIB}/@v/v2.0.0+incompatible.info"):
        status, text = await get(world, group, missing)
        assert status == 404
        assert b"belongs here, by corp.test: only repository corp is asked for it" in text
    assert public.asked == ["GET example.com/%21burnt%21wood/%21toml/@v/v1.2.0.mod"]
    status, text = await get(world, corp, f"{TOML.base}.mod")
    assert status == 404
    assert b"is none of the modules of corp: corp.test" in text


async def test_a_version_is_what_it_was_whichever_of_its_files_came_first(
    world: World, hosts: GitHosts, tmp_path: Path
) -> None:
    repository = hosts.repository("git.test/libs/one")
    first = repository.commit(source(), "v1.0.0")
    corp = vcs(world, hosts, tmp_path)
    status, mod = await get(world, corp, f"{LIB}/@v/v1.0.0.mod")
    assert (status, mod) == (200, f"module {LIB}\n\ngo 1.16\n".encode())
    repository.commit({**source(2), "go.mod": f"module {LIB}\n\ngo 1.21\n"}, "v1.0.0")
    world.clock.forward(1000)
    assert (await get(world, corp, f"{LIB}/@v/list"))[1] == b"v1.0.0\n"
    status, data = await get(world, corp, f"{LIB}/@v/v1.0.0.zip")
    assert (status, lib_of(data)) == (200, b"package lib\n\nconst Is = 1\n")
    told = json.loads((await get(world, corp, f"{LIB}/@v/v1.0.0.info"))[1])
    assert told["Origin"]["Hash"] == first
    assert told["Origin"]["URL"] == f"https://git.test:{hosts.port}/libs/one"
    moving = json.loads((await get(world, corp, f"{LIB}/@v/main.info"))[1])
    assert moving["Origin"]["Hash"] != first


async def test_a_branch_moves_and_a_list_grows(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    repository = hosts.repository("git.test/libs/one")
    repository.commit(source())
    corp = vcs(world, hosts, tmp_path)
    before = json.loads((await get(world, corp, f"{LIB}/@latest"))[1])["Version"]
    assert before.startswith("v0.0.0-2")
    repository.commit(source(2), "v0.1.0")
    assert json.loads((await get(world, corp, f"{LIB}/@latest"))[1])["Version"] == before  # within its ttl
    world.clock.forward(61)
    assert json.loads((await get(world, corp, f"{LIB}/@latest"))[1])["Version"] == "v0.1.0"
    assert json.loads((await get(world, corp, f"{LIB}/@v/main.info"))[1])["Version"] == "v0.1.0"


async def test_a_list_is_served_from_before_while_git_refuses(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    hosts.repository("git.test/libs/one").commit(source(), "v1.0.0")
    corp = vcs(world, hosts, tmp_path)
    assert (await get(world, corp, f"{LIB}/@v/list"))[0] == 200
    hosts.site("git.test").on = lambda asked: Reply(403)
    world.clock.forward(61)
    response, _ = await world.ask(corp, f"/{LIB}/@v/list")
    assert (response.status, await body_of(response)) == (200, b"v1.0.0\n")
    assert "it refuses us" in (response.headers.get("warning") or "")
    assert (await get(world, corp, f"{LIB}/@v/v1.0.0.info"))[0] == 502  # never 404, which sends clients elsewhere


async def test_only_what_is_kept_is_given_to_who_wants_no_more(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    hosts.repository("git.test/libs/one").commit(source(), "v1.0.0")
    corp = vcs(world, hosts, tmp_path)
    for kind in ("info", "mod", "zip"):
        assert (await get(world, corp, f"cached-only/{LIB}/@v/v1.0.0.{kind}"))[0] == 404
    assert not hosts.asked
    assert (await get(world, corp, f"{LIB}/@v/v1.0.0.zip"))[0] == 200
    for kind in ("info", "zip"):
        assert (await get(world, corp, f"cached-only/{LIB}/@v/v1.0.0.{kind}"))[0] == 200


async def test_who_may_read_and_not_fetch_has_what_others_fetched(
    world: World, hosts: GitHosts, tmp_path: Path
) -> None:
    hosts.repository("git.test/libs/one").commit(source(), "v1.0.0", "v1.1.0")
    corp = vcs(world, hosts, tmp_path)
    reader = Caller(grants=Rights(read={f"corp:{LIB}"}))

    def file(kind: str, version: str = "v1.0.0") -> Document | Artifact:
        operation = Go().parse("GET", f"/{LIB}/@v/{version}.{kind}", "", Headers())
        assert isinstance(operation, Document | Artifact)
        return operation

    for kind in ("info", "mod", "zip"):
        with pytest.raises(Forbidden, match="may not fetch"):
            await corp.file(file(kind), Trace(), reader)
    assert not hosts.asked
    assert (await get(world, corp, f"{LIB}/@v/v1.0.0.zip"))[0] == 200
    asked = len(hosts.asked)
    for kind in ("info", "zip"):
        (await corp.file(file(kind), Trace(), reader)).close()
    with pytest.raises(Forbidden, match="may not fetch"):
        await corp.file(file("zip", "v1.1.0"), Trace(), reader)
    assert len(hosts.asked) == asked


async def test_no_checksum_database_but_our_own_hears_of_it(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    corp = vcs(world, hosts, tmp_path)
    assert (await get(world, corp, "sumdb/sum.golang.org/supported"))[0] == 404
    status, text = await get(world, corp, f"sumdb/sum.golang.org/lookup/{LIB}@v1.0.0")
    assert status == 403
    assert b"GONOSUMDB=corp.test" in text
    assert (await get(world, corp, "sumdb/sum.golang.org/lookup/example.com/x@v1.0.0"))[0] == 404
    assert not hosts.asked


async def test_what_is_not_there_is_asked_for_once_in_a_while(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    corp = vcs(world, hosts, tmp_path)
    for _ in range(3):
        assert (await get(world, corp, "corp.test/libs/none/@v/list"))[0] == 404
    assert hosts.count("/info/refs") == 1
    world.clock.forward(61)
    hosts.repository("git.test/libs/none").commit(source(module="corp.test/libs/none"), "v1.0.0")
    assert await get(world, corp, "corp.test/libs/none/@v/list") == (200, b"v1.0.0\n")


async def test_an_empty_repository_has_no_versions(world: World, hosts: GitHosts, tmp_path: Path) -> None:
    hosts.repository("git.test/libs/one")
    corp = vcs(world, hosts, tmp_path)
    assert await get(world, corp, f"{LIB}/@v/list") == (200, b"")
    for path in ("@latest", "@v/main.info", "@v/v1.0.0.info", "@v/0123456789ab.info"):
        assert (await get(world, corp, f"{LIB}/{path}"))[0] == 404
