"""One download, many readers, one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.descriptors import open_files
from kit.store import HEAD, Gate, ScriptedOrigin, read_all, running_store, some_bytes, until_broken
from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import BodyBroken, NotFound, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers
from mxart.store.base import Sink
from mxart.store.growing import TAIL

DATA = some_bytes(1_000_003)


async def test_a_miss_streams_is_checked_and_stored(tmp_path: Path) -> None:
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        assert joined.started
        assert joined.headers == HEAD
        assert joined.source.total == len(DATA)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert await store.blobs.read(origin.digest, len(DATA)) == DATA
    assert store.partials() == []
    assert origin.asked == [0]


async def test_a_blob_that_is_here_needs_no_origin(tmp_path: Path) -> None:
    async with running_store(tmp_path) as store:
        digest = await store.blobs.put(DATA)
        joined = await store.transfers.join(digest, None, ScriptedOrigin(b"", problem=NotFound("not asked")))
        assert not joined.started
        assert await read_all(joined.source) == DATA
        joined.source.close()


async def test_the_first_bytes_are_there_while_upstream_still_sends_and_the_last_are_not(tmp_path: Path) -> None:
    gate = Gate()
    origin = ScriptedOrigin(DATA, gate=gate, chunk=100_000)
    async with running_store(tmp_path) as store:
        gate.open(1)
        joined = await store.transfers.join(origin.digest, None, origin)
        assert await joined.source.available(0) == 100_000
        assert joined.source.ready(100_000) == 100_000
        gate.open(1_000_000)
        last = 0
        while last < len(DATA) - TAIL:
            last = await joined.source.available(last)
        assert last == len(DATA) - TAIL
        with trio.move_on_after(0.01) as scope:
            await joined.source.available(last)
        assert scope.cancelled_caught
        assert not store.blobs.has(origin.digest)
        gate.open(len(DATA))
        assert await joined.source.available(last) == len(DATA)
        assert await joined.source.available(len(DATA)) == len(DATA)
        joined.source.close()


@pytest.mark.parametrize("length", [0, 1, 2, TAIL - 1, TAIL, TAIL + 1])
@pytest.mark.parametrize("known", [True, False])
async def test_files_of_every_small_size(tmp_path: Path, length: int, known: bool) -> None:
    data = some_bytes(length)
    origin = ScriptedOrigin(data, announced=length if known else None, chunk=7000)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        assert await read_all(joined.source) == data
        assert joined.source.total == length
        joined.source.close()
    assert store.blobs.has(origin.digest)


async def test_everybody_who_asks_meanwhile_shares_the_one_download(tmp_path: Path) -> None:
    gate = Gate()
    origin = ScriptedOrigin(DATA, gate=gate)
    got: list[bytes] = []
    started: list[bool] = []

    async with running_store(tmp_path) as store, trio.open_nursery() as nursery:

        async def reader(offset: int) -> None:
            joined = await store.transfers.join(origin.digest, None, origin)
            started.append(joined.started)
            got.append(DATA[:offset] + await read_all(joined.source, offset))
            joined.source.close()

        for number in range(32):
            nursery.start_soon(reader, number * 31_000)
        await trio.testing.wait_all_tasks_blocked()
        gate.open(400_000)
        nursery.start_soon(reader, 0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.open(len(DATA))
    assert got == [DATA] * 33
    assert sum(started) == 1
    assert origin.asked == [0]


async def test_it_goes_on_when_its_first_reader_and_when_all_readers_leave(tmp_path: Path) -> None:
    gate = Gate()
    origin = ScriptedOrigin(DATA, gate=gate)
    async with running_store(tmp_path) as store:
        first = await store.transfers.join(origin.digest, None, origin)
        second = await store.transfers.join(origin.digest, None, origin)
        gate.open(200_000)
        await first.source.available(0)
        first.source.close()
        await second.source.available(100_000)
        second.source.close()
        second.source.close()
        gate.open(len(DATA))
    assert await store.blobs.read(origin.digest, len(DATA)) == DATA


async def test_a_joiner_who_is_cancelled_before_the_head_leaves_it_running(tmp_path: Path) -> None:
    release = trio.Event()
    inner = ScriptedOrigin(DATA)

    async def origin(sink: Sink) -> None:
        await release.wait()
        await inner(sink)

    async with running_store(tmp_path) as store:
        with trio.move_on_after(0.01) as scope:
            await store.transfers.join(inner.digest, None, origin)
        assert scope.cancelled_caught
        release.set()
    assert store.blobs.has(inner.digest)


async def test_a_problem_before_the_head_goes_to_everybody_and_is_not_remembered(tmp_path: Path) -> None:
    release = trio.Event()
    calls = 0

    async def origin(_sink: Sink) -> None:
        nonlocal calls
        calls += 1
        await release.wait()
        raise NotFound("no such blob", subject="blob", retry_after=3.0)

    problems: list[NotFound] = []
    good = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:

        async def ask() -> None:
            try:
                await store.transfers.join(good.digest, None, origin)
            except NotFound as problem:
                problems.append(problem)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.01)
            release.set()
        assert calls == 1
        assert [(p.message, p.subject, p.retry_after) for p in problems] == [("no such blob", "blob", 3.0)] * 3
        assert store.partials() == []
        joined = await store.transfers.join(good.digest, None, good)
        assert await read_all(joined.source) == DATA
        joined.source.close()


async def test_an_origin_that_gives_up_cuts_its_readers_and_the_next_resumes(tmp_path: Path) -> None:
    bad = ScriptedOrigin(DATA, fails_at=500_000, problem=UpstreamFailed("it broke"))
    good = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(bad.digest, None, bad)
        with pytest.raises(BodyBroken, match="it broke"):
            await read_all(joined.source)
        joined.source.close()
        assert not store.blobs.has(bad.digest)
        again = await store.transfers.join(good.digest, None, good)
        assert good.asked == [500_000]
        assert good.heads == [HEAD]
        assert await read_all(again.source) == DATA
        again.source.close()
    assert await store.blobs.read(bad.digest, len(DATA)) == DATA
    assert store.partials() == []


async def test_the_head_is_kept_with_the_first_bytes_even_if_nothing_more_comes(tmp_path: Path) -> None:
    bad = ScriptedOrigin(DATA, chunk=10_000, fails_at=10_000, problem=UpstreamFailed("it broke"))
    good = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(bad.digest, None, bad)
        assert joined.headers == HEAD
        joined.source.close()
        while store.transfers.running:
            await trio.testing.wait_all_tasks_blocked(0.001)
        (await store.transfers.join(good.digest, None, good)).source.close()
    assert (good.asked, good.heads) == ([10_000], [HEAD])


async def test_the_first_byte_does_not_wait_for_what_other_processes_are_told(tmp_path: Path) -> None:
    gate = Gate()
    origin = ScriptedOrigin(DATA, gate=gate, chunk=20_000)
    gate.open(1)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        assert await joined.source.available(0) == 20_000
        assert not [name for name in store.partials() if name.endswith(".notes")]
        await trio.testing.wait_all_tasks_blocked()
        assert [name for name in store.partials() if name.endswith(".notes")]
        gate.open(len(DATA))
        assert await read_all(joined.source) == DATA
        joined.source.close()


class Wrong:
    """What an upstream may do to a body."""

    digest = ScriptedOrigin(DATA[:-1] + b"!")
    short = ScriptedOrigin(DATA[:-1], announced=len(DATA))
    very_short = ScriptedOrigin(b"", announced=len(DATA))
    long = ScriptedOrigin(DATA + b"!", announced=len(DATA))
    short_of_unknown = ScriptedOrigin(DATA[:-1], announced=None)
    long_of_unknown = ScriptedOrigin(DATA + b"!", announced=None)
    page = ScriptedOrigin(b"<html>please log in</html>")


@pytest.mark.parametrize("name", [name for name in vars(Wrong) if not name.startswith("_")])
async def test_wrong_bytes_are_cut_short_for_everybody_and_never_stored(tmp_path: Path, name: str) -> None:
    origin: ScriptedOrigin = getattr(Wrong, name)
    digest = Digest.of(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(digest, None, origin)
        received = await until_broken(joined.source)
        assert received < min(len(origin.data) or 1, len(DATA))
        joined.source.close()
    assert not store.blobs.has(digest)
    assert store.partials() == []


async def test_a_length_that_the_caller_knows_better_is_refused_before_the_head(tmp_path: Path) -> None:
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        with pytest.raises(UpstreamFailed, match="bytes"):
            await store.transfers.join(origin.digest, 5, origin)
        assert store.partials() == []
        gate = Gate()
        origin = ScriptedOrigin(DATA, gate=gate)
        joined = await store.transfers.join(origin.digest, len(DATA), origin)
        with pytest.raises(UpstreamFailed, match="not the expected 5"):
            await store.transfers.join(origin.digest, 5, origin)
        gate.open(len(DATA))
        assert await read_all(joined.source) == DATA
        joined.source.close()


async def test_a_resume_that_speaks_of_another_length_is_refused(tmp_path: Path) -> None:
    async def origin(sink: Sink) -> None:
        sink.begin(len(DATA), HEAD)
        await sink.write(DATA[:300_000])
        sink.begin(len(DATA) + 1, HEAD)

    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(Digest.of(DATA), None, origin)
        with pytest.raises(BodyBroken, match="before it was"):
            await read_all(joined.source)
        joined.source.close()
    assert store.partials() == []


async def test_an_origin_with_a_bug_is_an_upstream_failure_and_does_not_end_the_server(tmp_path: Path) -> None:
    async def origin(_sink: Sink) -> None:
        raise ZeroDivisionError

    async with running_store(tmp_path) as store:
        with pytest.raises(UpstreamFailed):
            await store.transfers.join(Digest.of(DATA), None, origin)
        good = ScriptedOrigin(DATA)
        (await store.transfers.join(good.digest, None, good)).source.close()


async def test_a_bug_while_storing_ends_the_one_download_and_not_the_server(tmp_path: Path) -> None:
    def write(_fd: int, chunks: Sequence[bytes], _offset: int) -> tuple[int, OSError | None]:
        raise RuntimeError(f"cannot start a thread for {len(chunks)}")

    async with running_store(tmp_path, write) as store:
        origin = ScriptedOrigin(DATA)
        joined = await store.transfers.join(origin.digest, None, origin)
        assert await until_broken(joined.source) == 0
        joined.source.close()
        assert store.partials() == []
        digest = await store.blobs.put(DATA)
        joined = await store.transfers.join(digest, None, origin)
        assert await read_all(joined.source) == DATA
        joined.source.close()


async def test_a_flood_of_single_bytes_is_taken_in_batches(tmp_path: Path) -> None:
    data = some_bytes(60_000)
    origin = ScriptedOrigin(data, chunk=1)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        with trio.fail_after(10):
            assert await read_all(joined.source) == data
        joined.source.close()


async def test_shutdown_lets_downloads_finish_until_its_deadline_and_keeps_the_rest(tmp_path: Path) -> None:
    gate = Gate()
    slow = ScriptedOrigin(DATA, gate=gate, chunk=100_000)
    source: Source
    async with running_store(tmp_path) as store:
        gate.open(400_000)
        source = (await store.transfers.join(slow.digest, None, slow)).source
        while await source.available(0) < 400_000:
            await source.available(source.ready(0))
        await store.transfers.stop(0.01)
        with pytest.raises(BodyBroken, match="shutting down"):
            await source.available(400_000)
        source.close()
        with pytest.raises(UpstreamUnavailable):
            await store.transfers.join(slow.digest, None, slow)
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        assert await read_all(joined.source) == DATA
        assert origin.asked == [400_000]
        joined.source.close()


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    async with running_store(tmp_path) as store:
        good = ScriptedOrigin(DATA)
        (await store.transfers.join(good.digest, None, good)).source.close()  # warms up threads
        while store.transfers.running:
            await trio.testing.wait_all_tasks_blocked(0.01)
        before = open_files()
        for seed in range(10):
            data = some_bytes(100_000, seed)
            origin = ScriptedOrigin(data, fails_at=50_000 if seed % 2 else None, problem=UpstreamFailed("x"))
            try:
                joined = await store.transfers.join(origin.digest, None, origin)
                await read_all(joined.source)
            except (UpstreamFailed, BodyBroken):
                pass
            else:
                joined.source.close()
            if seed % 2:
                joined.source.close()
        while store.transfers.running:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert open_files() == before


async def test_headers_that_no_text_can_hold_do_not_break_the_notes(tmp_path: Path) -> None:
    headers = Headers([("x-latin", "caf\xe9\xff"), ("content-type", "text/plain")])
    origin = ScriptedOrigin(DATA, headers=headers)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join(origin.digest, None, origin)
        assert joined.headers == headers
        joined.source.close()
