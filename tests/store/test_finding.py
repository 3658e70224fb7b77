"""Files found by their checksums and by their packages' names, and that no question reads everything for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mxart.digest import Digest
from mxart.repos.maven import checksums
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.contents import Contents
from mxart.store.finding import Sought, find

PACKAGES = ["com/example/app", "com/example/app2", "com/example/deep/app", "com/examples/app", "app", "org/x/lib"]


class Shop:
    def __init__(self, catalog: SqliteCatalog, contents: Contents) -> None:
        self.catalog = catalog
        self.contents = contents

    async def keep(
        self, package: str, name: str, data: bytes, repository: str = "own", checksum: str | None = None
    ) -> None:
        digest = Digest.of(data)
        told = checksums.kept(checksums.of(data)) if checksum is None else checksum
        record = FileRecord(repository, package, f"{package}/{name}", digest, len(data), "a/b", checksum=told)
        await self.catalog.put_file(record)
        await self.catalog.put_tag(repository, package, "1.0", replace(record, path=f"{package}/1.0"))

    async def paths(self, sought: Sought, repository: str = "own", after: str = "", limit: int = 100) -> list[str]:
        return [record.path for record in await self.contents.find(repository, sought, after, limit)]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    catalog = SqliteCatalog(tmp_path / "catalog")
    contents = Contents(tmp_path / "catalog")
    shop = Shop(catalog, contents)
    for package in PACKAGES:
        for name in ("1.0/a.jar", "1.0/a.pom"):
            await shop.keep(package, name, f"{package}/{name}".encode())
    try:
        yield shop
    finally:
        contents.close()
        await catalog.aclose(0.0)


async def test_by_what_a_file_is(shop: Shop) -> None:
    data = b"org/x/lib/1.0/a.jar"
    await shop.keep("org/y/copy", "1.0/b.jar", data)
    await shop.keep("org/z/elsewhere", "1.0/b.jar", data, repository="other")
    await shop.keep("org/x/go", "1.0/b.jar", b"a module", checksum="h1:abc=")
    sums = checksums.of(data)
    for sought in (Sought(sha1=sums.sha1), Sought(digest=Digest("sha256", sums.sha256))):
        assert await shop.paths(sought) == ["org/x/lib/1.0/a.jar", "org/y/copy/1.0/b.jar"]
        assert await shop.paths(sought, "other") == ["org/z/elsewhere/1.0/b.jar"]
        assert await shop.paths(sought, limit=1) == ["org/x/lib/1.0/a.jar"]
        assert await shop.paths(sought, after="org/x/lib/1.0/a.jar") == ["org/y/copy/1.0/b.jar"]
    assert await shop.paths(Sought(sha1="0" * 40)) == []
    assert await shop.paths(Sought(sha1=checksums.of(b"a module").sha1)) == []


async def test_by_the_names_of_packages(shop: Shop) -> None:
    async def packages(sought: Sought) -> set[str]:
        return {path.removesuffix("/1.0/a.pom") for path in await shop.paths(sought) if path.endswith("pom")}

    assert await packages(Sought(folder="com/example/", deep=False)) == {"com/example/app", "com/example/app2"}
    assert await packages(Sought(folder="com/example/")) == {
        "com/example/app",
        "com/example/app2",
        "com/example/deep/app",
    }
    assert await packages(Sought(folder="com/example/", deep=False, leaf="app")) == {"com/example/app"}
    assert await packages(Sought(leaf="app")) == {"com/example/app", "com/example/deep/app", "com/examples/app", "app"}
    assert await packages(Sought(leaf="pp")) == set()
    assert await packages(Sought(leaf="%")) == set()
    assert await packages(Sought(folder="com/", leaf="nothing")) == set()


async def test_pages_are_whole(shop: Shop) -> None:
    every = await shop.paths(Sought(folder="com/"))
    assert every == sorted(every)
    assert len(every) == 8
    seen: list[str] = []
    while page := await shop.paths(Sought(folder="com/"), after=seen[-1] if seen else "", limit=3):
        seen += page
    assert seen == every


async def test_a_checksum_is_found_by_an_index(shop: Shop) -> None:
    asked: list[str] = []

    def plan(statement: str, values: tuple[str | int, ...]) -> list[object]:
        asked.extend(row[3] for row in shop.catalog.ask(f"EXPLAIN QUERY PLAN {statement}", values))
        return []

    find(plan, "own", Sought(sha1="0" * 40), "", 10)
    assert any("files_of_sha1" in step for step in asked), asked
    asked.clear()
    find(plan, "own", Sought(digest=Digest("sha256", "0" * 64)), "", 10)
    assert any("files_of_digest" in step for step in asked), asked
    asked.clear()
    find(plan, "own", Sought(folder="com/example/", deep=False, leaf="app"), "", 10)
    assert not any(step.startswith("SCAN") for step in asked), asked
