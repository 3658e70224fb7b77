"""What nothing refers to goes; whatever anybody was told is here stays, whoever is killed and whoever interferes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import structs

from kit.space import DAY, NOW, OLD, OWN, Warehouse
from kit.store import small_file_system
from mxart.store.base import FileRecord
from mxart.store.housekeeping import clean
from mxart.store.published import Incomplete, Publication, Vanished
from mxart.store.space.gc import ROWS, collect
from mxart.store.space.sweep import Loose, Shelves
from mxart.store.space.task import Freed, Member, Report, ignore_progress


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    house = Warehouse(tmp_path / "data")
    yield house
    house.close()


def run(house: Warehouse, now: float = NOW, *, grace: float = DAY, dry_run: bool = False) -> Report:
    with house.ledger() as ledger:
        return collect(house.task(grace=grace, dry_run=dry_run), ledger, now)


async def test_an_image_stays_and_what_nothing_refers_to_goes(house: Warehouse) -> None:
    kept = await house.push_image("latest")
    unlinked = await house.push_blob(b"a layer whose manifest never came")
    nameless = await house.put(b"a push that was broken off")
    report = run(house)
    assert all(house.has(digest) for digest in kept)
    assert not house.has(unlinked)
    assert not house.has(nameless)
    assert report.names == {"own": Freed(1, 33)}
    assert report.blobs == {"default": Freed(2, 33 + 26)}
    assert f"app/blobs/{unlinked}" not in house.names()
    house.check()
    assert run(house).freed == Freed()


async def test_a_deleted_image_frees_what_no_other_image_of_its_package_needs(house: Warehouse) -> None:
    first, mine, shared = await house.push_image("1")
    second = await house.push_manifest(b"another", [shared], tags=["2"])
    elsewhere = await house.push_image("1", "other")
    await house.publications.withdraw("own", f"app/manifests/{first}", str(first))
    report = run(house)
    assert house.has(second)
    assert house.has(shared)
    assert house.has(mine), "another package has the same bytes, by its own right"
    assert all(house.has(digest) for digest in elsewhere)
    assert f"app/blobs/{mine}" not in house.names()
    assert report.names["own"].files == 1
    house.check()


async def test_what_is_younger_than_the_grace_is_left_alone(house: Warehouse) -> None:
    layer = await house.push_blob(b"just pushed", at=NOW - 3600)
    used = await house.push_blob(b"pushed long ago, and somebody asked for it")
    house.catalog.used("own", f"app/blobs/{used}", NOW - 3600)
    await house.catalog.flush(NOW)
    nameless = await house.put(b"just arrived", at=NOW - 3600)
    run(house)
    assert house.has(layer)
    assert house.has(used)
    assert house.has(nameless)
    run(house, grace=600)
    assert not house.has(layer)
    assert not house.has(used)
    assert not house.has(nameless)


async def test_a_dry_run_says_what_a_run_does_and_does_nothing(house: Warehouse) -> None:
    await house.push_image("latest")
    await house.push_blob(b"unlinked")
    await house.put(b"nameless")
    before, names, generation = house.on_disk(), house.names(), house.generation.value()
    dry = run(house, dry_run=True)
    assert (house.on_disk(), house.names(), house.generation.value()) == (before, names, generation)
    real = run(house)
    assert (dry.names, dry.blobs) == (real.names, real.blobs)
    assert dry.freed == Freed(2, 16)


async def test_workers_are_told_and_packages_that_hold_nothing_are_none(house: Warehouse) -> None:
    await house.push_blob(b"alone", "lonely")
    before = house.catalog.generation()
    run(house)
    assert house.catalog.generation() != before
    assert not house.catalog.has_package("own", "lonely")


async def test_names_of_repositories_that_the_configuration_lost_keep_their_files_and_are_told(
    tmp_path: Path,
) -> None:
    house = Warehouse(tmp_path / "data")
    layer = await house.push_blob(b"nobody links it", repository="forgotten")
    cached = await house.push_blob(b"in a cache", repository="cache")
    report = run(house)
    assert house.has(layer)
    assert house.has(cached), "a cache is kept to its size, not collected"
    assert report.unknown == {"forgotten": Freed(1, 15)}
    assert report.names == {}
    house.close()


async def test_each_store_is_for_its_own_repositories(tmp_path: Path) -> None:
    other = Member("other", "second", part="blobs")
    house = Warehouse(tmp_path / "data", (OWN, other), ("default", "second"))
    image = await house.push_image("1", repository="other")
    copies = [await house.put(await house.blobs["second"].read(digest, 9999) or b"") for digest in image]
    report = run(house)
    assert all(house.has(digest, "second") for digest in image)
    assert not any(house.has(digest, "default") for digest in copies)
    assert report.blobs["default"].files == 3
    assert report.blobs["second"] == Freed()
    house.check()
    house.close()


async def test_files_of_a_repository_that_was_given_another_store_wait_until_they_are_moved(tmp_path: Path) -> None:
    data = tmp_path / "data"
    house = Warehouse(data, (OWN,), ("default", "big"))
    image = await house.push_image("1")
    house.close()
    house = Warehouse(data, (structs.replace(OWN, store="big"),), ("default", "big"))
    assert run(house, dry_run=True).freed == Freed()
    assert run(house).freed == Freed()
    for digest in image:
        await house.put(await house.blobs["default"].read(digest, 9999) or b"", store="big")
    assert run(house, dry_run=True).freed.files == 3
    assert run(house).freed.files == 3
    assert all(house.has(digest, "big") for digest in image)
    house.check()
    house.close()


async def test_a_reader_reads_on_while_its_file_is_removed(house: Warehouse) -> None:
    layer = await house.push_blob(b"being sent")
    source = house.blobs["default"].open(layer)
    assert source is not None
    run(house)
    assert not house.blobs["default"].has(layer), "what is only open cannot be named again"
    assert os.pread(source.fileno(), 100, 0) == b"being sent"
    source.close()
    assert house.blobs["default"].open(layer) is None


async def test_files_that_are_not_ours_are_left_alone(house: Warehouse) -> None:
    await house.put(b"nameless")
    folder = house.places["default"].blobs
    for path in (folder / "readme", folder / "sha256" / "notes", folder / "sha256" / "ab" / "shopping list"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (OLD, OLD))
    run(house)
    assert house.on_disk() == 3


async def test_a_store_that_was_never_used_has_nothing(tmp_path: Path) -> None:
    house = Warehouse(tmp_path / "data")
    assert run(house).freed == Freed()
    house.close()


def fill(path: Path) -> None:
    """Until not a page is left."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, b"x" * 4096)
    os.close(file)


async def test_on_a_full_disk_it_makes_room_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_file_system(tmp_path / "disk", "16M") as disk:
        house = Warehouse(disk / "data")
        kept = await house.push_image("latest")
        for number in range(200):
            await house.push_blob(b"%d" % number, f"package {number}")
        await house.put(b"x" * 500_000)
        with sqlite3.connect(house.paths.catalog) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        fill(disk / "filler")
        report = run(house)
        assert "the disk is full" in caplog.text
        assert report.freed.files == 201
        assert house.on_disk() == len(kept)
        house.check()
        house.close()


async def test_rows_are_on_disk_before_their_files_go(house: Warehouse) -> None:
    """By one sync for all."""
    for number in range(ROWS + 50):
        await house.push_blob(b"%d" % number)
    stages: list[str] = []
    with house.ledger() as ledger:
        collect(house.task(), ledger, NOW, pause=stages.append)
        assert ledger.rows("PRAGMA synchronous", ()) == [(1,)]
    dropped = [place for place, stage in enumerate(stages) if stage == "dropped"]
    swept = [place for place, stage in enumerate(stages) if stage == "swept"]
    assert len(dropped) == 2
    assert dropped[-1] < stages.index("settled") < swept[0]
    assert stages.count("settled") == 1


# Others write at the same time: each test does by hand, between two given steps, what they might do.


class Interloper:
    """Calls a function, from the loop, at the first pause of that name."""

    def __init__(self, stage: str, act: Callable[[], object]) -> None:
        self.stage = stage
        self.act: Callable[[], object] | None = act

    def __call__(self, stage: str) -> None:
        if stage == self.stage and self.act is not None:
            act, self.act = self.act, None
            act()


async def run_with(house: Warehouse, stage: str, act: Callable[[], Awaitable[None]]) -> Report:
    with house.ledger() as ledger:
        task = house.task()
        interloper = Interloper(stage, lambda: trio.from_thread.run(act))
        report = await trio.to_thread.run_sync(collect, task, ledger, NOW, ignore_progress, interloper)
    assert interloper.act is None, f"there was no {stage}"
    return report


STAGES = ("marked", "dropped", "listed", "compared", "swept")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_manifest_whose_layers_are_swept_in_that_moment_is_refused_or_whole(
    house: Warehouse, stage: str
) -> None:
    layers = [await house.push_blob(f"layer {number}".encode()) for number in range(3)]
    outcome: list[str] = []

    async def push() -> None:
        try:
            await house.push_manifest(b"manifest", layers, tags=["1"])
            outcome.append("acknowledged")
        except Incomplete:
            outcome.append("refused")

    await run_with(house, stage, push)
    house.check()
    assert outcome == ["acknowledged" if stage == "marked" else "refused"]
    assert all(house.has(layer) for layer in layers) == (stage == "marked")


@pytest.mark.parametrize("stage", STAGES)
async def test_mounting_a_layer_that_is_being_deleted_fails_or_keeps_it(house: Warehouse, stage: str) -> None:
    layer = await house.push_blob(b"a layer of a deleted image")
    outcome: list[str] = []

    async def mount() -> None:
        path = f"other/blobs/{layer}"
        record = FileRecord("own", "other", path, layer, 26, "application/octet-stream", created=NOW)
        try:
            await house.publications.publish(Publication(record), lambda: house.blobs["default"].has(layer))
            await house.push_manifest(b"needs it", [layer], "other", tags=["1"])
            outcome.append("mounted")
        except Vanished:
            outcome.append("gone")

    await run_with(house, stage, mount)
    house.check()
    assert house.has(layer) == (outcome == ["mounted"])
    assert outcome == ["gone" if stage == "swept" else "mounted"]


@pytest.mark.parametrize("stage", STAGES)
async def test_the_same_bytes_pushed_again_while_they_are_removed_are_there_when_it_is_acknowledged(
    house: Warehouse, stage: str
) -> None:
    await house.push_blob(b"pushed twice")

    async def push() -> None:
        layer = await house.push_blob(b"pushed twice", at=NOW + 1)
        await house.push_manifest(b"needs it", [layer], tags=["1"], at=NOW + 1)

    await run_with(house, stage, push)
    house.check()
    assert "app/manifests/1" in house.names()


@pytest.mark.parametrize("third", [False, True])
async def test_bytes_that_arrive_between_looking_and_removing_are_put_back(house: Warehouse, third: bool) -> None:
    """Its name comes later: a push places its file first, and knows of no transaction then."""
    layer = await house.put(b"arrives again")
    place = house.places["default"]
    path = place.blob(layer)

    def late(source: str, target: str) -> None:
        os.utime(path, (NOW, NOW))
        os.rename(source, target)
        if third:
            trio.from_thread.run(house.put, b"arrives again")

    shelves = Shelves("default", house.places, late)
    with house.ledger() as ledger:
        ledger.look_around(["default"])
        swept = await trio.to_thread.run_sync(shelves.sweep, ledger, [Loose(layer, 13)], NOW - DAY)
    assert swept == []
    assert await house.blobs["default"].read(layer, 100) == b"arrives again"
    assert os.listdir(place.temporary) == []


async def test_a_file_that_housekeeping_takes_out_of_the_sweepers_hand_is_gone_as_well(house: Warehouse) -> None:
    layer = await house.put(b"nobody's", at=OLD)
    place = house.places["default"]

    def cleaned(source: str, target: str) -> None:
        os.rename(source, target)
        assert clean(place, NOW) == 1

    shelves = Shelves("default", house.places, cleaned)
    with house.ledger() as ledger:
        ledger.look_around(["default"])
        swept = await trio.to_thread.run_sync(shelves.sweep, ledger, [Loose(layer, 8)], NOW - DAY)
    assert swept == [Loose(layer, 8)]
    assert not house.has(layer)


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
async def test_a_clock_that_jumps_costs_the_grace_and_no_acknowledged_manifest(house: Warehouse, jump: float) -> None:
    kept = await house.push_image("latest", at=NOW)
    await house.push_blob(b"in flight", at=NOW)
    run(house, NOW + jump)
    assert all(house.has(digest) for digest in kept)
    house.check()
    run(house, NOW + 2 * DAY)
    assert house.on_disk() == len(kept)


async def test_two_at_once_do_each_thing_once(house: Warehouse) -> None:
    """Who leads is settled elsewhere; where both do (another machine's clock, a lost lock file) nothing breaks."""
    kept = await house.push_image("latest")
    for number in range(150):
        await house.push_blob(f"unlinked {number}".encode())
        await house.put(f"nameless {number}".encode())
    reports: list[Report] = []

    async def one() -> None:
        reports.append(await trio.to_thread.run_sync(run, house))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert sum(report.freed.files for report in reports) == 300
    assert sum(report.names.get("own", Freed()).files for report in reports) == 150
    assert house.on_disk() == len(kept)
    house.check()
    assert house.counted_right()


# Killed

_KILLED = """
import os, signal, sys, msgspec
from pathlib import Path
from mxart.store.generation import Generation
from mxart.store.space.gc import collect
from mxart.store.space.ledger import Ledger
from mxart.store.space.task import Task, ignore_progress

task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
left = int(sys.argv[1])
def pause(stage):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def dying(event, names):
    if event == "os.rename" or event == "os.remove":
        pause(event)
sys.addaudithook(dying)
ledger = Ledger(Path(task.catalog), Generation.outside(Path(task.generation)), task.members)
collect(task, ledger, float(sys.argv[2]), ignore_progress, pause)
print("survived")
"""


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7, 9, 12, 1000])
async def test_killed_at_any_step_it_leaves_everything_whole_and_the_next_one_completes_it(
    house: Warehouse, step: int
) -> None:
    kept = await house.push_image("latest")
    for number in range(4):
        await house.push_blob(f"unlinked {number}".encode())
        await house.put(f"nameless {number}".encode())
    died = await trio.run_process(
        [sys.executable, "-c", _KILLED, str(step), str(NOW)],
        stdin=msgspec.json.encode(house.task()),
        capture_stdout=True,
        check=False,
    )
    assert (died.returncode, died.stdout) == ((0, b"survived\n") if step == 1000 else (-signal.SIGKILL, b""))
    house.check()
    assert all(house.has(digest) for digest in kept)
    assert house.counted_right()
    run(house)
    house.check()
    assert house.on_disk() == len(kept)
    clean(house.places["default"], NOW)
    assert os.listdir(house.places["default"].temporary) == []


async def test_while_several_processes_push_every_acknowledged_manifest_stays_whole(house: Warehouse) -> None:
    """Without any grace: pushes are refused, and none that was acknowledged loses anything."""
    collected = refused = 0
    async with trio.open_nursery() as nursery:
        pushers: list[trio.Process] = []
        for number in range(3):
            command = [sys.executable, "-m", "kit.pusher", str(house.paths.data), str(number), "40"]
            pushers.append(
                await nursery.start(
                    partial(trio.run_process, command, env=os.environ | {"PYTHONPATH": "tests"}, stdout=-1)
                )
            )
        acknowledged: list[str] = []
        while any(process.poll() is None for process in pushers):
            with house.ledger() as ledger:
                report = await trio.to_thread.run_sync(collect, house.task(grace=0), ledger, time.time())
            collected += report.freed.files
            house.check()
        for process in pushers:
            assert process.stdout is not None
            said = b""
            while more := await process.stdout.receive_some():
                said += more
            words = said.decode().split()
            refused += words.count("refused")
            acknowledged += [word for word in words if word != "refused"]
    house.check()
    assert collected
    assert acknowledged
    assert all(f"app/manifests/{digest}" in house.names() for digest in acknowledged)
    assert house.counted_right()
