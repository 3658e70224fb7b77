"""A deploy that is held becomes visible as a whole, when its artifact's list arrives."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kit.maven import Deploying, jar, listing, pom, sums
from kit.publishing import EVERYTHING
from kit.repos import World
from mxart.digest import Digest
from mxart.repos.callers import Caller
from mxart.repos.group import Group
from mxart.repos.maven.format import Maven
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.changes import Change, held_name
from mxart.store.changing import SqliteChanges

BASE = "org/example/app/1.0/app-1.0"
MOVING = "org/example/app/1.1-SNAPSHOT/app-1.1"
LIST = "org/example/app/maven-metadata.xml"
BOB = Caller(name="bob", grants=EVERYTHING)


@pytest.fixture
def shop(nursery: trio.Nursery) -> Deploying:
    return Deploying(World(nursery), staging=True)


async def test_nothing_is_seen_before_the_list_comes_and_then_all_of_it(shop: Deploying) -> None:
    for end, data in ((".jar", jar()), (".pom", pom())):
        assert await shop.put(f"{BASE}{end}", data) == 201
        assert await shop.put(f"{BASE}{end}.sha1", sums(data)["sha1"].encode()) == 201
        assert await shop.put(f"{BASE}{end}.md5", sums(b"")["md5"].encode()) == 409
        assert await shop.get(f"{BASE}{end}") is None
    assert shop.names() == []
    assert shop.versions() == []
    assert not shop.own.owns("org/example/app")
    shop.world.clock.forward(10)
    made = len(shop.world.changes.made)
    assert await shop.put(LIST, listing("0.9", "1.0")) == 201
    assert len(shop.world.changes.made) == made + 1
    assert shop.names() == [f"{BASE}.jar", f"{BASE}.pom"]
    assert shop.versions() == ["1.0"]
    assert await shop.get(f"{BASE}.jar") == jar()
    assert shop.names(repository=held_name("own", "alice")) == []
    record = shop.world.changes.view().file("own", f"{BASE}.jar")
    assert record is not None
    assert record.created == shop.world.clock()
    assert await shop.put(LIST, listing("1.0")) == 201  # once more


async def test_a_deploy_that_is_begun_anew_may_send_other_bytes(shop: Deploying) -> None:
    assert await shop.put(f"{BASE}.jar", jar("first")) == 201
    assert await shop.put(f"{BASE}.jar", jar("second")) == 201
    assert await shop.put(f"{BASE}.jar", jar("second")) == 200
    await shop.put(LIST, listing("1.0"))
    assert await shop.get(f"{BASE}.jar") == jar("second")
    assert await shop.put(f"{BASE}.jar", jar("third")) == 409
    assert await shop.put(f"{BASE}.jar", jar("second")) == 200


async def test_deploys_of_others_and_of_other_versions_go_on(shop: Deploying) -> None:
    await shop.put(f"{BASE}.jar", jar())
    await shop.put("org/example/app/2.0/app-2.0.jar", jar("two"))
    await shop.put("org/example/lib/1.0/lib-1.0.jar", jar("lib"))
    await shop.put("org/example/app/sub/1.0/sub-1.0.jar", jar("sub"))
    await shop.put("org/example/app/3.0/app-3.0.jar", jar("three"), caller=BOB)
    assert await shop.put(LIST, listing("1.0", "3.0")) == 201
    assert shop.names() == [f"{BASE}.jar"]
    assert await shop.put(LIST, listing("1.0", "3.0"), caller=BOB) == 201
    assert shop.names() == [f"{BASE}.jar", "org/example/app/3.0/app-3.0.jar"]
    assert await shop.put(LIST, listing("1.0", "2.0", "3.0")) == 201
    assert shop.versions() == ["1.0", "2.0", "3.0"]


async def test_of_two_who_deploy_a_version_one_is_told_and_nothing_of_his_is_published(shop: Deploying) -> None:
    await shop.put(f"{BASE}.jar", jar("mine"))
    await shop.put(f"{BASE}-sources.jar", jar("mine"))
    await shop.put(f"{BASE}.jar", jar("his"), caller=BOB)
    assert await shop.put(LIST, listing("1.0"), caller=BOB) == 201
    assert await shop.put(LIST, listing("1.0")) == 409
    assert "nothing is published" in shop.said
    assert shop.names() == [f"{BASE}.jar"]
    assert await shop.get(f"{BASE}.jar") == jar("his")


async def test_the_same_bytes_by_two_are_no_conflict(shop: Deploying) -> None:
    for caller in (None, BOB):
        await shop.put(f"{BASE}.jar", jar(), caller=caller)
    for caller in (None, BOB):
        assert await shop.put(LIST, listing("1.0"), caller=caller) == 201
    assert shop.names(repository=held_name("own", "bob")) == []


async def test_snapshots_without_builds_of_two_who_deploy_at_once_are_not_mixed(shop: Deploying) -> None:
    for mark in ("1", "2"):
        for caller in (None, BOB):
            who = "bob" if caller else "alice"
            await shop.put(f"{MOVING}-SNAPSHOT.{'jar' if mark == '1' else 'war'}", jar(who), caller=caller)
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar.sha1", sums(jar("alice"))["sha1"].encode()) == 201
    for caller in (BOB, None):
        assert await shop.put(LIST, listing("1.1-SNAPSHOT"), caller=caller) == 201
    names = [f"{MOVING}-20270115.080000-{number}.{end}" for number in (1, 2) for end in ("jar", "war")]
    assert shop.names() == names
    for name, who in zip(names, ("alice", "alice", "bob", "bob"), strict=True):
        assert await shop.get(name) == jar(who)
    await shop.put(f"{MOVING}-SNAPSHOT.ear", jar())
    await shop.put(LIST, listing("1.1-SNAPSHOT"))
    assert f"{MOVING}-20270115.080000-3.ear" in shop.names()  # a deploy of its own


async def test_by_a_group_the_list_ends_the_deploy_where_there_is_one(nursery: trio.Nursery) -> None:
    shop = Deploying(World(nursery))
    releases = shop.repository("releases", "releases", staging=True)
    snapshots = shop.repository("snapshots", "snapshots", staging=True)
    group = Group("maven", Maven(), (releases, snapshots), publish_to=("releases", "snapshots"))
    for path, version in ((f"{MOVING}-20240102.030405-6.jar", "1.1-SNAPSHOT"), (f"{BASE}.jar", "1.0")):
        assert await shop.put(path, jar(), to=group) == 201
        assert shop.names(repository="releases") == shop.names(repository="snapshots")[:0]
        assert await shop.put(LIST, listing(version), to=group) == 201
    assert shop.names(repository="releases") == [f"{BASE}.jar"]
    assert shop.names(repository="snapshots") == [f"{MOVING}-20240102.030405-6.jar"]
    assert await shop.put(LIST, listing("1.0"), to=group) == 201


async def test_what_never_ends_is_forgotten_as_uploads_are_and_nothing_else(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    changes = SqliteChanges(catalog)
    assert await catalog.forget_held(1e12) == 0

    def record(repository: str, path: str, created: float) -> FileRecord:
        return FileRecord(repository, "org/app", path, Digest.of(path.encode()), 5, "a/b", created=created)

    held = held_name("own", "alice")
    files = (record(held, "org/app/1/a", 1.0), record(held, "org/app/1/b", 10.0), record("own", "org/app/1/c", 1.0))
    await changes.change(lambda view: Change(files=files), lambda: True)
    assert await catalog.forget_held(5.0) == 1
    assert [item.path for item in changes.view().below(held, "org")] == ["org/app/1/b"]
    assert await catalog.forget_held(11.0) == 1
    assert not changes.view().has_package(held, "org/app")
    assert [item.path for item in changes.view().below("own", "org")] == ["org/app/1/c"]
    await catalog.aclose(0.0)
