"""What is published is whole, and what hangs on it goes with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from mxart.digest import Digest
from mxart.store import publications, schema
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.generation import Generation
from mxart.store.publications import SqlitePublications
from mxart.store.published import (
    MAX_DEPTH,
    Condition,
    Holder,
    Incomplete,
    Need,
    Occupied,
    Publication,
    Referrer,
    ReferrerRecord,
    TooDeep,
    Unmet,
    Vanished,
    Withdrawn,
)

LAYER, OTHER = Digest.of(b"layer"), Digest.of(b"other")


def there() -> bool:
    return True


def record(path: str, digest: Digest, size: int = 5, **changes: float | str) -> FileRecord:
    values: dict[str, float | str] = {"repository": "own", "package": "app", "created": 1.0, **changes}
    return FileRecord(path=path, digest=digest, size=size, media_type="a/b", **values)  # type: ignore[arg-type]  # by name


def blob(digest: Digest, size: int = 5, **changes: float | str) -> Publication:
    return Publication(record(f"app/blobs/{digest}", digest, size, **changes))


def manifest(mark: str, *needs: Need, tags: tuple[str, ...] = (), nests: bool = False) -> Publication:
    digest = Digest.of(mark.encode())
    pairs = tuple((tag, f"app/manifests/{tag}") for tag in tags)
    return Publication(record(f"app/manifests/{digest}", digest), pairs, needs, nests=nests)


def need(digest: Digest, size: int | None = 5, kind: str = "blobs") -> Need:
    return Need(digest, size, (f"app/{kind}/{digest}",))


class Shop:
    def __init__(self, path: Path) -> None:
        self.catalog = SqliteCatalog(path)
        self.publications = SqlitePublications(self.catalog)

    def holds(self, path: str) -> bool:
        return self.catalog.file("own", path) is not None

    def tags(self) -> list[str]:
        return self.publications.tag_names("own", "app", "", 100)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path / "c")
    yield shop
    await shop.catalog.aclose(0.0)


async def test_a_file_its_tags_and_what_it_needs_become_true_together(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER), there)
    generation = shop.catalog.generation()
    await shop.publications.publish(manifest("m", need(LAYER), tags=("1", "1.2", "latest")), there)
    assert shop.catalog.generation() != generation
    assert shop.tags() == ["1", "1.2", "latest"]
    assert [tag.digest for tag in shop.catalog.tags("own", "app", "", 9)] == [Digest.of(b"m")] * 3
    tag = shop.catalog.file("own", "app/manifests/latest")
    assert tag is not None
    assert tag.digest == Digest.of(b"m")


async def test_what_lacks_something_is_refused_whole_and_all_that_it_lacks_is_named(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER, 7), there)
    missing, wrong = need(OTHER), need(LAYER, 8)
    with pytest.raises(Incomplete) as caught:
        await shop.publications.publish(manifest("m", missing, wrong, need(LAYER, None), tags=("1",)), there)
    assert caught.value.lacks == ((missing, None), (wrong, 7))
    assert not shop.holds(f"app/manifests/{Digest.of(b'm')}")
    assert shop.tags() == []


async def test_what_need_not_be_there_may_be_missing(shop: Shop) -> None:
    await shop.publications.publish(manifest("m", Need(OTHER, 9)), there)
    await shop.publications.publish(blob(OTHER), there)
    withdrawn = await shop.publications.withdraw("own", f"app/blobs/{OTHER}")
    assert withdrawn == Withdrawn((), 1)


async def test_one_of_several_names_is_enough(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER), there)
    either = Need(LAYER, 5, (f"app/manifests/{LAYER}", f"app/blobs/{LAYER}"))
    await shop.publications.publish(manifest("m", either), there)


async def test_what_another_package_or_repository_holds_does_not_count(shop: Shop) -> None:
    elsewhere = Publication(record(f"b/blobs/{LAYER}", LAYER, package="b"))
    abroad = Publication(record(f"app/blobs/{LAYER}", LAYER, repository="other"))
    await shop.publications.publish(elsewhere, there)
    await shop.publications.publish(abroad, there)
    with pytest.raises(Incomplete):
        await shop.publications.publish(manifest("m", need(LAYER)), there)
    assert sorted(shop.publications.holders(LAYER), key=lambda holder: holder.package) == [
        Holder("other", "app", f"app/blobs/{LAYER}"),
        Holder("own", "b", f"b/blobs/{LAYER}"),
    ]
    assert shop.publications.holders(OTHER) == []


async def test_bytes_that_were_swept_meanwhile_get_no_name(shop: Shop) -> None:
    with pytest.raises(Vanished):
        await shop.publications.publish(blob(LAYER), lambda: False)
    assert shop.catalog.packages("own", "", 9) == []


async def test_the_store_is_looked_at_inside_the_transaction(shop: Shop, tmp_path: Path) -> None:
    """So whoever sweeps in another process waits, or has been before."""
    other = Shop(tmp_path / "c")
    seen: list[str] = []

    def look() -> bool:
        assert shop.catalog.file("own", f"app/blobs/{LAYER}") is None
        seen.append("looked")
        return True

    async def sweep() -> None:
        await other.catalog.write(lambda db: seen.append("swept"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.publications.publish, blob(LAYER), look)
        nursery.start_soon(sweep)
    assert sorted(seen) == ["looked", "swept"]
    other.catalog.close()


async def test_the_same_again_succeeds_and_is_as_old_as_it_was(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER), there)
    await shop.publications.publish(blob(LAYER, created=9.0), there, replace=False)
    kept = shop.catalog.file("own", f"app/blobs/{LAYER}")
    assert kept is not None
    assert kept.created == 1.0
    assert shop.catalog.last_use("own", f"app/blobs/{LAYER}") == 9.0


async def test_what_is_relied_on_is_used_at_once_for_every_worker(shop: Shop, tmp_path: Path) -> None:
    await shop.publications.publish(blob(LAYER), there)
    assert await shop.publications.rely("own", f"app/blobs/{LAYER}", 77.0)
    assert not await shop.publications.rely("own", f"app/blobs/{OTHER}", 77.0)
    other = Shop(tmp_path / "c")
    assert other.catalog.last_use("own", f"app/blobs/{LAYER}") == 77.0
    other.catalog.close()


async def test_other_bytes_under_an_immutable_name_change_nothing(shop: Shop) -> None:
    await shop.publications.publish(Publication(record("app/1.zip", LAYER)), there)
    with pytest.raises(Occupied) as caught:
        await shop.publications.publish(Publication(record("app/1.zip", OTHER)), there)
    assert caught.value.names == ("app/1.zip",)
    kept = shop.catalog.file("own", "app/1.zip")
    assert kept is not None
    assert kept.digest == LAYER


async def test_a_tag_moves_only_where_it_may(shop: Shop) -> None:
    await shop.publications.publish(manifest("one", tags=("a", "b")), there)
    with pytest.raises(Occupied) as caught:
        await shop.publications.publish(manifest("two", tags=("b", "c")), there, replace=False)
    assert caught.value.names == ("b",)
    assert shop.tags() == ["a", "b"]
    await shop.publications.publish(manifest("one", tags=("b", "c")), there, replace=False)
    await shop.publications.publish(manifest("two", tags=("b",)), there)
    assert {tag.name: tag.digest for tag in shop.catalog.tags("own", "app", "", 9)} == {
        "a": Digest.of(b"one"),
        "b": Digest.of(b"two"),
        "c": Digest.of(b"one"),
    }


async def test_of_many_who_believe_the_same_of_a_tag_one_replaces_it(shop: Shop, tmp_path: Path) -> None:
    other = Shop(tmp_path / "c")
    await shop.publications.publish(manifest("zero", tags=("t",)), there)
    path, zero = "app/manifests/t", Digest.of(b"zero")
    done: list[int] = []

    async def push(number: int) -> None:
        mine = manifest(str(number), tags=("t",))
        believed = Publication(mine.record, mine.tags, condition=Condition(path, lambda held: held == zero))
        try:
            await (shop, other)[number % 2].publications.publish(believed, there)
        except Unmet:
            return
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(push, number)
    (winner,) = done
    held = shop.catalog.file("own", path)
    assert held is not None
    assert held.digest == Digest.of(str(winner).encode())
    other.catalog.close()


async def test_a_version_goes_with_its_tags_and_a_tag_alone(shop: Shop) -> None:
    one, two = manifest("one", tags=("a", "b")), manifest("two", tags=("c",))
    await shop.publications.publish(one, there)
    await shop.publications.publish(two, there)
    assert await shop.publications.withdraw("own", "app/manifests/a") == Withdrawn((), 0)
    assert shop.tags() == ["b", "c"]
    assert shop.holds(one.record.path)
    assert await shop.publications.withdraw("own", one.record.path, str(one.record.digest)) == Withdrawn(("b",), 0)
    assert shop.tags() == ["c"]
    assert not shop.holds("app/manifests/b")
    assert not shop.holds(one.record.path)
    assert await shop.publications.withdraw("own", one.record.path, str(one.record.digest)) is None
    assert await shop.publications.withdraw("own", two.record.path, str(two.record.digest)) == Withdrawn(("c",), 0)
    assert not shop.catalog.has_package("own", "app")


async def test_a_blob_that_has_a_manifests_bytes_leaves_its_tags_alone(shop: Shop) -> None:
    one = manifest("one", tags=("a",))
    await shop.publications.publish(one, there)
    await shop.publications.publish(blob(one.record.digest), there)
    await shop.publications.withdraw("own", f"app/blobs/{one.record.digest}")
    assert shop.tags() == ["a"]


async def test_who_deletes_what_is_needed_is_told_by_how_many(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER), there)
    for mark in ("one", "two"):
        await shop.publications.publish(manifest(mark, need(LAYER)), there)
    assert await shop.publications.withdraw("own", f"app/blobs/{LAYER}") == Withdrawn((), 2)


async def test_indexes_nest_so_deep_and_no_deeper(shop: Shop) -> None:
    await shop.publications.publish(blob(LAYER), there)
    await shop.publications.publish(manifest("1", need(LAYER)), there)
    for level in range(2, MAX_DEPTH + 1):
        below = need(Digest.of(str(level - 1).encode()), kind="manifests")
        await shop.publications.publish(manifest(str(level), below, need(LAYER), nests=True), there)
    top = need(Digest.of(str(MAX_DEPTH).encode()), kind="manifests")
    with pytest.raises(TooDeep):
        await shop.publications.publish(manifest("top", top, nests=True), there)
    assert not shop.holds(f"app/manifests/{Digest.of(b'top')}")


async def test_indexes_that_share_all_below_them_are_judged_by_looking_at_each_once(shop: Shop) -> None:
    """Eight levels of eight that need all eight below: sixteen million ways down."""
    await shop.publications.publish(manifest("0 0"), there)
    below = ["0 0"]
    for level in range(1, 9):
        needs = [need(Digest.of(mark.encode()), kind="manifests") for mark in below]
        below = [f"{level} {number}" for number in range(8)]
        for mark in below:
            await shop.publications.publish(manifest(mark, *needs, nests=True), there)


async def test_what_is_below_a_file_is_looked_at_only_so_far(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publications, "MAX_BELOW", 6)
    await shop.publications.publish(blob(LAYER), there)
    for mark in "abc":
        await shop.publications.publish(manifest(mark, need(LAYER)), there)
    needs = [need(Digest.of(mark.encode()), kind="manifests") for mark in "abc"]
    await shop.publications.publish(manifest("three", *needs, nests=True), there)
    with pytest.raises(TooDeep, match="more than 6 files"):
        await shop.publications.publish(manifest("four", *needs, need(LAYER), nests=True), there)
    assert not shop.holds(f"app/manifests/{Digest.of(b'four')}")


async def test_a_version_of_very_many_tags_goes_bit_by_bit(tmp_path: Path) -> None:
    """So that nobody waits for the one who made them."""
    names = tuple(f"{number:04}" for number in range(1200))
    one = manifest("one", tags=names)
    commits = Generation()
    catalog = SqliteCatalog(tmp_path / "c", commits)
    publications = SqlitePublications(catalog)
    await publications.publish(one, there)
    before = commits.value()
    gone = await publications.withdraw("own", one.record.path, str(one.record.digest))
    assert gone == Withdrawn(names, 0)
    assert commits.value() - before >= 3, "it was one transaction"
    assert not catalog.has_package("own", "app")
    catalog.close()


async def test_referrers_come_by_digest_page_by_page_and_by_type_and_go_with_their_file(shop: Shop) -> None:
    subject = Digest.of(b"subject that is not there")
    sums: list[Digest] = []
    for number in range(6):
        kind = "sbom" if number % 2 else "signature"
        made = manifest(f"r{number}")
        sums.append(made.record.digest)
        said = Referrer(subject, kind, f"{number}".encode())
        await shop.publications.publish(Publication(made.record, referrer=said), there)
    every = shop.publications.referrers("own", "app", str(subject))
    assert [entry.digest for entry in every] == sorted(sums, key=str)
    assert shop.publications.referrers("own", "app", str(subject), "", str(every[1].digest), 2) == every[2:4]
    sboms = shop.publications.referrers("own", "app", str(subject), "sbom")
    assert sboms == [entry for entry in every if entry.artifact_type == "sbom"]
    for names in (("own", "app", str(LAYER)), ("own", "b", str(subject)), ("x", "app", str(subject))):
        assert shop.publications.referrers(*names) == []
    await shop.publications.withdraw("own", f"app/manifests/{every[0].digest}", str(every[0].digest))
    assert shop.publications.referrers("own", "app", str(subject)) == every[1:]


async def test_a_referrer_published_again_is_listed_once_as_it_is_now(shop: Shop) -> None:
    made = manifest("r").record
    for kind in ("a", "b"):
        await shop.publications.publish(Publication(made, referrer=Referrer(LAYER, kind, kind.encode())), there)
    assert shop.publications.referrers("own", "app", str(LAYER)) == [ReferrerRecord(made.digest, 5, "a/b", "b", b"b")]


async def test_a_package_is_owned_by_more_than_remarks_on_what_others_hold(shop: Shop) -> None:
    companions = "sha256-*"

    def owned() -> bool:
        return shop.publications.owned("own", "app", companions)

    def remark(mark: str, subject: Digest, *tags: str) -> Publication:
        made = manifest(mark, need(LAYER), tags=tags)
        return replace(made, referrer=Referrer(subject, "a/b", b"{}"))

    assert not owned()
    assert not shop.publications.begun("own", "app")
    await shop.publications.publish(blob(LAYER), there)
    assert not owned()  # an upload for whatever
    assert shop.publications.begun("own", "app")
    await shop.publications.publish(remark("signature", OTHER), there)
    assert not shop.publications.begun("own", "app")
    await shop.publications.publish(manifest("old signature", need(LAYER), tags=("sha256-00.sig",)), there)
    assert not owned()
    assert shop.publications.owned("own", "app", "")  # a format that knows no such tags
    # An index that is a remark, and what it needs: pushed before it, a part looks like an image for a moment.
    await shop.publications.publish(manifest("part", need(LAYER)), there)
    assert owned()
    whole = manifest("whole", need(Digest.of(b"part"), kind="manifests"), nests=True)
    await shop.publications.publish(replace(whole, referrer=Referrer(OTHER, "a/b", b"{}")), there)
    assert not owned()
    await shop.publications.publish(manifest("image", need(LAYER)), there)
    assert owned()
    await shop.publications.withdraw("own", f"app/manifests/{Digest.of(b'image')}", str(Digest.of(b"image")))
    assert not owned()
    await shop.publications.publish(remark("tagged", OTHER, "1"), there)
    assert owned()
    assert not shop.publications.owned("own", "other", companions)
    assert not shop.publications.owned("others", "app", companions)


async def test_two_publish_the_same_at_once_from_two_workers(shop: Shop, tmp_path: Path) -> None:
    other = Shop(tmp_path / "c")
    refused: list[str] = []

    async def push(through: Shop, mark: str) -> None:
        await through.publications.publish(blob(LAYER), there)
        try:
            await through.publications.publish(manifest(mark, need(LAYER), tags=("latest",)), there, replace=False)
        except Occupied:
            refused.append(mark)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(push, shop, f"a{number}")
            nursery.start_soon(push, other, f"b{number}")
    assert len(refused) == 39
    assert shop.tags() == ["latest"]
    other.catalog.close()


async def test_a_refusal_among_other_writes_takes_back_its_own_alone(shop: Shop) -> None:
    refused: list[int] = []

    async def push(number: int) -> None:
        try:
            await shop.publications.publish(blob(Digest.of(bytes([number]))), lambda: number % 2 == 0)
        except Vanished:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(push, number)
    assert sorted(refused) == list(range(1, 40, 2))
    assert all(shop.holds(f"app/blobs/{Digest.of(bytes([number]))}") == (number % 2 == 0) for number in range(40))


async def test_a_cancelled_publication_happened_or_did_not(shop: Shop) -> None:
    for number, delay in enumerate((0.0, 0.0001, 0.0003, 0.001, 0.003)):
        made = manifest(str(number), tags=(f"t{number}",))
        with trio.move_on_after(delay):
            await shop.publications.publish(made, there)
        assert shop.holds(made.record.path) == (f"t{number}" in shop.tags())


async def test_a_catalog_of_before_gets_the_new_tables(tmp_path: Path) -> None:
    connection = schema.connect(tmp_path / "c")
    for statement in schema.SCHEMA.migrations[0].split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.SCHEMA.application_id}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    shop = Shop(tmp_path / "c")
    await shop.publications.publish(manifest("m", tags=("1",)), there)
    assert shop.tags() == ["1"]
    await shop.catalog.aclose(0.0)


async def test_a_file_comes_and_goes_with_those_beside_it(shop: Shop) -> None:
    beside = (record("app/1.mod", OTHER), record("app/1.info", Digest.of(b"info")))
    free = Condition("app/1.zip", lambda held: held is None)
    release = Publication(record("app/1.zip", LAYER), (("v1", "app/1"),), condition=free, beside=beside)
    with pytest.raises(Vanished):
        await shop.publications.publish(release, lambda: False)
    assert not any(shop.holds(path) for path in ("app/1.zip", "app/1.mod", "app/1.info"))
    await shop.publications.publish(release, there)
    assert all(shop.holds(path) for path in ("app/1.zip", "app/1.mod", "app/1.info"))
    assert shop.tags() == ["v1"]
    assert not shop.publications.begun("own", "app")
    with pytest.raises(Unmet):
        await shop.publications.publish(replace(release, record=record("app/1.zip", OTHER)), there)
    gone = await shop.publications.withdraw("own", "app/1.zip", beside=("app/1.mod", "app/1.info"))
    assert gone == Withdrawn(("v1",), 0)
    assert not any(shop.holds(path) for path in ("app/1", "app/1.zip", "app/1.mod", "app/1.info"))
    assert not shop.catalog.has_package("own", "app")
