"""A file whose name does not tell its digest: one download, judged before anybody has the last of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.store import (
    HEAD,
    Gate,
    OneStore,
    ScriptedNaming,
    ScriptedOrigin,
    SmallDisk,
    file_bytes,
    read_all,
    running_store,
    some_bytes,
    until_broken,
)
from mxart.digest import Digest
from mxart.errors import (
    NotFound,
    Problem,
    StorageFull,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mxart.message import Headers
from mxart.store.base import Sink
from mxart.store.growing import TAIL, WINDOW
from mxart.store.locks import elect
from mxart.store.notes import Note, Notes

KEY = "go\0example.com/mod/@v/v1.0.0.zip"
DATA = some_bytes(1_000_003)
OTHER = some_bytes(1_200_007, seed=2)
WRONG = UpstreamFailed("example.com/mod@v1.0.0: the checksum database knows another file")


def tagged(data: bytes, *, weak: bool = False) -> Headers:
    return Headers([*HEAD, ("etag", f'{"W/" * weak}"{Digest.of(data).hex[:8]}"')])


def origin_of(data: bytes, **rest: object) -> ScriptedOrigin:
    return ScriptedOrigin(data, **{"headers": tagged(data), **rest})  # type: ignore[arg-type] # what it is told


def leave(root: Path, data: bytes, total: int | None, headers: Headers) -> str:
    """What a process that was killed has left behind."""
    paths = OneStore(root).paths
    path = paths.partial_named(KEY)
    disk, won = elect(path)
    assert won
    os.pwrite(disk, data, 0)
    notes = Notes(paths.notes_of(path), os.fstat(disk).st_ino)
    notes.append(Note(total=total, headers=headers.items))
    notes.close()
    os.close(disk)
    return path


async def test_a_miss_streams_is_judged_as_a_whole_recorded_and_stored(tmp_path: Path) -> None:
    origin, naming = origin_of(DATA), ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert (joined.started, joined.digest, joined.headers) == (True, None, origin.headers)
        assert joined.source.total == len(DATA)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert (naming.shown, naming.heads) == ([DATA], [origin.headers])
    assert naming.kept == Digest.of(DATA)
    assert await store.blobs.read(Digest.of(DATA), len(DATA)) == DATA
    assert store.partials() == []


async def test_a_name_that_has_a_blob_needs_no_origin(tmp_path: Path) -> None:
    naming = ScriptedNaming()
    async with running_store(tmp_path) as store:
        naming.kept = await store.blobs.put(DATA)
        joined = await store.transfers.join_named(KEY, ScriptedOrigin(b"", problem=NotFound("not asked")), naming)
        assert (joined.started, joined.digest) == (False, naming.kept)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert store.partials() == []


async def test_a_name_whose_blob_is_lost_is_fetched_again(tmp_path: Path) -> None:
    origin, naming = origin_of(DATA), ScriptedNaming(DATA)
    naming.kept = Digest.of(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert store.blobs.has(Digest.of(DATA))


async def test_the_last_piece_waits_for_the_judgement(tmp_path: Path) -> None:
    origin, naming = origin_of(DATA), ScriptedNaming(DATA)
    naming.gate = trio.Event()
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source, end=len(DATA) - TAIL) == DATA[:-TAIL]
        while not naming.shown:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert joined.source.ready(len(DATA) - TAIL) == len(DATA) - TAIL
        assert naming.kept is None
        assert not store.blobs.has(Digest.of(DATA))
        naming.gate.set()
        assert await read_all(joined.source, len(DATA) - TAIL) == DATA[-TAIL:]
        joined.source.close()


@pytest.mark.parametrize("length", [0, 1, 2, TAIL - 1, TAIL, TAIL + 1])
@pytest.mark.parametrize("known", [True, False])
async def test_files_of_every_small_size(tmp_path: Path, length: int, known: bool) -> None:
    data = some_bytes(length)
    origin, naming = origin_of(data, announced=length if known else None, chunk=7000), ScriptedNaming(data)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        if length <= TAIL:
            assert joined.digest == Digest.of(data)
        assert await read_all(joined.source) == data
        assert joined.source.total == length
        joined.source.close()
    assert store.blobs.has(Digest.of(data))


@pytest.mark.parametrize("length", [0, 1, TAIL])
async def test_who_waits_for_a_small_file_is_told_what_is_wrong_with_it(tmp_path: Path, length: int) -> None:
    data = some_bytes(length)
    async with running_store(tmp_path) as store:
        for _ in range(2):
            with pytest.raises(UpstreamFailed, match="the checksum database knows another file"):
                await store.transfers.join_named(KEY, origin_of(data), ScriptedNaming(problem=WRONG))
            await trio.testing.wait_all_tasks_blocked()
            assert store.partials() == []
        assert not store.blobs.has(Digest.of(data))


@pytest.mark.parametrize("known", [True, False])
async def test_a_file_that_is_judged_wrong_is_cut_for_everybody_and_not_kept(tmp_path: Path, known: bool) -> None:
    gate = Gate()
    origin, naming = (
        origin_of(DATA, gate=gate, announced=len(DATA) if known else None),
        ScriptedNaming(problem=WRONG),
    )
    ends: list[int] = []
    async with running_store(tmp_path) as store, trio.open_nursery() as nursery:

        async def reader() -> None:
            joined = await store.transfers.join_named(KEY, origin, naming)
            ends.append(await until_broken(joined.source))
            joined.source.close()

        for _ in range(8):
            nursery.start_soon(reader)
        gate.open(500_000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(reader)
        gate.open(len(DATA))
    assert len(ends) == 9
    assert max(ends) <= len(DATA) - TAIL
    assert (origin.asked, naming.kept, store.partials()) == ([0], None, [])
    assert not store.blobs.has(Digest.of(DATA))


async def test_a_judge_that_fails_unforeseen_lets_nothing_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ScriptedNaming):
        async def judge(self, unjudged: object) -> None:
            raise ZeroDivisionError

    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin_of(DATA), Broken())
        assert await until_broken(joined.source) == len(DATA) - TAIL
        joined.source.close()
        with pytest.raises(Problem, match="ZeroDivisionError while judging"):
            await store.transfers.join_named(KEY + "2", origin_of(b"small"), Broken())
    assert store.partials() == []
    assert "judging it failed in an unforeseen way" in caplog.text


@pytest.mark.parametrize("problem", [UpstreamUnavailable("who knows"), UpstreamTimeout("who knows")])
async def test_what_nobody_can_judge_now_is_kept_to_be_judged_again(tmp_path: Path, problem: Problem) -> None:
    naming = ScriptedNaming(problem=problem)
    origin = origin_of(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await until_broken(joined.source) == len(DATA) - TAIL
        joined.source.close()
        await trio.testing.wait_all_tasks_blocked()
        assert file_bytes(store.paths.partial_named(KEY)) == DATA
        # The next ones to ask are told why, before any byte, or get it.
        with pytest.raises(type(problem), match="who knows"):
            await store.transfers.join_named(KEY, origin, naming)
        await trio.testing.wait_all_tasks_blocked()
        naming.right = DATA
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert origin.asked == [0]
    assert naming.kept == Digest.of(DATA)
    assert store.partials() == []


async def test_a_judgement_that_is_cancelled_is_made_by_the_next_process(tmp_path: Path) -> None:
    origin, naming = origin_of(DATA), ScriptedNaming(DATA)
    naming.gate = trio.Event()
    store = OneStore(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.transfers.run)
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source, end=len(DATA) - TAIL) == DATA[:-TAIL]
        while not naming.shown:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await store.transfers.stop(0)
        assert await until_broken(joined.source) <= len(DATA) - TAIL
        joined.source.close()
    assert naming.kept is None
    naming.gate = None
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert (joined.digest, await read_all(joined.source)) == (Digest.of(DATA), DATA)
        joined.source.close()
    assert origin.asked == [0]
    assert naming.kept == Digest.of(DATA)


async def test_what_cannot_be_recorded_is_served_and_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    naming = ScriptedNaming(DATA)
    naming.unkept = StorageFull("the catalog cannot be used: the disk is full")
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin_of(DATA), naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert store.partials() == []
    assert not store.blobs.has(Digest.of(DATA))
    assert "cannot be stored" in caplog.text


async def test_it_goes_on_when_all_readers_leave(tmp_path: Path) -> None:
    gate = Gate()
    origin, naming = origin_of(DATA, gate=gate), ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        gate.open(200_000)
        joined = await store.transfers.join_named(KEY, origin, naming)
        joined.source.close()
        gate.open(len(DATA))
    assert naming.kept == Digest.of(DATA)


async def test_a_truncated_answer_is_none(tmp_path: Path) -> None:
    naming = ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin_of(DATA, announced=len(DATA) + 1), naming)
        assert await until_broken(joined.source) <= len(DATA) - TAIL + 1
        joined.source.close()
    assert naming.shown == []
    assert store.partials() == []


# What an earlier process has left


@pytest.mark.parametrize("total", [len(DATA), None])
async def test_a_download_is_resumed_if_upstream_confirms_that_it_has_the_same_file(
    tmp_path: Path, total: int | None
) -> None:
    leave(tmp_path, DATA[:400_000], total, tagged(DATA))
    origin, naming = origin_of(DATA, announced=total), ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert (origin.asked, naming.shown) == ([400_000], [DATA])


async def test_nobody_is_given_a_byte_of_what_was_left_before_upstream_confirms_it(tmp_path: Path) -> None:
    leave(tmp_path, DATA[:400_000], len(DATA), tagged(DATA))
    inner, release = origin_of(DATA), trio.Event()

    async def origin(sink: Sink) -> None:
        await release.wait()
        await inner(sink)

    async with running_store(tmp_path) as store:
        with trio.move_on_after(0.01) as scope:
            await store.transfers.join_named(KEY, origin, ScriptedNaming(DATA))
        assert scope.cancelled_caught
        release.set()
        joined = await store.transfers.join_named(KEY, origin, ScriptedNaming(DATA))
        assert await read_all(joined.source) == DATA
        joined.source.close()


@pytest.mark.parametrize("total", [len(DATA), None])
@pytest.mark.parametrize("now", [OTHER, DATA[:400_000], DATA[:1000], b""])
async def test_where_upstream_has_another_file_by_now_it_is_begun_again(
    tmp_path: Path, total: int | None, now: bytes
) -> None:
    leave(tmp_path, DATA[:400_000], total, tagged(DATA))
    origin, naming = origin_of(now), ScriptedNaming(now, WRONG)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert joined.headers == tagged(now)
        assert await read_all(joined.source) == now
        joined.source.close()
    assert (origin.asked, naming.shown, naming.kept) == ([400_000, 0], [now], Digest.of(now))
    assert store.partials() == []


@pytest.mark.parametrize("headers", [HEAD, tagged(DATA, weak=True), Headers([*HEAD, ("etag", '"')])])
async def test_what_came_without_a_strong_validator_is_begun_again_at_once(tmp_path: Path, headers: Headers) -> None:
    leave(tmp_path, DATA[:400_000], len(DATA), headers)
    origin, naming = origin_of(DATA, headers=headers), ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, origin, naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert (origin.asked, naming.kept) == ([0], Digest.of(DATA))


async def test_a_file_that_was_left_complete_is_judged_without_upstream(tmp_path: Path) -> None:
    leave(tmp_path, DATA, len(DATA), HEAD)
    naming = ScriptedNaming(DATA)
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, ScriptedOrigin(b"", problem=NotFound("not asked")), naming)
        assert (joined.headers, joined.digest) == (HEAD, Digest.of(DATA))
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert naming.kept == Digest.of(DATA)


async def test_an_upstream_whose_file_changes_all_the_time_is_given_up(tmp_path: Path) -> None:
    calls = 0

    async def origin(sink: Sink) -> None:
        nonlocal calls
        calls += 1
        for number in range(2):  # breaks off soon, and has another file then
            sink.begin(None, Headers([("etag", f'"{calls}.{number}"')]))
            await sink.write(b"x" * 1000)

    async with running_store(tmp_path) as store:
        with trio.fail_after(5), pytest.raises(UpstreamFailed, match="changes all the time"):
            await store.transfers.join_named(KEY, origin, ScriptedNaming())
    assert 1 < calls < 10


# The file changes under readers


async def changing(sink: Sink, new: Headers, first: int) -> None:
    """An origin that is broken off after `first` bytes, and asks again as upstream.download does."""
    sink.begin(len(DATA), tagged(DATA) if new != HEAD else HEAD)
    await sink.write(DATA[:first])
    sink.begin(len(DATA), new)
    await sink.write(DATA[first:])


@pytest.mark.parametrize("new", [tagged(OTHER), HEAD, tagged(DATA, weak=True)])
async def test_readers_of_a_file_that_changes_are_cut_rather_than_given_the_rest_of_another(
    tmp_path: Path, new: Headers
) -> None:
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(KEY, lambda sink: changing(sink, new, 300_000), ScriptedNaming(DATA))
        assert await until_broken(joined.source) <= 300_000
        joined.source.close()
        await trio.testing.wait_all_tasks_blocked()
        assert store.partials() == []
        naming = ScriptedNaming(OTHER)
        joined = await store.transfers.join_named(KEY, origin_of(OTHER), naming)
        assert await read_all(joined.source) == OTHER
        joined.source.close()


async def test_readers_stay_where_the_same_file_goes_on(tmp_path: Path) -> None:
    async with running_store(tmp_path) as store:
        joined = await store.transfers.join_named(
            KEY, lambda sink: changing(sink, tagged(DATA), 300_000), ScriptedNaming(DATA, WRONG)
        )
        assert await read_all(joined.source) == DATA
        joined.source.close()


# The disk is full


@pytest.mark.parametrize("room", [0, 1, 65536, 600_001])
async def test_on_a_full_disk_the_rest_is_judged_from_memory(tmp_path: Path, room: int) -> None:
    naming = ScriptedNaming(DATA, WRONG)
    async with running_store(tmp_path, SmallDisk(room)) as store:
        joined = await store.transfers.join_named(KEY, origin_of(DATA), naming)
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert (naming.shown, naming.kept, store.partials()) == ([DATA], None, [])


@pytest.mark.parametrize("room", [0, 65536])
async def test_on_a_full_disk_a_wrong_file_is_cut_too(tmp_path: Path, room: int) -> None:
    naming = ScriptedNaming(problem=WRONG)
    async with running_store(tmp_path, SmallDisk(room)) as store:
        joined = await store.transfers.join_named(KEY, origin_of(DATA), naming)
        assert await until_broken(joined.source) <= len(DATA) - TAIL
        joined.source.close()
    assert (naming.shown, store.partials()) == ([DATA], [])


async def test_on_a_full_disk_what_is_too_large_to_be_judged_in_memory_is_cut(tmp_path: Path) -> None:
    data = some_bytes(WINDOW + 100_000)
    gate = Gate()
    naming = ScriptedNaming(data)
    async with running_store(tmp_path, SmallDisk(50_000)) as store:
        gate.open(60_000)
        origin = origin_of(data, gate=gate)
        joined = await store.transfers.join_named(KEY, origin, naming)
        gate.open(len(data))
        assert await until_broken(joined.source) <= len(data) - TAIL
        joined.source.close()
        await trio.testing.wait_all_tasks_blocked()
        assert naming.shown == []
        assert store.partials() == []
