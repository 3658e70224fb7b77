"""Several workers share a download known by a name: whatever is killed, no reader gets parts of two files."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kit.store import OneStore, some_bytes
from kit.workers import worker
from mxart.digest import Digest
from mxart.store.growing import TAIL

DATA = some_bytes(1_000_003)
DIGEST = Digest.of(DATA)
OTHER = some_bytes(1_000_003, seed=2)
KEY = "team\0file"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """What upstream has after somebody has changed it."""
    path = tmp_path / "other"
    path.write_bytes(OTHER)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def stored(root: Path) -> bool:
    """Whether the name means a blob that is there; whatever is among the blobs has to be whole."""
    found = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    for path in found:
        assert Digest.of(path.read_bytes()).hex == path.name
    name = root.parent / "named"
    return name.exists() and Digest.parse(name.read_text()).hex in {path.name for path in found}


def lose_notes(root: Path) -> None:
    """As a power failure may."""
    paths = OneStore(root).paths
    Path(paths.notes_of(paths.partial_named(KEY))).unlink(missing_ok=True)


async def test_two_workers_who_are_asked_at_once_ask_upstream_once_and_judge_once(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        for each in (one, two):
            for name in "ab":
                await each.tell("named", name)
        await one.tell("open", len(DATA))
        await two.tell("open", len(DATA))
        for each in (one, two):
            ends = {(await each.expect("end"))[2:], (await each.expect("end"))[2:]}
            assert ends == {str(DIGEST)}
        for word in ("asked", "right"):
            assert sum(line.startswith(word) for line in one.said + two.said) == 1
        await one.stop()
        await two.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


@pytest.mark.parametrize("opened", [-1, 0, 400_000, 1_000_000])
async def test_a_writer_killed_at_any_stage_leaves_what_the_next_start_completes(
    root: Path, data: Path, opened: int
) -> None:
    async with worker(root, data) as one:
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", opened)
        if opened > 0:
            await one.read_to("a", min(opened, len(DATA) - TAIL))
        await one.kill()
    assert not stored(root)
    async with worker(root, data) as one:
        await one.tell("named a")
        assert int(await one.expect("asked")) == max(opened, 0)
        await one.tell("open", len(DATA))
        assert await one.expect("end a") == str(DIGEST)
        await one.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


@pytest.mark.parametrize("opened", [-1, 0, 400_000, 1_000_000])
async def test_when_the_writer_is_killed_a_follower_goes_on_with_its_readers_still_attached(
    root: Path, data: Path, opened: int
) -> None:
    async with worker(root, data) as one, worker(root, data) as two, worker(root, data) as three:
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", opened)
        for each, name in ((two, "b"), (three, "c")):
            await each.tell("named", name)
            await each.tell("open", len(DATA))
        if opened > 0:
            await two.read_to("b", min(opened, len(DATA) - TAIL))
            await three.read_to("c", min(opened, len(DATA) - TAIL))
        await one.kill()
        assert await two.expect("end b") == str(DIGEST)
        assert await three.expect("end c") == str(DIGEST)
        asked = [line for line in two.said + three.said if line.startswith("asked")]
        assert asked == [f"asked {max(opened, 0)}"]
        await two.stop()
        await three.stop()
    assert stored(root)


async def test_a_file_that_upstream_has_changed_meanwhile_is_begun_again(root: Path, data: Path, other: Path) -> None:
    async with worker(root, data) as one:
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 400000")
        await one.read_to("a", 400_000)
        await one.kill()
    async with worker(root, other) as one:
        await one.tell("open", len(OTHER))
        await one.tell("named a")
        assert await one.expect("end a") == str(Digest.of(OTHER))
        assert [line for line in one.said if line.startswith("asked")] == ["asked 400000", "asked 0"]
        await one.stop()
    assert stored(root)


async def test_readers_of_a_file_that_upstream_changes_when_its_writer_dies_are_cut_and_new_ones_get_the_new_one(
    root: Path, data: Path, other: Path
) -> None:
    async with worker(root, data) as one, worker(root, other) as two, worker(root, other) as three:
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 400000")
        for each, name in ((two, "b"), (three, "c")):
            await each.tell("named", name)
            await each.read_to(name, 400_000)
            await each.tell("open", len(OTHER))
        await one.kill()
        await two.expect("broken b")
        await three.expect("broken c")
        for each, name in ((two, "d"), (three, "e")):
            await each.tell("named", name)
            assert await each.expect(f"end {name}") == str(Digest.of(OTHER))
        await two.stop()
        await three.stop()
    assert stored(root)


async def test_readers_of_a_file_without_a_strong_validator_are_cut_when_its_writer_dies(
    root: Path, data: Path
) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        for each in (one, two):
            await each.tell("weak")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 400000")
        await two.tell("named b")
        await two.read_to("b", 400_000)
        await two.tell("open", len(DATA))
        await one.kill()
        await two.expect("broken b")
        await two.tell("named c")
        assert await two.expect("end c") == str(DIGEST)
        await two.stop()
    assert stored(root)


async def test_a_follower_whose_file_is_begun_again_before_it_had_a_byte_follows_the_new_one(
    root: Path, data: Path, other: Path
) -> None:
    async with worker(root, data) as one:
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 50000")
        await one.read_to("a", 50_000)
        await one.kill()
    lose_notes(root)
    async with worker(root, other) as one, worker(root, other) as two:
        await one.tell("named a")
        await one.expect("asked 0")
        await two.tell("named b")
        await one.tell("open", len(OTHER))
        assert await one.expect("end a") == str(Digest.of(OTHER))
        assert await two.expect("end b") == str(Digest.of(OTHER))
        assert not any(line.startswith("asked") for line in two.said)


async def test_a_wrong_file_is_cut_for_the_readers_of_every_worker(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("judge wrong")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 400000")
        await two.tell("named b")
        await two.read_to("b", 400_000)
        await one.tell("open", len(DATA))
        await one.expect("broken a")
        await two.expect("broken b")
        assert not any(line.startswith(("asked", "right")) for line in two.said)
        await one.stop()
        await two.stop()
    assert not stored(root)
    assert OneStore(root).partials() == []


async def test_who_waits_in_another_worker_for_a_small_file_is_told_that_it_is_wrong(root: Path, data: Path) -> None:
    await trio.Path(data).write_bytes(b"small")
    async with worker(root, data) as one, worker(root, data) as two:
        for each in (one, two):
            await each.tell("judge wrong")
        await one.tell("named a")
        await one.expect("asked 0")
        await two.tell("named b")
        await two.tell("open 5")
        await one.tell("open 5")
        assert await one.expect("problem a") == "502"
        assert await two.expect("problem b") == "502"
    assert OneStore(root).partials() == []


async def test_a_file_that_one_worker_cannot_have_judged_is_judged_by_the_next(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("judge unsure")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open 400000")
        await two.tell("named b")
        await two.read_to("b", 400_000)
        await one.tell("open", len(DATA))
        await one.expect("broken a")
        assert await two.expect("end b") == str(DIGEST)
        assert not any(line.startswith("asked") for line in two.said)
        await two.stop()
    assert stored(root)


@pytest.mark.parametrize(("how", "said"), [("judge", "judging"), ("recording", "recording")])
async def test_a_writer_killed_while_it_judges_or_records_leaves_the_rest_to_a_follower(
    root: Path, data: Path, how: str, said: str
) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell(how, "stuck")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", len(DATA))
        await one.expect(said)
        await two.tell("named b")
        await one.kill()
        assert await two.expect("end b") == str(DIGEST)
        assert not any(line.startswith("asked") for line in two.said)
        await two.stop()
    assert stored(root) or how == "recording"  # of that one the readers had everything: nobody was left to keep it
    async with worker(root, data) as one:
        await one.tell("named a")
        assert await one.expect("end a") == str(DIGEST)
        assert not any(line.startswith("asked") for line in one.said)
        await one.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


@pytest.mark.parametrize(("how", "said"), [("judge", "judging"), ("recording", "recording")])
async def test_a_writer_killed_while_it_judges_or_records_leaves_the_rest_to_the_next_start(
    root: Path, data: Path, how: str, said: str
) -> None:
    async with worker(root, data) as one:
        await one.tell(how, "stuck")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", len(DATA))
        await one.expect(said)
        await one.kill()
    assert not stored(root)
    async with worker(root, data) as one:
        await one.tell("named a")
        assert await one.expect("end a") == str(DIGEST)
        assert not any(line.startswith("asked") for line in one.said)
        await one.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


async def test_a_name_that_was_recorded_a_moment_before_its_blob_was_there_is_completed(root: Path, data: Path) -> None:
    async with worker(root, data) as one:
        await one.tell("recording stuck")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", len(DATA))
        await one.expect("recording")
        await one.kill()
    (root.parent / "named").write_text(str(DIGEST))  # as if the kill had come a moment later
    assert not stored(root)
    async with worker(root, data) as one:
        await one.tell("named a")
        assert await one.expect("end a") == str(DIGEST)
        assert not any(line.startswith("asked") for line in one.said)
        await one.stop()
    assert stored(root)


async def test_who_asks_while_a_name_is_recorded_does_not_ask_upstream(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("recording stuck")
        await one.tell("named a")
        await one.expect("asked 0")
        await one.tell("open", len(DATA))
        await one.expect("recording")
        await two.tell("named b")
        assert await two.expect("end b") == str(DIGEST)
        assert not any(line.startswith("asked") for line in two.said)


async def test_a_follower_of_a_writer_whose_disk_is_full_goes_on_by_itself(root: Path, data: Path) -> None:
    async with worker(root, data, disk=420_000) as one, worker(root, data, disk=0) as two:
        await one.tell("named a")
        await one.expect("asked 0")
        await two.tell("named b")
        await one.tell("open 400000")
        await two.read_to("b", 400_000)
        await two.tell("open", len(DATA))
        await one.tell("open", len(DATA))
        assert await one.expect("end a") == str(DIGEST)
        assert await two.expect("end b") == str(DIGEST)
        asked = [line for line in two.said if line.startswith("asked")]
        assert asked == ["asked 420000"]
        await one.stop()
        await two.stop()
    assert not stored(root)
    assert OneStore(root).partials() == []


async def test_it_is_killed_and_started_until_it_is_there(root: Path, data: Path) -> None:
    for opened in range(50_000, len(DATA), 150_000):
        async with worker(root, data) as one:
            await one.tell("open", opened)
            await one.tell("named a")
            await one.expect("asked")
            if opened < len(DATA) - TAIL:
                await one.read_to("a", opened)
            await one.kill()
        assert not stored(root)
    async with worker(root, data) as one:
        await one.tell("open", len(DATA))
        await one.tell("named a")
        assert await one.expect("end a") == str(DIGEST)
        await one.stop()
    assert stored(root)
