"""What is to change is decided by what is there, in the transaction that changes it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from mxart.digest import Digest
from mxart.errors import Conflict, StorageFull
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.changes import NOTHING, Change, Note, View, held_name
from mxart.store.changing import SqliteChanges
from mxart.store.generation import Generation
from mxart.store.published import Vanished
from mxart.store.quotas import Quotas

JAR, POM = Digest.of(b"jar"), Digest.of(b"pom")


def there() -> bool:
    return True


def record(path: str, digest: Digest = JAR, package: str = "org/app", **changes: float | str) -> FileRecord:
    made = FileRecord("own", package, path, digest, 5, "a/b", created=1.0)
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


def note(key: str, value: str, path: str = "org/app") -> Note:
    return Note("own", path, key, value)


class Shop:
    def __init__(self, path: Path, quotas: Quotas | None = None) -> None:
        self.path = path
        self.catalog = SqliteCatalog(path)
        self.changes = SqliteChanges(self.catalog, quotas or Quotas({}))

    async def put(self, *files: FileRecord, **more: tuple[object, ...]) -> Change:
        change = Change(files=files, **more)  # type: ignore[arg-type]  # by name
        return await self.changes.change(lambda view: change, there)

    def paths(self, folder: str = "org") -> list[str]:
        return [item.path for item in self.changes.view().below("own", folder)]

    def count(self, table: str) -> int:
        with sqlite3.connect(self.path) as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # of our own words


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path / "c")
    yield shop
    await shop.catalog.aclose(0.0)


async def test_files_tags_and_notes_become_true_together_and_go_together(shop: Shop) -> None:
    tag = ("1.0", record("org/app/1.0", POM))
    jar, pom = record("org/app/1.0/app-1.0.jar"), record("org/app/1.0/app-1.0.pom", POM)
    done = await shop.put(jar, pom, tags=(tag,), notes=(note("build", "3"),))
    view = shop.changes.view()
    assert done.files == (jar, pom)
    assert shop.paths() == [jar.path, pom.path]  # the tag's own record is no file of anybody's
    assert view.file("own", jar.path) == jar
    found = view.tag("own", "org/app", "1.0")
    assert found is not None
    assert found.digest == POM
    assert view.notes("own", "org/app") == {"build": "3"}
    gone = tuple(("own", path) for path in ("org/app/1.0", jar.path, pom.path))
    await shop.changes.change(lambda view: Change(gone=gone), there)
    assert shop.paths() == []
    assert view.tag("own", "org/app", "1.0") is None
    assert not view.has_package("own", "org/app")
    assert view.notes("own", "org/app") == {"build": "3"}  # they outlast the files
    assert [shop.count(table) for table in ("files", "tags", "versions", "packages")] == [0, 0, 0, 0]


async def test_what_is_below_a_folder_is_not_what_only_begins_so(shop: Shop) -> None:
    paths = ["org/app/1/a", "org/app/1.0/a", "org/app-x/1/a", "org/app", "org/apple/1/a", "org0/a"]
    await shop.put(*(record(path) for path in paths))
    assert shop.paths("org/app") == ["org/app/1.0/a", "org/app/1/a"]
    assert shop.paths("org/app/1") == ["org/app/1/a"]
    assert shop.paths("") == sorted(paths)
    assert shop.changes.view().below("other", "") == []


async def test_a_tag_that_moves_leaves_no_version_behind_but_one_that_is_tagged_still(shop: Shop) -> None:
    await shop.put(tags=(("1", record("org/app/1", JAR)), ("2", record("org/app/2", JAR))))
    await shop.put(tags=(("1", record("org/app/1", POM)),))
    assert shop.count("versions") == 2
    await shop.put(tags=(("2", record("org/app/2", POM)),))
    assert shop.count("versions") == 1
    await shop.changes.change(lambda view: Change(gone=(("own", "org/app/1"),)), there)
    assert shop.count("versions") == 1
    assert shop.changes.view().tag("own", "org/app", "2") is not None


async def test_the_same_bytes_keep_their_time(shop: Shop) -> None:
    await shop.put(record("org/app/1/a"))
    await shop.put(record("org/app/1/a", created=2.0, media_type="c/d"))
    kept = shop.changes.view().file("own", "org/app/1/a")
    assert kept == record("org/app/1/a", media_type="c/d")
    await shop.put(record("org/app/1/a", POM, created=3.0))
    kept = shop.changes.view().file("own", "org/app/1/a")
    assert kept is not None
    assert kept.created == 3.0


async def test_a_refusal_changes_nothing_and_harms_nobody_beside_it(shop: Shop) -> None:
    async def refused() -> None:
        def refuse(view: View) -> Change:
            raise Conflict("no")

        with pytest.raises(Conflict):
            await shop.changes.change(refuse, there)

    async def vanished() -> None:
        with pytest.raises(Vanished):
            await shop.changes.change(lambda view: Change(files=(record("org/b"),)), lambda: False)

    async with trio.open_nursery() as nursery:
        for task in (refused, vanished, refused):
            nursery.start_soon(task)
        nursery.start_soon(shop.put, record("org/a"))
    assert shop.paths() == ["org/a"]


async def test_who_looks_sees_one_moment_whoever_writes_meanwhile(shop: Shop) -> None:
    await shop.put(record("org/a"))

    def look(view: View) -> tuple[bool, bool]:
        before = view.file("own", "org/b") is not None
        with sqlite3.connect(shop.path) as db:  # another process
            db.execute("UPDATE files SET path = 'org/b'")
        return before, view.file("own", "org/b") is not None

    assert shop.changes.look(look) == (False, False)
    assert shop.paths() == ["org/b"]

    def refuse(view: View) -> Change:
        raise Conflict("no")

    with pytest.raises(Conflict):
        shop.changes.look(refuse)
    assert shop.changes.look(lambda view: view.file("own", "org/b")) is not None


async def test_many_who_count_at_once_never_count_the_same_number(shop: Shop, tmp_path: Path) -> None:
    others = [shop, Shop(tmp_path / "c"), Shop(tmp_path / "c")]
    numbers: list[str] = []

    def next_number(view: View) -> Change:
        number = int(view.notes("own", "org/app").get("build", "0")) + 1
        return Change(notes=(note("build", str(number)),))

    async def count(shop: Shop) -> None:
        for _ in range(5):
            change = await shop.changes.change(next_number, there)
            numbers.append(change.notes[0].value)

    async with trio.open_nursery() as nursery:
        for other in others * 4:
            nursery.start_soon(count, other)
    assert sorted(map(int, numbers)) == list(range(1, 61))
    for other in others[1:]:
        await other.catalog.aclose(0.0)


async def test_notes_are_by_path_and_an_empty_one_goes(shop: Shop) -> None:
    await shop.put(notes=(note("a", "1"), note("b", "2"), note("a", "3", "org")))
    view = shop.changes.view()
    assert view.notes("own", "org/app") == {"a": "1", "b": "2"}
    await shop.put(notes=(note("a", ""), note("b", "4")))
    assert view.notes("own", "org/app") == {"b": "4"}
    assert view.notes("own", "org") == {"a": "3"}
    assert view.notes("other", "org") == {}


async def test_what_is_more_than_a_quota_is_refused_and_what_only_moves_is_not(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "c", Quotas({"own": 5}))
    await shop.put(record("org/a"))
    with pytest.raises(StorageFull):
        await shop.put(record("org/b", POM))
    await shop.changes.change(lambda view: Change(gone=(("own", "org/a"),), files=(record("org/b", POM),)), there)
    assert shop.paths() == ["org/b"]
    await shop.catalog.aclose(0.0)


async def test_what_is_held_for_a_repository_counts_for_its_quota_and_is_not_counted_twice(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "c", Quotas({"own": 10}))
    held = held_name("own", "alice")
    await shop.put(record("org/a"), record("org/b", POM, repository=held))
    with pytest.raises(StorageFull):
        await shop.put(record("org/c", Digest.of(b"more"), repository=held_name("own", "bob")))
    with pytest.raises(StorageFull):
        await shop.put(record("org/c", Digest.of(b"more")))
    await shop.put(record("org/c", Digest.of(b"more"), repository="own2"))
    seen = Change(gone=((held, "org/b"),), files=(record("org/b", POM),))
    await shop.changes.change(lambda view: seen, there)
    assert shop.paths() == ["org/a", "org/b"]
    await shop.catalog.aclose(0.0)


async def test_a_change_is_told_and_nothing_is_not(tmp_path: Path) -> None:
    generation = Generation()
    catalog = SqliteCatalog(tmp_path / "c", generation)
    changes = SqliteChanges(catalog)
    before = generation.value()
    await changes.change(lambda view: Change(files=(record("org/a"),)), there)
    assert generation.value() != before
    assert not await changes.change(lambda view: NOTHING, lambda: False)
    await catalog.aclose(0.0)
    generation.close()


async def test_a_folder_has_what_lies_right_below_it_however_much_that_is(shop: Shop) -> None:
    files = [record(f"org/app/{number}/app-{number}.jar") for number in range(30)]
    files += [record("org/app-x/1/a.jar", package="org/app-x"), record("org/app.jar"), record("org/app0/1/b.jar")]
    await shop.put(*files, record("zoo.txt", package=""), tags=(("1", record("org/app/1")), ("7", record("org/7"))))
    view = shop.changes.view()
    assert [(child.name, child.record is None) for child in view.children("own", "")] == [
        ("org", True),
        ("zoo.txt", False),
    ]
    assert [child.name for child in view.children("own", "org")] == ["app-x", "app.jar", "app", "app0"]
    assert [child.package for child in view.children("own", "org")] == ["org/app-x", "org/app", "org/app", "org/app"]
    assert [child.name for child in view.children("own", "org/app/7")] == ["app-7.jar"]
    whole = view.children("own", "org/app")
    assert len(whole) == 30
    pages = [view.children("own", "org/app", after, 7) for after in (None, whole[6], whole[13], whole[27], whole[29])]
    assert pages == [whole[:7], whole[7:14], whole[14:21], whole[28:], []]
    assert view.children("own", "org/ap") == view.children("other", "") == []
    assert [tag.name for tag in view.tags("own", "org/app")] == ["1", "7"]
    assert view.tags("own", "org/none") == []
