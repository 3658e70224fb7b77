"""Retention in the catalog: what a preview says goes, and only that; what changed meanwhile stays."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from kit.space import DAY, NOW, OLD, OWN, Warehouse
from mxart.config import Retention
from mxart.digest import Digest
from mxart.store.space.gc import collect
from mxart.store.space.retention import Going
from mxart.store.space.retire import retire
from mxart.store.space.task import Retired


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    house = Warehouse(tmp_path / "data")
    yield house
    house.close()


def run(house: Warehouse, *rules: Retention, dry_run: bool = False) -> tuple[Retired, set[tuple[str, str, str]]]:
    went: set[tuple[str, str, str]] = set()

    def note(package: str, going: Going, freed: int) -> None:
        went.add((package, going.what, going.name))

    member = structs.replace(OWN, retention=rules)
    with house.ledger() as ledger:
        return retire(ledger, member, NOW, dry_run=dry_run, note=note), went


async def test_old_tags_go_with_their_manifests_and_then_their_layers(house: Warehouse) -> None:
    old = await house.push_image("1", at=NOW - 60 * DAY)
    new = await house.push_image("2", at=NOW - 50 * DAY)
    before = house.catalog.generation()
    retired, went = run(house, Retention(keep=1))
    assert retired == Retired(1, 1, len(b"manifest of 1") + 2001)
    assert went == {("app", "tag", "1"), ("app", "manifest", str(old[0]))}
    assert house.catalog.generation() != before
    assert [tag.name for tag in house.catalog.tags("own", "app", "", 9)] == ["2"]
    assert f"app/manifests/{old[0]}" not in house.names()
    house.check()
    with house.ledger() as ledger:
        collect(house.task(), ledger, NOW)
    assert not any(house.has(digest) for digest in old)
    assert all(house.has(digest) for digest in new)
    assert house.counted_right()


async def test_a_preview_says_the_same_and_does_nothing(house: Warehouse) -> None:
    for number in range(4):
        await house.push_image(f"{number}", at=OLD + number)
    names = house.names()
    dry = run(house, Retention(keep=2), dry_run=True)
    assert house.names() == names
    assert run(house, Retention(keep=2)) == dry
    assert run(house, Retention(keep=2)) == (Retired(), set())


async def test_bytes_that_another_package_keeps_do_not_come_free(house: Warehouse) -> None:
    await house.push_image("1", "app", at=OLD)
    await house.push_image("1", "copy", at=OLD)
    dry, _ = run(house, Retention(packages="app", keep=0), dry_run=True)
    assert dry == Retired(1, 1, 0)
    both = run(house, Retention(keep=0), dry_run=True)
    assert both[0] == Retired(2, 2, len(b"manifest of 1") + 2001)
    assert run(house, Retention(keep=0)) == both


async def test_a_package_of_which_all_goes_is_none(house: Warehouse) -> None:
    await house.push_manifest(b"alone", tags=["1"])
    run(house, Retention(keep=0))
    assert not house.catalog.has_package("own", "app")


async def test_a_manifest_pushed_as_a_layer_too_stays_that(house: Warehouse) -> None:
    digest = await house.push_manifest(b"both", tags=["1"])
    await house.push_blob(b"both")
    run(house, Retention(keep=0))
    assert house.names() == {f"app/blobs/{digest}"}


# What others do between reading and doing.


async def run_with(house: Warehouse, act: object, *rules: Retention) -> Retired:
    """`act` is done once, when the package was read."""
    acts = [act]
    member = structs.replace(OWN, retention=rules)

    def pause(stage: str) -> None:
        if stage == "read" and acts:
            trio.from_thread.run(acts.pop())

    def work() -> Retired:
        with house.ledger() as ledger:
            return retire(ledger, member, NOW, pause=pause)

    return await trio.to_thread.run_sync(work)


async def test_a_tag_that_moves_meanwhile_stays(house: Warehouse) -> None:
    await house.push_manifest(b"old", tags=["1"])

    async def move() -> None:
        await house.push_manifest(b"new", tags=["1"], at=NOW)

    retired = await run_with(house, move, Retention(days=7))
    assert retired == Retired(changed=1)
    assert [tag.digest for tag in house.catalog.tags("own", "app", "", 9)] == [Digest.of(b"new")]
    house.check()


async def test_a_manifest_that_is_tagged_linked_signed_or_pulled_meanwhile_stays(house: Warehouse) -> None:
    one = await house.push_manifest(b"one", tags=["1"])
    two = await house.push_manifest(b"two", tags=["2"])
    three = await house.push_manifest(b"three", tags=["3"])
    four = await house.push_manifest(b"four")
    await house.push_manifest(b"five", tags=["5"])

    async def act() -> None:
        await house.push_manifest(b"one", tags=["latest"], at=NOW)
        await house.push_manifest(b"index", manifests=[two], tags=["multi"], at=NOW)
        await house.push_manifest(b"signature", subject=three, at=NOW)
        house.catalog.used("own", f"app/manifests/{four}", NOW)
        await house.catalog.flush(NOW)

    retired = await run_with(house, act, Retention(days=7, untagged_days=7))
    assert retired == Retired(1, 1, 4, changed=4)
    kept = {f"app/manifests/{digest}" for digest in (one, two, three, four)}
    assert kept <= house.names()
    assert "app/manifests/5" not in house.names()
    house.check()


async def test_a_signature_whose_manifest_arrives_meanwhile_stays(house: Warehouse) -> None:
    signature = await house.push_manifest(b"signature", subject=Digest.of(b"late"))

    async def act() -> None:
        await house.push_manifest(b"late", tags=["1"], at=NOW)

    assert (await run_with(house, act, Retention(untagged_days=7))).changed == 1
    assert f"app/manifests/{signature}" in house.names()


_KILLED = """
import os, signal, sys, msgspec
from pathlib import Path
from mxart.store.generation import Generation
from mxart.store.space.ledger import Ledger
from mxart.store.space.retire import retire
from mxart.store.space.task import Task

task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
left = int(sys.argv[1])
def pause(stage):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
ledger = Ledger(Path(task.catalog), Generation.outside(Path(task.generation)), task.members)
retire(ledger, task.members[0], float(sys.argv[2]), pause=pause)
print("survived")
"""


@pytest.mark.parametrize("step", [1, 2, 3, 6, 9])
async def test_killed_anywhere_it_leaves_whole_images_and_the_next_run_completes_it(tmp_path: Path, step: int) -> None:
    rules = (Retention(keep=0),)
    house = Warehouse(tmp_path / "data", (structs.replace(OWN, retention=rules),))
    for package in "abcd":
        child = await house.push_manifest(b"child", package=package)
        await house.push_manifest(b"index", manifests=[child], package=package, tags=["1"])
    died = await trio.run_process(
        [sys.executable, "-c", _KILLED, str(step), str(NOW)],
        stdin=msgspec.json.encode(house.task()),
        capture_stdout=True,
        check=False,
    )
    assert (died.returncode, died.stdout) == ((0, b"survived\n") if step == 9 else (-signal.SIGKILL, b""))
    house.check()
    assert len(house.names()) == 12 - 3 * (step // 2)
    run(house, *rules)
    assert house.names() == set()
    house.close()


Images = st.lists(
    st.tuples(
        st.sampled_from(["app", "lib"]),
        st.integers(0, 50),  # age in days
        st.frozensets(st.integers(0, 5), max_size=2),  # children, of those before it
        st.one_of(st.none(), st.integers(0, 5)),  # attached to
        st.frozensets(st.sampled_from(["1", "2", "3", "latest"]), max_size=2),
    ),
    max_size=8,
)


@given(images=Images, keep=st.integers(0, 3), days=st.integers(0, 50), untagged=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_a_preview_equals_the_run_and_the_run_leaves_everything_whole(
    images: list[tuple[str, int, frozenset[int], int | None, frozenset[str]]], keep: int, days: int, untagged: int
) -> None:
    rules = (Retention(keep=keep, days=days), Retention(tags="latest", keep=1), Retention(untagged_days=untagged))

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            house = Warehouse(Path(folder))
            pushed: list[tuple[str, Digest]] = []
            for number, (package, age, children, subject, tags) in enumerate(images):
                layer = await house.push_blob(f"layer {number % 3}".encode(), package)
                needs = [pushed[child][1] for child in children if child < number and pushed[child][0] == package]
                attached = pushed[subject] if subject is not None and subject < number else None
                digest = await house.push_manifest(
                    f"manifest {number}".encode(),
                    [layer],
                    package,
                    tags=sorted(tags),
                    manifests=needs,
                    subject=attached[1] if attached is not None and attached[0] == package else None,
                    at=NOW - age * DAY,
                )
                pushed.append((package, digest))
            held = house.catalog.held("own")
            preview = run(house, *rules, dry_run=True)
            assert house.catalog.held("own") == held
            assert run(house, *rules) == preview
            house.check()
            with house.ledger() as ledger:
                collect(house.task(grace=-DAY), ledger, NOW)
            assert house.catalog.held("own")[1] == held[1] - preview[0].bytes
            house.check()
            assert run(house, *rules) == (Retired(), set())
            house.close()

    trio.run(main)
