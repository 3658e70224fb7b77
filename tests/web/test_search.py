"""Files found by their checksums and by Maven's coordinates: what is kept, as far as the caller may read it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from kit.api import ADMIN, EVE, ApiWorld, Only, api_world
from mxart.digest import Digest
from mxart.repos.callers import Caller
from mxart.repos.maven import checksums
from mxart.store.base import FileRecord

CONFIG = """
[repository.own]
format = "maven"
kind = "local"
[repository.central]
format = "maven"
kind = "proxy"
upstream = "https://maven.example"
[repository.all]
format = "maven"
kind = "group"
members = ["own", "central"]
path = "/maven"
[repository.images]
format = "oci"
kind = "local"
path = "/"
"""
FILES = {
    "own": [
        "com/example/app/1.0/app-1.0.jar", "com/example/app/1.0/app-1.0.pom", "com/example/app/1.0/app-1.0-sources.jar",
        "com/example/app/1.1-SNAPSHOT/app-1.1-20240102.030405-6.jar", "com/example/deep/tool/1.0/tool-1.0.jar",
    ],
    "central": ["com/example/app/0.9/app-0.9.jar", "org/other/lib/2.0/lib-2.0.jar"],
}  # fmt: skip


async def keep(world: ApiWorld, repository: str, path: str, data: bytes) -> None:
    package = path.rsplit("/", 2)[0]
    told = checksums.kept(checksums.of(data))
    digest = Digest.of(data)
    record = FileRecord(repository, package, path, digest, len(data), "a/b", created=1_800_000_000.0, checksum=told)
    await world.catalog.put_file(record)


class Search:
    def __init__(self, world: ApiWorld) -> None:
        self.world = world

    async def __call__(self, caller: Caller = EVE, **wanted: str) -> list[str]:
        told = await self.world.call("GET", f"/search?{urlencode(wanted)}", caller=caller)
        assert told.status == 200, told.text
        return [f"{item['repository']}:{item['path']}" for item in told.json["items"]]


async def filled(world: ApiWorld) -> Search:
    for repository, paths in FILES.items():
        for path in paths:
            await keep(world, repository, path, path.encode())
    return Search(world)


async def test_by_a_checksum_every_name_is_found(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        search = await filled(world)
        path = FILES["own"][0]
        await keep(world, "central", "org/copy/app/1.0/app-1.0.jar", path.encode())
        sums = checksums.of(path.encode())
        both = ["central:org/copy/app/1.0/app-1.0.jar", f"own:{path}"]
        assert await search(sha1=sums.sha1) == both
        assert await search(sha1=sums.sha1.upper()) == both
        assert await search(sha256=sums.sha256) == both
        assert await search(sha1=sums.sha1, repository="own") == both[1:]
        assert await search(sha1=sums.sha1, group="com.example") == both[1:]
        assert await search(sha1="0" * 40) == []


async def test_a_file_is_told_with_its_coordinates_and_checksums(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        await filled(world)
        told = await world.call("GET", "/search?group=com.example&version=1.0&classifier=sources", caller=EVE)
        path = "com/example/app/1.0/app-1.0-sources.jar"
        sums = checksums.of(path.encode())
        assert told.json == {
            "items": [
                {
                    "repository": "own",
                    "format": "maven",
                    "package": "com/example/app",
                    "path": path,
                    "size": len(path),
                    "sha256": sums.sha256,
                    "sha1": sums.sha1,
                    "md5": sums.md5,
                    "created": "2027-01-15T08:00:00Z",
                    "group": "com.example",
                    "artifact": "app",
                    "version": "1.0",
                    "classifier": "sources",
                    "extension": "jar",
                }
            ],
            "next": "",
        }


async def test_by_coordinates(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        search = await filled(world)
        own = [f"own:{path}" for path in sorted(FILES["own"])]
        central = [f"central:{path}" for path in FILES["central"]]
        assert await search(group="com.example") == [central[0], *(line for line in own if "/deep/" not in line)]
        assert await search(group="com.example.*") == [central[0], *own]
        assert await search(artifact="lib") == central[1:]
        assert await search(group="com.example", artifact="app", extension="pom") == [own[2]]
        assert await search(artifact="app", version="1.0", extension="jar", classifier="-") == [own[1]]
        assert await search(artifact="app", version="1.1-SNAPSHOT") == [own[3]]
        assert await search(artifact="app", version="1.1-20240102.030405-6") == [own[3]]
        assert await search(group="com") == []
        assert await search(group="com.*", artifact="tool") == [own[4]]


async def test_a_group_shows_what_it_would_serve(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        search = await filled(world)
        found = await search(repository="all", group="com.example")
        assert found
        assert all(line.startswith("own:") for line in found)
        assert await search(repository="all", artifact="lib") == ["central:org/other/lib/2.0/lib-2.0.jar"]


async def test_only_what_the_caller_may_read_is_found(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        search = await filled(world)
        adam = Caller(name="adam", grants=Only(prefix="com/example/deep"))
        sha1 = checksums.of(FILES["own"][0].encode()).sha1
        assert await search(caller=adam, group="com.example.*") == ["own:com/example/deep/tool/1.0/tool-1.0.jar"]
        assert await search(caller=adam, repository="all", artifact="lib") == []
        assert await search(caller=adam, sha1=sha1) == []
        assert await search(caller=ADMIN, sha1=sha1) == [f"own:{FILES['own'][0]}"]


async def test_pages_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        search = await filled(world)
        every = await search(group="com.example.*")
        seen: list[str] = []
        after = ""
        while True:
            told = await world.call(
                "GET", f"/search?{urlencode({'group': 'com.example.*', 'limit': 2, 'after': after})}", caller=EVE
            )
            seen += [f"{item['repository']}:{item['path']}" for item in told.json["items"]]
            after = told.json["next"]
            if not after:
                break
        assert seen == every


async def test_files_of_other_formats_are_found_by_what_they_are(tmp_path: Path) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        await filled(world)
        digest = await world.keep("images", "a/b", "1", b"a manifest")
        await world.catalog.put_file(
            FileRecord("images", "a/b", f"a/b/manifests/{digest}", digest, 10, "x/y", created=1.0)
        )
        told = await world.call("GET", f"/search?sha256={digest.hex}", caller=EVE)
        (item,) = told.json["items"]
        assert (item["format"], item["path"], item["sha1"], item["artifact"]) == (
            "oci",
            f"a/b/manifests/{digest}",
            "",
            "",
        )
        assert (await world.call("GET", f"/search?sha256={digest.hex}&artifact=b", caller=EVE)).json["items"] == []


@pytest.mark.parametrize(
    ("query", "word"),
    [("", "say what to look for"), ("version=1.0", "say what to look for"), ("sha1=abc", "sha1"),
     ("artifact=a/b", "artifact"), ("color=red", "unknown query parameter"),
     ("sha1=" + "0" * 40 + "&repository=NO", "repository")],
    ids=range(6),
)  # fmt: skip
async def test_a_question_that_leads_nowhere_is_refused(tmp_path: Path, query: str, word: str) -> None:
    async with api_world(tmp_path, CONFIG) as world:
        told = await world.call("GET", f"/search?{query}", caller=EVE)
        assert told.status == 400
        assert word in told.detail
        assert (await world.call("GET", "/search?artifact=a&repository=none", caller=EVE)).status == 404
