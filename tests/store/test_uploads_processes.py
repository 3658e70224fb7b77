"""An upload goes through several workers, and whatever of them is killed, what came is there and no file is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.store import OneStore, file_bytes, some_bytes
from kit.workers import Worker, worker
from mxart.digest import Digest

DATA = some_bytes(1_000_003)
DIGEST = Digest.of(DATA)


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


async def begin(one: Worker) -> str:
    await one.tell("begin")
    return await one.expect("begun")


async def finish(one: Worker, name: str) -> int:
    """Send what is missing, and commit; returns where it went on from."""
    await one.tell("open", 2 * len(DATA))
    await one.tell("push", name, len(DATA))
    offset = int(await one.expect(f"at {name}"))
    assert int(await one.expect(f"pushed {name}")) == len(DATA)
    await one.tell("commit", name)
    await one.expect(f"committed {name}")
    return offset


async def test_an_upload_begun_in_one_worker_goes_on_in_a_second_and_ends_in_a_third(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two, worker(root, data) as three:
        name = await begin(one)
        for each in (one, two):
            await each.tell("open", 2 * len(DATA))
        await one.tell("push", name, 300_000)
        assert await one.expect(f"pushed {name}") == "300000"
        await two.tell("push", name, 300_001)
        assert await two.expect(f"pushed {name}") == "300001"
        assert await finish(three, name) == 300_001
    assert stored(root)


async def test_an_upload_outlives_the_program(root: Path, data: Path) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
        await one.tell("open", 2 * len(DATA))
        await one.tell("push", name, 700_000)
        await one.expect(f"pushed {name}")
        await one.stop()
    async with worker(root, data) as one:
        assert await finish(one, name) == 700_000
        await one.stop()
    assert stored(root)


@pytest.mark.parametrize("opened", [0, 400_000, 1_000_000])
async def test_a_worker_killed_while_it_receives_leaves_what_it_had_written(
    root: Path, data: Path, opened: int
) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
        await one.tell("open", opened)
        await one.tell("push", name, len(DATA))
        await one.expect(f"at {name} 0")
        await one.kill()
    assert not stored(root)
    async with worker(root, data) as one:
        assert await finish(one, name) <= opened
    assert stored(root)


@pytest.mark.parametrize("drawn", [1, 262_144, 600_000])
async def test_a_worker_killed_in_the_middle_of_a_draw_leaves_what_it_had_written(
    root: Path, data: Path, drawn: int
) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
        await one.tell("draw", name, 300_000 + drawn)
        await one.expect("stuck")
        await one.kill()
    store = OneStore(root)
    found = store.uploads.find(name)
    assert found is not None
    assert file_bytes(store.paths.upload(name)) == DATA[: found.offset]
    async with worker(root, data) as one:
        assert await finish(one, name) == found.offset
    assert stored(root)


@pytest.mark.parametrize("stage", ["sync", "place"])
async def test_a_worker_killed_in_a_commit_before_the_file_has_its_name_leaves_the_upload(
    root: Path, data: Path, stage: str
) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
        await one.tell("open", 2 * len(DATA))
        await one.tell("push", name, len(DATA))
        await one.expect(f"pushed {name}")
        await one.tell("stick", stage)
        await one.tell("commit", name)
        await one.expect("stuck")
        assert not stored(root)
        await one.kill()
    assert not stored(root)
    async with worker(root, data) as one:
        assert await finish(one, name) == len(DATA)
    assert stored(root)


async def test_a_worker_killed_when_the_file_has_its_name_leaves_an_empty_upload_and_the_whole_file(
    root: Path, data: Path
) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
        await one.tell("open", 2 * len(DATA))
        await one.tell("push", name, len(DATA))
        await one.expect(f"pushed {name}")
        await one.tell("stick retire")
        await one.tell("commit", name)
        await one.expect("stuck")
        await one.kill()
    assert stored(root)
    found = OneStore(root).uploads.find(name)
    assert found is not None
    assert found.offset == 0
    async with worker(root, data) as one:
        assert await finish(one, name) == 0  # a client that was told nothing may do it all again
    assert stored(root)
    assert OneStore(root).uploads.find(name) is None


async def test_two_workers_at_one_upload_take_turns_and_a_kill_lets_the_other_in(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        name = await begin(one)
        await one.tell("open", 400_000)
        await one.tell("push", name, len(DATA))
        await one.expect(f"at {name} 0")
        await two.tell("push", name, len(DATA))
        assert await two.expect(f"problem {name}") == "503"
        await two.tell("commit", name)
        assert await two.expect(f"problem {name}") == "503"
        await one.kill()
        assert await finish(two, name) <= 400_000
    assert stored(root)


async def test_two_workers_commit_the_same_file_at_once(root: Path, data: Path) -> None:
    async with worker(root, data) as one, worker(root, data) as two:
        names = [await begin(one), await begin(two)]
        for each, name in zip((one, two), names, strict=True):
            await each.tell("open", 2 * len(DATA))
            await each.tell("push", name, len(DATA))
        for each, name in zip((one, two), names, strict=True):
            await each.expect(f"pushed {name}")
        for each, name in zip((one, two), names, strict=True):
            await each.tell("commit", name)
        for each, name in zip((one, two), names, strict=True):
            await each.expect(f"committed {name}")
    assert stored(root)
    assert [OneStore(root).uploads.find(name) for name in names] == [None, None]


async def test_killed_again_and_again_in_full_flight_it_ends_with_the_right_file(root: Path, data: Path) -> None:
    async with worker(root, data) as one:
        name = await begin(one)
    last = 0
    for turn in range(6):
        async with worker(root, data) as one:
            await one.tell("open", 2 * len(DATA))
            await one.tell("push", name, last + 90_000 * (turn + 1))
            offset = int(await one.expect(f"at {name}"))
            assert offset >= last  # what is there is never lost again
            last = offset
            await one.kill()
    async with worker(root, data) as one:
        assert await finish(one, name) >= last
    assert stored(root)
