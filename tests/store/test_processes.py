"""Several workers share one download, and whatever of them is killed, nothing partial is ever served."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.store import OneStore, some_bytes
from kit.workers import worker
from mxart.digest import Digest
from mxart.store.growing import TAIL

DATA = some_bytes(1_000_003)
DIGEST = Digest.of(DATA)
SEEN = 400_000 - 50_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def stored(root: Path) -> bool:
    """Whether the blob is there; whatever is among the blobs has to be whole."""
    found = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    for path in found:
        assert Digest.of(path.read_bytes()).hex == path.name
    return bool(found)


def partial(root: Path) -> bytes:
    """What the partial file holds."""
    return Path(OneStore(root).paths.partial(DIGEST)).read_bytes()


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(data)


async def test_two_workers_who_are_asked_at_once_ask_upstream_once(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        for each in (one, two):
            for name in "ab":
                await each.tell("join", name)
        await one.tell("open", len(DATA))
        await two.tell("open", len(DATA))
        for each in (one, two):
            ends = {(await each.expect("end"))[2:], (await each.expect("end"))[2:]}
            assert ends == {str(DIGEST)}
        assert sum(line.startswith("asked") for line in one.said + two.said) == 1
        assert sum(line.endswith("started") for line in one.said + two.said) == 1
        await one.stop()
        await two.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


async def test_a_follower_reads_along_and_its_end_waits_for_the_verdict_too(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("join a")
        await one.expect("asked 0")
        await two.tell("join b")
        await one.tell("open", 400_000)
        assert await two.expect("head b") == "joined"
        await two.read_to("b", 400_000)
        await one.tell("open 1000000")
        await two.read_to("b", len(DATA) - TAIL)
        assert not stored(root)
        await one.tell("open", len(DATA))
        assert await two.expect("end b") == str(DIGEST)
        await one.stop()
    assert stored(root)


@pytest.mark.parametrize("opened", [-1, 0, 400_000, 1_000_000])
async def test_a_writer_killed_at_any_stage_leaves_what_the_next_start_completes(
    root: Path, data: Path, opened: int
) -> None:
    async with worker(root, data) as one:
        await one.tell("join a")
        await one.expect("asked 0")
        await one.tell("open", opened)
        if opened >= 0:
            await one.expect("head a started")
        if opened > 0:
            await one.read_to("a", min(opened, len(DATA) - TAIL))
        await one.kill()
    assert not stored(root)
    async with worker(root, data) as one:
        await one.tell("join a")
        offset = int(await one.expect("asked"))
        assert offset == max(opened, 0)
        await one.tell("open", len(DATA))
        assert await one.expect("end a") == str(DIGEST)
        await one.stop()
    assert stored(root)


@pytest.mark.parametrize("opened", [-1, 0, 400_000, 1_000_000])
async def test_when_the_writer_is_killed_a_follower_goes_on_with_its_readers_still_attached(
    root: Path, data: Path, opened: int
) -> None:
    async with worker(root, data) as one, worker(root, data) as two, worker(root, data) as three:
        await one.tell("join a")
        await one.expect("asked 0")
        await one.tell("open", opened)
        for each, name in ((two, "b"), (three, "c")):
            await each.tell("join", name)
            await each.tell("open", len(DATA))
        if opened > 0:
            await two.read_to("b", min(opened, len(DATA) - TAIL))
        await one.kill()
        assert await two.expect("end b") == str(DIGEST)
        assert await three.expect("end c") == str(DIGEST)
        asked = [line for line in two.said + three.said if line.startswith("asked")]
        assert asked == [f"asked {max(opened, 0)}"]
        await two.stop()
        await three.stop()
    assert stored(root)


async def test_a_writer_killed_after_the_last_byte_and_before_its_name_is_completed_without_upstream(
    root: Path, data: Path
) -> None:
    store = OneStore(root)
    partial = Path(store.paths.partial(DIGEST))
    async with worker(root, data) as one:
        await one.tell("join a")
        await one.tell("open 1000000")
        await one.read_to("a", len(DATA) - TAIL)
        await one.kill()
    change(partial, 1_000_000, DATA[1_000_000:])  # as if the kill had come a moment later
    async with worker(root, data) as one:
        await one.tell("join a")
        assert await one.expect("end a") == str(DIGEST)
        assert not any(line.startswith("asked") for line in one.said)
        await one.stop()
    assert stored(root)
    assert store.partials() == []


async def test_a_partial_file_whose_bytes_went_bad_is_found_out_and_thrown_away(root: Path, data: Path) -> None:
    partial = Path(OneStore(root).paths.partial(DIGEST))
    change(partial, 0, bytes(400_000))  # what a power failure may leave: the size without the bytes
    async with worker(root, data) as one:
        await one.tell("open", len(DATA))
        await one.tell("join a")
        await one.expect("asked 400000")
        await one.expect("broken a")
        assert not stored(root)
        await one.tell("join b")
        await one.expect("asked 0")
        assert await one.expect("end b") == str(DIGEST)


async def test_killed_again_and_again_in_full_flight_it_ends_with_the_right_bytes(root: Path, data: Path) -> None:
    for lines in (1, 3, 5, 20):
        async with worker(root, data) as one:
            await one.tell("open", len(DATA))
            await one.tell("join a")
            for _ in range(lines):
                if (await one.next()).startswith("end"):
                    break
            await one.kill()
        stored(root)
    async with worker(root, data) as one:
        await one.tell("open", len(DATA))
        await one.tell("join a")
        assert await one.expect("end a") == str(DIGEST)


async def test_an_acknowledged_put_is_there_after_a_kill(root: Path, data: Path) -> None:
    async with worker(root, data) as one:
        await one.tell("put", data)
        assert await one.expect("put") == str(DIGEST)
        await one.kill()
    assert stored(root)


async def test_a_writer_that_gives_up_hands_over_to_a_follower(root: Path, data: Path) -> None:
    async with worker(root, data, fails_at=500_000) as one, worker(root, data) as two:
        await one.tell("join a")
        await one.expect("asked 0")
        await two.tell("join b")
        await one.tell("open 400000")
        await two.read_to("b", 400_000)
        await two.tell("open", len(DATA))
        await one.tell("open", len(DATA))
        await one.expect("broken a")
        assert await two.expect("end b") == str(DIGEST)
        assert "asked 500000" in two.said


async def test_a_problem_before_the_head_is_the_askers_own_and_the_other_worker_tries_itself(
    root: Path, data: Path
) -> None:
    async with worker(root, data, fails_at=0) as one, worker(root, data) as two:
        await one.tell("join a")
        await one.expect("asked 0")
        await two.tell("join b")
        await two.tell("open", len(DATA))
        await one.tell("open 0")
        assert await one.expect("problem a") == "502"
        assert await two.expect("end b") == str(DIGEST)
        assert "asked 0" in two.said


async def test_a_wrong_digest_cuts_the_readers_of_every_worker(root: Path, data: Path, tmp_path: Path) -> None:
    store = OneStore(root)
    async with worker(root, data) as one:
        await one.tell("join a")
        await one.tell("open 400000")
        await one.read_to("a", 400_000)
        await one.kill()
    partial = Path(store.paths.partial(DIGEST))
    change(partial, 0, b"flipped")
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("join a")
        await one.expect("asked 400000")
        await two.tell("join b")
        await one.tell("open 400000")
        await two.expect("head b")
        await one.tell("open", len(DATA))
        await one.expect("broken a")
        await two.expect("broken b")
    assert not stored(root)
    assert store.partials() == []


async def test_a_follower_whose_readers_all_leave_does_not_follow_any_more(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        await one.tell("join a")
        await one.expect("asked")
        await two.tell("join b")
        await one.tell("open 400000")
        await two.read_to("b", 400_000)
        await two.tell("leave b")
        await two.stop()
        await one.tell("open", len(DATA))
        assert await one.expect("end a") == str(DIGEST)


async def test_a_follower_of_a_writer_whose_disk_is_full_goes_on_by_itself(root: Path, data: Path) -> None:
    async with worker(root, data, disk=420_000) as one, worker(root, data, disk=0) as two:
        await one.tell("join a")
        await one.expect("asked 0")
        await two.tell("join b")
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


@pytest.mark.parametrize("stuck_at", [0, 1, 400_000, len(DATA) - 7_001])
async def test_a_writer_killed_in_the_middle_of_a_draw_leaves_what_it_wrote_and_no_more(
    root: Path, data: Path, stuck_at: int
) -> None:
    async with worker(root, data, stuck_at=stuck_at) as one:
        await one.tell("join a")
        await one.tell("open 0")
        await one.expect("stuck")  # with 7,000 bytes in hand
        await one.kill()
    assert not stored(root)
    assert partial(root) == DATA[:stuck_at]
    async with worker(root, data) as one:
        await one.tell("join a")
        assert await one.expect("asked") == str(stuck_at)
        await one.tell("open", len(DATA))
        assert await one.expect("end a") == str(DIGEST)
        await one.stop()
    assert stored(root)
    assert OneStore(root).partials() == []


@pytest.mark.parametrize("stuck_at", [0, 400_000, len(DATA) - 7_001])
async def test_followers_of_a_writer_killed_in_the_middle_of_a_draw_have_only_what_it_wrote_and_go_on(
    root: Path, data: Path, stuck_at: int
) -> None:
    async with worker(root, data, stuck_at=stuck_at) as one, worker(root, data) as two, worker(root, data) as three:
        await one.tell("join a")
        await one.expect("asked 0")
        for each, name in ((two, "b"), (three, "c")):
            await each.tell("join", name)
            await each.tell("open", len(DATA))
        await one.tell("open 0")
        await one.expect("stuck")
        if stuck_at:
            await two.read_to("b", min(stuck_at, len(DATA) - TAIL))
        await one.kill()
        assert await two.expect("end b") == str(DIGEST)
        assert await three.expect("end c") == str(DIGEST)
        asked = [line for line in two.said + three.said if line.startswith("asked")]
        assert asked == [f"asked {stuck_at}"]
        await two.stop()
        await three.stop()
    assert stored(root)
