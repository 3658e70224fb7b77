"""A cache is kept to its size: what was not used for longest goes, what a kept manifest needs stays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from kit.space import CACHE, NOW, OLD, OWN, Warehouse
from mxart.digest import Digest
from mxart.store.space.evict import evict
from mxart.store.space.task import Freed, Member, Report


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    house = Warehouse(tmp_path / "data")
    yield house
    house.close()


def run(house: Warehouse, max_bytes: int, now: float = NOW, *, repository: str = "cache", dry: bool = False) -> Report:
    report = Report()
    member = next(item for item in house.members if item.name == repository)
    with house.ledger() as ledger:
        evict(house.task(dry_run=dry), ledger, structs.replace(member, max_bytes=max_bytes), now, report)
    return report


async def use(house: Warehouse, path: str, at: float) -> None:
    house.catalog.used("cache", path, at)
    await house.catalog.flush(at)


async def cached(house: Warehouse, name: str, size: int, at: float, package: str = "app") -> Digest:
    return await house.push_blob(name.encode().ljust(size, b"."), package, repository="cache", at=at)


async def test_what_was_not_used_for_longest_goes_first_down_to_nine_tenths(house: Warehouse) -> None:
    blobs = [await cached(house, f"{number}", 100, OLD + number) for number in range(11)]
    await use(house, f"app/blobs/{blobs[0]}", NOW - 5)
    report = run(house, 1000)
    assert [house.has(blob) for blob in blobs] == [True, False, False, *[True] * 8]
    assert house.catalog.held("cache") == (9, 900)
    assert report.evicted == {"cache": Freed(2, 200)}
    assert report.blobs == {"default": Freed(2, 200)}
    assert run(house, 1000).evicted == {}, "up to its size nothing goes"


async def test_a_layer_stays_as_long_as_any_kept_manifest_needs_it(house: Warehouse) -> None:
    shared = await cached(house, "shared", 400, OLD)
    mine = await cached(house, "mine", 400, OLD)
    old = await house.push_manifest(b"old".ljust(100), [shared, mine], repository="cache", tags=["old"], at=OLD + 1)
    new = await house.push_manifest(b"new".ljust(100), [shared], repository="cache", tags=["new"], at=OLD + 2)
    run(house, 999)
    assert not house.has(old)
    assert not house.has(mine)
    assert house.has(shared)
    assert house.has(new)
    assert house.names("cache") == {f"app/blobs/{shared}", f"app/manifests/{new}", "app/manifests/new"}
    house.check()


async def test_an_index_keeps_its_manifests_and_they_their_layers(house: Warehouse) -> None:
    layer = await cached(house, "layer", 300, OLD)
    child = await house.push_manifest(b"child".ljust(100), [layer], repository="cache", at=OLD)
    index = await house.push_manifest(
        b"index".ljust(200), manifests=[child], repository="cache", tags=["1"], at=OLD + 1
    )
    other = await cached(house, "other", 600, OLD + 2)
    run(house, 1150)
    assert house.names("cache") == {f"app/blobs/{other}", f"app/blobs/{layer}", f"app/manifests/{child}"}
    assert not house.has(index)
    assert house.has(child)
    run(house, 900)
    assert house.names("cache") == {f"app/blobs/{other}"}


async def test_a_tag_goes_with_its_manifest_and_a_used_tag_keeps_it(house: Warehouse) -> None:
    one = await house.push_manifest(b"1".ljust(500), repository="cache", tags=["one"], at=OLD)
    two = await house.push_manifest(b"2".ljust(500), repository="cache", tags=["two"], at=OLD + 1)
    await use(house, "app/manifests/one", NOW)
    run(house, 999)
    assert house.names("cache") == {f"app/manifests/{one}", "app/manifests/one"}
    assert [tag.name for tag in house.catalog.tags("cache", "app", "", 9)] == ["one"]
    assert not house.has(two)


async def test_what_is_being_sent_is_sent_to_its_end(house: Warehouse) -> None:
    blob = await cached(house, "in use", 500, OLD)
    await cached(house, "other", 600, OLD + 1)
    source = house.blobs["default"].open(blob)
    assert source is not None
    run(house, 1000)
    assert not house.has(blob)
    assert os.pread(source.fileno(), 6, 0) == b"in use"
    source.close()


async def test_bytes_that_another_repository_holds_stay_on_disk(house: Warehouse) -> None:
    await house.push_blob(b"both".ljust(500, b"."), at=OLD)
    blob = await cached(house, "both", 500, OLD)
    await cached(house, "other", 600, OLD + 1)
    report = run(house, 1000)
    assert f"app/blobs/{blob}" not in house.names("cache")
    assert house.has(blob)
    assert report.evicted == {"cache": Freed(1, 500)}
    assert report.blobs == {"default": Freed()}
    house.check()


async def test_each_cache_has_its_own_size(tmp_path: Path) -> None:
    other = Member("other", "default")
    house = Warehouse(tmp_path / "data", (OWN, CACHE, other))
    await cached(house, "1", 600, OLD)
    await cached(house, "2", 600, OLD + 1)
    await house.push_blob(b"x" * 5000, repository="other")
    run(house, 1000)
    assert house.catalog.held("cache") == (1, 600)
    assert house.catalog.held("other") == (1, 5000)
    house.close()


async def test_a_dry_run_says_how_much_is_too_much(house: Warehouse) -> None:
    await cached(house, "1", 600, OLD)
    await cached(house, "2", 600, OLD + 1)
    assert run(house, 1000, dry=True).evicted == {"cache": Freed(0, 300)}
    assert house.on_disk() == 2


async def test_a_cache_that_may_hold_nothing_is_empty_and_so_is_its_catalog(house: Warehouse) -> None:
    await house.push_image("1", repository="cache")
    run(house, 0)
    assert house.names("cache") == set()
    assert house.on_disk() == 0
    assert not house.catalog.has_package("cache", "app")
    assert house.counted_right()


async def test_what_came_this_moment_waits_for_the_next_round(house: Warehouse) -> None:
    """It may be about to get another name, in a repository that keeps what it has."""
    blob = await cached(house, "young", 600, NOW - 0.5)
    run(house, 100)
    assert house.names("cache") == {f"app/blobs/{blob}"}
    run(house, 100, NOW + 1)
    assert house.names("cache") == set()
    assert not house.has(blob)


Cached = st.lists(
    st.tuples(
        st.integers(1, 300),  # size
        st.integers(0, 1000),  # last use
        st.frozensets(st.integers(0, 11), max_size=4),  # links, to those before it
        st.booleans(),  # tagged
    ),
    max_size=12,
)


@given(files=Cached, max_bytes=st.integers(0, 2000))
@settings(max_examples=20, deadline=None)
def test_never_what_a_kept_manifest_needs_and_never_more_than_need_be(
    files: list[tuple[int, int, frozenset[int], bool]], max_bytes: int
) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            house = Warehouse(Path(folder))
            digests: list[Digest] = []
            for number, (size, used, links, tagged) in enumerate(files):
                data = f"{number}".encode().ljust(size + 3, b".")
                needs = [digests[link] for link in links if link < number]
                digests.append(
                    await house.push_manifest(
                        data,
                        repository="cache",
                        manifests=needs,
                        tags=[f"t{number}"] if tagged else [],
                        at=OLD + used,
                    )
                )
            before = house.catalog.held("cache")[1]
            run(house, max_bytes)
            house.check()
            assert house.counted_right()
            after = house.catalog.held("cache")[1]
            assert after == before if before <= max_bytes else after <= max_bytes * 0.9
            if after < before:
                largest = max(size for size, *_ in files) + 3
                assert after > max_bytes * 0.9 - 1 - largest
            house.close()

    trio.run(main)
