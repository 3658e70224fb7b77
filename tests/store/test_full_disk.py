"""The disk is full: readers still get their bytes, memory stays bounded, nothing is stored, the log says so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.store import (
    Gate,
    ScriptedOrigin,
    SmallDisk,
    read_all,
    running_store,
    small_file_system,
    some_bytes,
    until_broken,
)
from mxart.body import Source
from mxart.errors import BodyBroken, UpstreamFailed
from mxart.store.growing import WINDOW

DATA = some_bytes(3 * WINDOW + 12_345)
AT = [0, 1, 65536, 1_000_001, 2 * WINDOW]


def memory_used() -> int:
    """Bytes that the windows of this process hold."""
    used = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if "mxart-window" in os.readlink(f"/proc/self/fd/{name}"):
                used += os.stat(f"/proc/self/fd/{name}").st_blocks * 512
        except FileNotFoundError:
            pass
    return used


@pytest.mark.parametrize("room", AT)
async def test_one_reader_gets_everything_and_nothing_is_kept(
    tmp_path: Path, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path, SmallDisk(room)) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        most = offset = 0
        while (ready := await joined.source.available(offset)) > offset:
            assert os.pread(joined.source.fileno(), ready - offset, offset) == DATA[offset:ready]
            most = max(most, memory_used())
            offset = ready
        assert offset == len(DATA)
        assert 0 < most <= WINDOW + 2 * 1024 * 1024
        joined.source.close()
        assert memory_used() == 0
    assert not store.blobs.has(origin.digest)
    assert store.partials() == []
    assert any("cannot be stored" in line.message for line in caplog.records if line.levelno >= logging.WARNING)


async def test_two_readers_at_different_paces_both_get_everything(tmp_path: Path) -> None:
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        fast = (await store.transfers.join(origin.digest, None, origin)).source
        slow = (await store.transfers.join(origin.digest, None, origin)).source
        got: dict[str, bytearray] = {"fast": bytearray(), "slow": bytearray()}

        async def read(name: str, source: Source, step: int) -> None:
            mine = got[name]
            while (ready := await source.available(len(mine))) > len(mine):
                if name == "slow":
                    await trio.testing.wait_all_tasks_blocked()
                mine += os.pread(source.fileno(), min(ready - len(mine), step), len(mine))
                assert len(got["fast"]) <= max(500_000, len(got["slow"])) + WINDOW
                assert memory_used() <= WINDOW + 2 * 1024 * 1024

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "fast", fast, 1 << 20)
            nursery.start_soon(read, "slow", slow, 700_000)
        fast.close()
        slow.close()
    assert got["fast"] == DATA
    assert got["slow"] == DATA
    assert origin.asked == [0]


async def test_when_nobody_reads_any_more_it_stops(tmp_path: Path) -> None:
    origin = ScriptedOrigin(DATA, gate=(gate := Gate()))
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        source = (await store.transfers.join(origin.digest, None, origin)).source
        gate.open(2_000_000)
        offset = 0
        while offset < 1_000_000:
            offset = await source.available(offset)
        source.close()
        gate.open(len(DATA))
        while store.transfers.running:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert memory_used() == 0
    assert store.partials() == []


async def test_who_comes_too_late_for_the_window_gets_a_download_of_its_own(tmp_path: Path) -> None:
    gate = Gate()
    first, second = ScriptedOrigin(DATA, gate=gate), ScriptedOrigin(DATA)
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        early = (await store.transfers.join(first.digest, None, first)).source
        gate.open(len(DATA) // 2)
        offset = 0
        while offset < len(DATA) // 2 - 200_000:
            offset = await early.available(offset)
        early.ready(offset)
        late = await store.transfers.join(first.digest, None, second)
        assert late.started
        assert await read_all(late.source) == DATA
        late.source.close()
        gate.open(len(DATA))
        assert await read_all(early, offset) == DATA[offset:]
        early.close()
    assert (first.asked, second.asked) == ([0], [0])


async def test_going_back_behind_the_window_breaks_and_never_reads_zeros(tmp_path: Path) -> None:
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        source = (await store.transfers.join(origin.digest, None, origin)).source
        offset = 0
        while offset < 2 * WINDOW:
            offset = await source.available(offset)
            source.ready(offset)
        await source.available(offset)
        assert source.ready(499_999) == 500_000  # what is on disk still is
        with pytest.raises(BodyBroken, match="disk is full"):
            source.ready(500_000)
        source.close()


@pytest.mark.parametrize("kind", ["digest", "short", "long", "gives up"])
async def test_wrong_bytes_are_found_out_in_memory_too(tmp_path: Path, kind: str) -> None:
    digest = ScriptedOrigin(DATA).digest
    origin = {
        "digest": ScriptedOrigin(DATA[:-1] + bytes([DATA[-1] ^ 1])),
        "short": ScriptedOrigin(DATA[:-1], announced=len(DATA)),
        "long": ScriptedOrigin(DATA + b"!", announced=len(DATA)),
        "gives up": ScriptedOrigin(DATA, fails_at=WINDOW, problem=UpstreamFailed("gone")),
    }[kind]
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        source = (await store.transfers.join(digest, None, origin)).source
        assert await until_broken(source) < len(DATA)
        source.close()
    assert not store.blobs.has(digest)
    assert store.partials() == []


async def read_and_close(source: Source) -> bytes:
    try:
        return await read_all(source)
    finally:
        source.close()


@pytest.mark.parametrize("size", ["16k", "256k", "4m"])
async def test_on_a_disk_that_is_really_full(tmp_path: Path, size: str) -> None:
    data = DATA[: 2 * WINDOW]
    origin = ScriptedOrigin(data)
    with small_file_system(tmp_path / "small", size) as small:
        async with running_store(small) as store:
            joined = await store.transfers.join(origin.digest, None, origin)
            assert await read_and_close(joined.source) == data
            little = ScriptedOrigin(b"little")
            joined = await store.transfers.join(little.digest, None, little)
            assert await read_and_close(joined.source) == b"little"
        assert not store.blobs.has(origin.digest)
        assert store.blobs.has(little.digest)
        assert store.partials() == []


@pytest.mark.parametrize("names", [5, 6])
async def test_on_a_disk_without_room_for_another_name(tmp_path: Path, names: int) -> None:
    origin = ScriptedOrigin(DATA)
    with small_file_system(tmp_path / "small", f"100m,nr_inodes={names}") as small:
        async with running_store(small) as store:
            joined = await store.transfers.join(origin.digest, None, origin)
            assert await read_and_close(joined.source) == DATA
        assert store.partials() == []
        assert not store.blobs.has(origin.digest)
