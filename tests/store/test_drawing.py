"""A download that a thread draws from a tap is the same download: followed, judged, resumed, cut, cancelled."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.descriptors import open_files
from kit.steps import CancelAtStep, cancelled_after_each_step
from kit.store import (
    HEAD,
    OneStore,
    SmallDisk,
    read_all,
    running_store,
    small_file_system,
    some_bytes,
    until_broken,
)
from mxart.digest import Digest
from mxart.errors import BodyBroken, Problem, UpstreamFailed
from mxart.store import recording
from mxart.store.base import Sink
from mxart.store.files import write_at
from mxart.store.growing import TAIL, WINDOW

DATA = some_bytes(3_000_001)


class Faucet:
    """A tap, and the origin it belongs to: gives its data in pieces of the sizes told, 0 being "nothing now".

    Sizes are used in turns.  After a 0 the origin delivers `spoon` bytes itself, as one does that has to wait.
    """

    def __init__(
        self,
        data: bytes,
        sizes: Iterable[int] = (1 << 30,),
        *,
        announced: int | None = None,
        spoon: int = 1000,
        ends_at: int | None = None,
        problem: Problem | None = None,
    ) -> None:
        self.data = data
        self.sizes = list(sizes)
        self.announced = len(data) if announced is None else announced
        self.spoon = spoon
        self.ends_at = len(data) if ends_at is None else ends_at
        self.problem = problem
        self.asked: list[int] = []
        self.drawn = 0
        self._at = 0
        self._turn = 0

    def take(self, buffer: memoryview, wait: float) -> int:
        assert threading.current_thread() is not threading.main_thread()
        assert len(buffer)
        assert wait >= 0
        size = self.sizes[self._turn % len(self.sizes)]
        self._turn += 1
        piece = self.data[self._at : min(self._at + size, self.ends_at)][: len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        self.drawn += len(piece)
        return len(piece)

    async def __call__(self, sink: Sink) -> None:
        self.asked.append(sink.offset)
        sink.begin(self.announced, HEAD)
        self._at = sink.offset
        while self._at < self.ends_at:
            await sink.draw(self)
            assert sink.offset == self._at
            end = min(self._at + self.spoon, self.ends_at)
            piece, self._at = self.data[self._at : end], end
            if piece:
                await sink.write(piece)
        if self.problem is not None:
            raise self.problem


@pytest.mark.parametrize("sizes", [(1 << 30,), (1,) * 1000 + (0,), (70_000,), (5000, 0, 0), (0, 1 << 30), (1_048_576,)])
async def test_however_the_tap_runs_the_bytes_are_checked_and_stored(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    data = DATA if min(sizes) > 1 else DATA[:300_000]
    origin = Faucet(data, sizes, spoon=20_000)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(data), None, origin)
        assert await read_all(joined.source) == data
        joined.source.close()
    assert origin.drawn > len(data) // 100
    assert await store.blobs.read(Digest.of(data), len(data)) == data
    assert store.partials() == []


@pytest.mark.parametrize("length", [1, 2, TAIL - 1, TAIL, TAIL + 1, 1 << 20, (1 << 20) + 1])
async def test_files_of_every_small_size(tmp_path: Path, length: int) -> None:
    data = some_bytes(length)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(data), None, Faucet(data))
        assert await read_all(joined.source) == data
        joined.source.close()
    assert store.blobs.has(Digest.of(data))


async def test_readers_have_what_was_drawn_while_the_tap_still_runs_and_the_last_bytes_are_withheld(
    tmp_path: Path,
) -> None:
    go = threading.Event()

    class Held(Faucet):
        def take(self, buffer: memoryview, wait: float) -> int:
            if self._at == 2_500_000 and not go.wait(10):
                raise AssertionError("nobody read what was there")
            return super().take(buffer, wait)

    origin = Held(DATA, (*[500_000] * 5, 1 << 30))
    async with running_store(tmp_path) as store:
        source = (await store.transfers.join(Digest.of(DATA), None, origin)).source
        offset = 0
        while offset < 2_097_152:  # the first piece; the second is not full yet
            offset = await source.available(offset)
        assert os.pread(source.fileno(), offset, 0) == DATA[:offset]
        assert not store.blobs.has(Digest.of(DATA))
        go.set()
        seen = offset
        while offset < len(DATA):
            seen = max(seen, offset)
            offset = await source.available(offset)
        assert seen <= len(DATA) - TAIL
        source.close()


async def test_bytes_of_both_ways_come_in_their_order(tmp_path: Path) -> None:
    """What was delivered before a draw is on disk before it, whatever the thread was busy with."""

    async def origin(sink: Sink) -> None:
        faucet = Faucet(DATA, (300_000, 0, 0))
        sink.begin(len(DATA), HEAD)
        while sink.offset < len(DATA):
            for _ in range(3):
                piece = DATA[sink.offset : sink.offset + 7_001]
                if piece:
                    await sink.write(piece)
            faucet._at = sink.offset
            await sink.draw(faucet)

    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, origin)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert store.blobs.has(Digest.of(DATA))


async def test_a_body_that_breaks_off_is_resumed_behind_what_was_drawn(tmp_path: Path) -> None:
    bad = Faucet(DATA, ends_at=1_234_567, problem=UpstreamFailed("it broke"))
    good = Faucet(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, bad)
        with pytest.raises(BodyBroken, match="it broke"):
            await read_all(joined.source)
        joined.source.close()
        again = await store.transfers.join(Digest.of(DATA), None, good)
        assert await read_all(again.source) == DATA
        again.source.close()
    assert good.asked == [1_234_567]
    assert store.blobs.has(Digest.of(DATA))


class Wrong:
    """What may come out of a tap."""

    digest = Faucet(DATA[:-1] + b"!")
    short = Faucet(DATA[:-1], announced=len(DATA))
    long = Faucet(DATA + b"!" * 5, announced=len(DATA))


@pytest.mark.parametrize("name", [name for name in vars(Wrong) if not name.startswith("_")])
async def test_wrong_bytes_are_cut_short_for_everybody_and_never_stored(tmp_path: Path, name: str) -> None:
    origin: Faucet = getattr(Wrong, name)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, origin)
        assert await until_broken(joined.source) <= len(DATA) - TAIL
        joined.source.close()
    assert not store.blobs.has(Digest.of(DATA))
    assert store.partials() == []


BIG = some_bytes(2 * WINDOW + 12_345)


@pytest.mark.parametrize("room", [0, 1, 1_048_575, 1_048_576, 1_500_000, WINDOW])
async def test_a_disk_that_is_full_in_the_middle_of_a_draw_cuts_nobody(tmp_path: Path, room: int) -> None:
    origin = Faucet(BIG, spoon=100_000)
    async with running_store(tmp_path, SmallDisk(room)) as store:
        joined = await store.transfers.join(Digest.of(BIG), None, origin)
        assert await read_all(joined.source) == BIG
        joined.source.close()
    assert origin.asked == [0]
    assert not store.blobs.has(Digest.of(BIG))
    assert store.partials() == []


async def test_a_disk_that_is_really_full_cuts_nobody(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "5m") as root:
        async with running_store(root) as store:
            joined = await store.transfers.join(Digest.of(BIG), None, Faucet(BIG, spoon=100_000))
            assert await read_all(joined.source) == BIG
            joined.source.close()
        assert store.partials() == []


async def test_a_full_disk_and_no_reader_ends_the_draw(tmp_path: Path) -> None:
    origin = Faucet(BIG, (300_000, 0, 0), spoon=100_000)
    async with running_store(tmp_path, SmallDisk(500_000)) as store:
        (await store.transfers.join(Digest.of(BIG), None, origin)).source.close()
        while store.transfers.running:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert store.partials() == []


async def test_a_tap_with_a_bug_is_an_upstream_failure_and_leaves_the_server_and_what_was_written(
    tmp_path: Path,
) -> None:
    class Leaking(Faucet):
        def take(self, buffer: memoryview, wait: float) -> int:
            if self._at > 2_000_000:
                raise RuntimeError("a bug")
            return super().take(buffer, wait)

    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, Leaking(DATA, (400_000,)))
        with pytest.raises(BodyBroken, match="a bug"):
            await read_all(joined.source)
        joined.source.close()
        good = Faucet(DATA)
        joined = await store.transfers.join(Digest.of(DATA), None, good)
        assert await read_all(joined.source) == DATA
        joined.source.close()
        assert good.asked[0] > 0


async def test_a_shutdown_ends_a_tap_that_never_stops_and_keeps_what_came(tmp_path: Path) -> None:
    class Endless(Faucet):
        """Always something, never the end."""

        def take(self, buffer: memoryview, wait: float) -> int:
            return super().take(buffer[:1000], wait) if self._at < 2_900_000 else 0

        async def __call__(self, sink: Sink) -> None:
            self.asked.append(sink.offset)
            sink.begin(len(self.data), HEAD)
            while True:
                await sink.draw(self)
                await trio.lowlevel.checkpoint()

    origin = Endless(DATA)
    async with running_store(tmp_path) as store:
        source = (await store.transfers.join(Digest.of(DATA), None, origin)).source
        await source.available(0)
        with trio.fail_after(5):
            await store.transfers.stop(0.0)
            while store.transfers.running:
                await trio.testing.wait_all_tasks_blocked(0.001)
        with pytest.raises(BodyBroken, match="shutting down"):
            source.ready(0)
        source.close()
    again = Faucet(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, again)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert 0 < again.asked[0] < len(DATA)


async def test_cancelled_at_every_await_what_is_kept_is_right(tmp_path: Path) -> None:
    data = some_bytes(200_000)

    async def once(step: int) -> bool:
        done = False

        async def work() -> None:
            nonlocal done
            with instrument.scope:
                async with trio.open_nursery() as owner:
                    store = OneStore(tmp_path / str(step))
                    await owner.start(store.transfers.run)
                    origin = Faucet(data, (30_000, 0, 0), spoon=10_000)
                    source = (await store.transfers.join(Digest.of(data), None, origin)).source
                    try:
                        assert await read_all(source) == data
                    finally:
                        source.close()
                    done = True
                    owner.cancel_scope.cancel()

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
        async with running_store(tmp_path / str(step)) as store:
            for name in store.partials():
                kept = (store.paths.partials / name).read_bytes()
                assert name.endswith(".notes") or kept == data[: len(kept)]
            joined = await store.transfers.join(Digest.of(data), None, Faucet(data))
            assert await read_all(joined.source) == data
            joined.source.close()
        return done

    await once(1_000_000)  # starts threads
    before = open_files()
    assert await cancelled_after_each_step(once) > 30
    assert open_files() == before


async def test_a_sink_that_cannot_be_drawn_into_takes_nothing(tmp_path: Path) -> None:
    """Of unknown length any byte may be the last: such a body goes piece by piece."""
    data = some_bytes(100_000)
    faucet = Faucet(data)

    async def origin(sink: Sink) -> None:
        sink.begin(None, HEAD)
        await sink.draw(faucet)
        assert faucet.drawn == 0
        await sink.write(data)

    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(data), None, origin)
        assert await read_all(joined.source) == data
        joined.source.close()


async def test_a_tap_that_gives_little_but_always_something_does_not_hold_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call takes a millisecond and brings a byte: a stretch is over in time all the same."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0005
        return now

    def take(buffer: memoryview, wait: float) -> int:
        nonlocal now
        now += 0.001
        buffer[0] = 1
        return 1

    monkeypatch.setattr(recording, "monotonic", clock)
    disk = os.open(tmp_path / "partial", os.O_RDWR | os.O_CREAT)
    recorder = recording.Recorder(Digest.of(b"").hasher(), write_at, lambda: None, 0)
    tap = Faucet(b"")
    monkeypatch.setattr(tap, "take", take)
    assert recorder.draw(disk, tap, 500_000).more
    os.close(disk)
    assert 0 < recorder.end < 100
    assert now < 0.2


def test_the_longer_a_download_lasts_the_longer_bytes_wait_for_more_but_never_long() -> None:
    """Each piece wakes all readers; of a second nobody misses a hundredth, of the first moments he would."""
    waits = [recording.patience(lasted) for lasted in (0, 0.1, 0.3, 0.5, 1, 3600)]
    assert waits == [0.002, 0.002, 0.006, 0.01, 0.01, 0.01]
