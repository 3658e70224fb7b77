"""What a repository holds is counted whatever happens to it, and never becomes more than its quota."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.space import Warehouse
from mxart.digest import Digest
from mxart.errors import StorageFull, TooLarge
from mxart.store.publications import SqlitePublications
from mxart.store.quotas import Quotas


@pytest.fixture
async def house(tmp_path: Path) -> Warehouse:
    """Its repository `own` may hold 100 bytes."""
    house = Warehouse(tmp_path / "data")
    house.publications = SqlitePublications(house.catalog, Quotas({"own": 100}))
    return house


async def test_up_to_the_quota_all_is_taken_and_beyond_it_nothing(house: Warehouse) -> None:
    await house.push_blob(b"a" * 60)
    await house.push_blob(b"b" * 40)
    with pytest.raises(StorageFull) as refusal:
        await house.push_blob(b"c")
    assert refusal.value.status == 507
    for number in ("100 bytes", "100 of them are used", "needs 1 more"):
        assert number in refusal.value.message
    assert house.catalog.held("own") == (2, 100)
    house.check()


async def test_what_can_never_fit_is_another_answer(house: Warehouse) -> None:
    with pytest.raises(TooLarge, match="can never hold this: its quota is 100 bytes, 0 of them are used") as refusal:
        await house.push_blob(b"a" * 101)
    assert refusal.value.status == 413
    assert house.catalog.held("own") == (0, 0)


async def test_bytes_count_once_however_many_names_they_have(house: Warehouse) -> None:
    layer = await house.push_blob(b"a" * 60)
    await house.push_blob(b"a" * 60, "other package")
    await house.push_manifest(b"m" * 40, [layer], tags=["1", "2", "latest"])
    assert house.catalog.held("own") == (2, 100)
    await house.push_manifest(b"m" * 40, [layer], tags=["3"])
    assert "app/manifests/3" in house.names()


async def test_a_manifest_that_does_not_fit_leaves_no_tag_behind(house: Warehouse) -> None:
    layer = await house.push_blob(b"a" * 60)
    with pytest.raises(StorageFull):
        await house.push_manifest(b"m" * 41, [layer], tags=["1"])
    assert house.names() == {f"app/blobs/{layer}"}


async def test_what_is_deleted_makes_room(house: Warehouse) -> None:
    layer = await house.push_blob(b"a" * 60)
    manifest = await house.push_manifest(b"m" * 40, [layer], tags=["1"])
    await house.publications.withdraw("own", f"app/manifests/{manifest}", str(manifest))
    assert house.catalog.held("own") == (1, 60)
    await house.push_manifest(b"n" * 40, [layer], tags=["1"])


async def test_a_push_is_asked_about_before_its_bytes_are_taken_in(house: Warehouse) -> None:
    layer = await house.push_blob(b"a" * 60)
    ask = house.publications.demand_room
    ask("own", None, 40)
    ask("own", layer, 60)
    ask("another repository", None, 1 << 60)
    with pytest.raises(StorageFull):
        ask("own", None, 41)
    with pytest.raises(StorageFull):
        ask("own", Digest.of(b"other bytes"), 60)
    with pytest.raises(TooLarge):
        ask("own", None, 101)


async def test_of_two_pushes_at_once_that_do_not_fit_together_one_is_refused(house: Warehouse) -> None:
    outcomes: list[str] = []

    async def push(data: bytes) -> None:
        try:
            await house.push_blob(data)
            outcomes.append("taken")
        except StorageFull:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push, b"a" * 60)
        nursery.start_soon(push, b"b" * 60)
    assert sorted(outcomes) == ["refused", "taken"]
    assert house.catalog.held("own") == (1, 60)


async def test_a_quota_that_was_lowered_refuses_what_is_new_and_nothing_else(house: Warehouse) -> None:
    layer = await house.push_blob(b"a" * 60)
    house.publications = SqlitePublications(house.catalog, Quotas({"own": 10}))
    await house.push_blob(b"a" * 60, "other")
    with pytest.raises(TooLarge):
        await house.push_blob(b"b" * 11)
    with pytest.raises(StorageFull):
        await house.push_blob(b"b")
    assert house.catalog.file("own", f"other/blobs/{layer}") is not None


async def test_asking_costs_microseconds(house: Warehouse) -> None:
    await house.push_blob(b"a" * 60)
    began = time.perf_counter()
    for _ in range(1000):
        house.publications.demand_room("own", None, 1)
    assert (time.perf_counter() - began) / 1000 < 500e-6  # 8 on a quiet machine


# Counting


Steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "tag", "forget", "withdraw"]),
        st.sampled_from(["own", "cache"]),
        st.sampled_from(["app", "lib"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@given(steps=Steps)
@settings(max_examples=20, deadline=None)
def test_the_running_count_is_right_after_anything(steps: list[tuple[str, str, str, int]]) -> None:
    import tempfile

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            house = Warehouse(Path(folder))
            for what, repository, package, number in steps:
                data = f"data {number}".encode() * (number + 1)
                digest = Digest.of(data)
                if what == "put":
                    await house.push_blob(data, package, repository=repository)
                elif what == "tag":
                    await house.push_manifest(data, package=package, repository=repository, tags=[str(number % 2)])
                elif what == "forget":
                    await house.catalog.forget_file(repository, f"{package}/blobs/{digest}")
                else:
                    await house.publications.withdraw(repository, f"{package}/manifests/{digest}", str(digest))
            assert house.counted_right()
            for repository in ("own", "cache"):
                rows = house.catalog.ask(
                    "SELECT DISTINCT f.digest, f.size FROM files f JOIN repositories r ON r.id = f.repository"
                    " WHERE r.name = ?",
                    (repository,),
                )
                assert house.catalog.held(repository) == (len(rows), sum(size for _, size in rows))
            house.close()

    trio.run(main)


async def test_a_count_that_somebody_spoiled_is_made_right(house: Warehouse) -> None:
    await house.push_image("1", repository="cache")
    held = house.catalog.held("cache")
    with sqlite3.connect(house.paths.catalog) as db:
        db.execute("UPDATE usage SET bytes = bytes + 1000000")
    db.close()
    with house.ledger() as ledger:
        assert ledger.recount()
        assert not ledger.recount()
    assert house.catalog.held("cache") == held


async def test_an_older_catalog_is_counted_when_it_is_brought_up_to_date(tmp_path: Path) -> None:
    from mxart.store import schema

    house = Warehouse(tmp_path / "data")
    await house.push_image("1", repository="cache")
    held = house.catalog.held("cache")
    house.close()
    with sqlite3.connect(house.paths.catalog) as db:
        for trigger in ("holdings_more", "holdings_less", "files_more", "files_less", "files_moved"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("DROP TABLE holdings")
        db.execute("DROP TABLE usage")
        db.execute("DROP TABLE notes")
        db.execute("DROP INDEX files_of_sha1")
        db.execute("ALTER TABLE files DROP COLUMN checksum")
        db.execute("PRAGMA user_version = 2")
    db.close()
    schema.prepare(house.paths.catalog)
    again = Warehouse(tmp_path / "data")
    assert again.catalog.held("cache") == held
    again.close()
