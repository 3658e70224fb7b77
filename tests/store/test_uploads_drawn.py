"""Whichever way the bytes come to the disk, and wherever that is cut off, what is there is what was sent, in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.bodies import DrawnBody, GivenBody
from kit.descriptors import open_files
from kit.steps import CancelAtStep, cancelled_after_each_step
from kit.store import OneStore, change_file, file_bytes, some_bytes
from mxart.digest import Digest
from mxart.errors import Disconnected, TooLarge
from mxart.store import uploads_file
from mxart.store.base import Upload, UploadUnknown

DATA = some_bytes(3_000_001)
DIGEST = Digest.of(DATA)


async def begin(store: OneStore) -> str:
    return (await store.uploads.begin("local", "team/app", "ann")).id


async def finish(store: OneStore, name: str, data: bytes = DATA) -> None:
    """Send what is missing, and commit."""
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(data[upload.state.offset :]), None)
        assert await upload.commit(Digest.of(data)) == len(data)
    assert await store.blobs.read(Digest.of(data), len(data)) == data


SIZES = [(1 << 30,), (1,) * 1000 + (0,), (70_000,), (5000, 0, 0), (0, 1 << 30), (262_144,), (0,)]


@pytest.mark.parametrize("sizes", SIZES)
async def test_however_the_tap_runs_the_file_is_the_one_that_was_sent(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    data = DATA if min(sizes) > 1 else DATA[:500_000]
    store = OneStore(tmp_path)
    body = DrawnBody(data, sizes, chunk=20_000)
    async with store.uploads.open(await begin(store)) as upload:
        await upload.receive(body, len(data))
        assert upload.state.offset == len(data)
        await upload.commit(Digest.of(data))
    assert await store.blobs.read(Digest.of(data), len(data)) == data
    assert body.drawn_bytes > len(data) // 100 or max(sizes) == 0


async def test_bodies_of_every_kind_follow_each_other_in_one_upload(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    at = 0
    for number, size in enumerate([10, 400_000, 70_000, 600_000, 5, 65_536, 0, 1_000_000, 20]):
        piece = DATA[at : at + size]
        body = DrawnBody(piece) if number % 2 else GivenBody(piece)
        async with store.uploads.open(name) as upload:
            await upload.receive(body, None)
            await upload.receive(GivenBody(DATA[at + size : at + size + 7]), None)
            at += size + 7
            assert upload.state.offset == at
    await finish(store, name)


@pytest.mark.parametrize("kind", [GivenBody, DrawnBody])
@pytest.mark.parametrize("breaks_at", [0, 1, 65_536, 262_144, 1_234_567, 2_999_999])
async def test_a_client_that_leaves_in_the_middle_goes_on_from_what_came(
    tmp_path: Path, kind: type[GivenBody], breaks_at: int
) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    with pytest.raises(Disconnected):
        async with store.uploads.open(name) as upload:
            await upload.receive(kind(DATA, breaks_at=breaks_at), None)
    found = store.uploads.find(name)
    assert found is not None
    assert found.offset == breaks_at
    await finish(store, name)


@pytest.mark.parametrize("kind", [GivenBody, DrawnBody])
@pytest.mark.parametrize("limit", [0, 1, 65_536, 262_144, 1_500_000, 2_999_999])
async def test_a_body_of_untold_length_is_stopped_at_the_limit(
    tmp_path: Path, kind: type[GivenBody], limit: int
) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        with pytest.raises(TooLarge, match=str(limit)):
            await upload.receive(kind(DATA, length=None), limit)
        assert upload.state.offset == limit
    await finish(store, name)


@pytest.mark.parametrize("kind", [GivenBody, DrawnBody])
async def test_an_upload_that_has_more_than_the_limit_already_takes_nothing_and_loses_nothing(
    tmp_path: Path, kind: type[GivenBody]
) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA[:1000]), None)
        with pytest.raises(TooLarge):
            await upload.receive(kind(DATA[1000:], length=None), 500)
        assert upload.state.offset == 1000
    await finish(store, name)


async def test_a_body_that_ends_at_the_limit_is_taken(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    for body in (GivenBody(DATA, length=None), DrawnBody(DATA, length=None)):
        async with store.uploads.open(await begin(store)) as upload:
            await upload.receive(body, len(DATA))
            await upload.commit(DIGEST)


async def test_the_hash_is_put_aside_on_the_way_for_whoever_comes_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_file, "_CHECKPOINT", 1_000_000)
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(DrawnBody(DATA[:2_500_000]), None)
        state = file_bytes(store.paths.upload_state(name))
    change_file(store.paths.upload_state(name), state)  # as a kill would have left it
    spoilt = bytearray(DATA[:2_500_000])
    spoilt[:1_000_000] = bytes(1_000_000)  # not read again, so nobody notices ...
    change_file(store.paths.upload(name), spoilt)
    async with store.uploads.open(name) as upload:
        change_file(store.paths.upload(name), DATA[:2_500_000])  # ... and now they are right again
        await upload.receive(GivenBody(DATA[2_500_000:]), None)
        assert await upload.commit(DIGEST) == len(DATA)


async def test_a_file_that_became_shorter_than_its_hash_is_read_again(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
    os.truncate(store.paths.upload(name), 1_000_000)
    await finish(store, name)


@pytest.mark.parametrize("broken", ["identity", "checkpoint", "all"])
async def test_a_state_file_with_a_broken_part_never_gives_a_wrong_file(tmp_path: Path, broken: str) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA[:1_000_000]), None)
    length = 5000 if broken == "all" else 10
    change_file(store.paths.upload_state(name), bytes(length), 4100 if broken == "checkpoint" else 10)
    if broken == "checkpoint":
        await finish(store, name)
        return
    assert store.uploads.find(name) is None
    with pytest.raises(UploadUnknown):
        await finish(store, name)


async def test_a_large_upload_is_written_out_while_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little is left for the sync at its end, however large it is."""
    begun: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []
    write_out, wait_for = uploads_file.start_writeback, uploads_file.finish_writeback

    def start(fd: int, start: int, end: int) -> None:
        begun.append((start, end))
        write_out(fd, start, end)

    def wait(fd: int, start: int, end: int) -> None:
        done.append((start, end))
        wait_for(fd, start, end)

    monkeypatch.setattr(uploads_file, "start_writeback", start)
    monkeypatch.setattr(uploads_file, "finish_writeback", wait)
    data = bytes(50 << 20)
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(DrawnBody(data), None)
        assert begun[-1][1] > len(data) - (9 << 20)
        assert done[-1][1] > len(data) - (41 << 20)
    assert done[-1][1] >= len(data) - (8 << 20)  # before the answer: the commit comes in another request
    assert done[0][0] == 0
    for ranges in (begun, done):
        assert all(one[1] == two[0] for one, two in pairwise(ranges))
    await finish(store, name, data)


@pytest.mark.parametrize("kind", [GivenBody, DrawnBody, lambda data: DrawnBody(data, (30_000, 0), chunk=10_000)])
async def test_cancelled_at_every_await_what_is_kept_is_right(
    tmp_path: Path, kind: Callable[[bytes], GivenBody]
) -> None:
    data = some_bytes(700_000)

    async def once(step: int) -> bool:
        store = OneStore(tmp_path / str(step))
        name = ""
        told = 0  # how much a client was told that is there
        done = False

        async def work() -> None:
            nonlocal done, name, told
            with instrument.scope:
                name = await begin(store)
                async with store.uploads.open(name) as upload:
                    await upload.receive(kind(data[:600_000]), None)
                told = 600_000
                async with store.uploads.open(name) as upload:
                    assert upload.state.offset == 600_000
                    await upload.receive(GivenBody(data[600_000:610_000]), None)
                told = 610_000
                async with store.uploads.open(name) as upload:
                    assert upload.state.offset == 610_000
                    await upload.receive(kind(data[610_000:]), None)
                    await upload.commit(Digest.of(data))
                done = True

        async with trio.open_nursery() as nursery:
            instrument = CancelAtStep(nursery, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked(0.0001)
                while nursery.child_tasks:
                    await trio.testing.wait_all_tasks_blocked(0.001)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        if store.blobs.has(Digest.of(data)):
            assert await store.blobs.read(Digest.of(data), len(data)) == data
            assert not name or store.uploads.find(name) is None
        elif name:
            found = store.uploads.find(name)
            assert found is not None
            assert file_bytes(store.paths.upload(name)) == data[: found.offset]
            assert found.offset >= told
            await finish(store, name, data)
        return done

    await once(1_000_000)  # starts threads
    before = open_files()
    assert await cancelled_after_each_step(once) > 15
    assert open_files() == before


async def test_a_tap_with_a_bug_leaves_what_was_written(tmp_path: Path) -> None:
    class Leaking(DrawnBody):
        def take(self, buffer: memoryview, wait: float) -> int:
            if self._turn > 5:
                raise RuntimeError("a bug")
            return super().take(buffer, wait)

    store = OneStore(tmp_path)
    name = await begin(store)
    with pytest.raises(RuntimeError, match="a bug"):
        async with store.uploads.open(name) as upload:
            await upload.receive(Leaking(DATA), None)
    await finish(store, name)


async def test_many_uploads_at_once_share_the_threads(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    most = 0

    class Counting(DrawnBody):
        def take(self, buffer: memoryview, wait: float) -> int:
            nonlocal most
            most = max(most, threading.active_count())
            return super().take(buffer, wait)

    async def push(number: int) -> None:
        data = DATA[number : number + 1_000_000]
        async with store.uploads.open(await begin(store)) as upload:
            body: Upload = upload
            await body.receive(Counting(data, (100_000, 0)), None)
            await body.commit(Digest.of(data))

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(push, number)
    assert most < 60
    assert len([path for path in store.paths.blobs.rglob("*") if path.is_file()]) == 40
