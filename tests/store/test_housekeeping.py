"""Leftovers go, and what somebody still needs stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import trio
import trio.testing

from kit.bodies import GivenBody
from kit.store import Gate, OneStore, ScriptedOrigin, read_all, running_store, some_bytes
from mxart.digest import Digest
from mxart.store import housekeeping
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.housekeeping import clean, keep_house

DATA = some_bytes(300_000)
DIGEST = Digest.of(DATA)
DAY = 24 * 3600


def leave(path: str, data: bytes, age: float = 0) -> None:
    Path(path).write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)


def test_old_temporary_files_go_and_young_ones_stay(tmp_path: Path) -> None:
    paths = OneStore(tmp_path).paths
    leave(paths.scratch(), b"dead", 3600)
    leave(paths.scratch(), b"just begun")
    assert clean(paths, time.time()) == 1
    assert [path.read_bytes() for path in paths.temporary.iterdir()] == [b"just begun"]


def test_a_partial_file_stays_while_it_may_be_resumed(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    leave(store.paths.partial(DIGEST), DATA[:1000], DAY)
    leave(store.paths.notes(DIGEST), b"{}", DAY)
    assert clean(store.paths, time.time()) == 0
    assert len(store.partials()) == 2
    assert clean(store.paths, time.time() + 7 * DAY) == 1
    assert store.partials() == []


def test_a_partial_file_that_is_known_by_a_name_stays_while_it_may_be_resumed(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    for key in ("go\0a", "go\0b"):
        leave(store.paths.partial_named(key), DATA[:1000], DAY)
        leave(store.paths.notes_of(store.paths.partial_named(key)), b"{}", DAY)
    leave(store.paths.partial_named("go\0empty"), b"")
    leave(store.paths.notes_of(store.paths.partial_named("go\0lost")), b"{}")
    leave(str(store.paths.partials / "named-abc"), b"?")
    assert clean(store.paths, time.time()) == 2
    assert len(store.partials()) == 5
    assert clean(store.paths, time.time() + 7 * DAY) == 2
    assert store.partials() == ["named-abc"]


async def test_a_partial_file_that_is_empty_or_a_blob_already_goes(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    await store.blobs.put(DATA)
    leave(store.paths.partial(DIGEST), DATA[:1000])
    leave(store.paths.partial(Digest.of(b"x")), b"")
    leave(store.paths.notes(Digest.of(b"y")), b"{}")
    leave(str(store.paths.partials / "a user's file"), b"?")
    assert clean(store.paths, time.time()) == 3
    assert store.partials() == ["a user's file"]
    assert await store.blobs.read(DIGEST, len(DATA)) == DATA


async def test_a_download_under_way_is_not_disturbed_however_old(tmp_path: Path) -> None:
    gate = Gate()
    origin = ScriptedOrigin(DATA, gate=gate)
    async with running_store(tmp_path) as store:
        gate.open(100_000)
        joined = await store.transfers.join(DIGEST, None, origin)
        await joined.source.available(0)
        assert clean(store.paths, time.time() + 100 * DAY) == 0
        gate.open(len(DATA))
        assert await read_all(joined.source) == DATA
        joined.source.close()
    assert store.blobs.has(DIGEST)


async def test_the_housekeeper_cleans_at_start_and_writes_uses_later(
    tmp_path: Path,
) -> None:
    store = OneStore(tmp_path)
    leave(store.paths.scratch(), b"dead", 3600)
    catalog = SqliteCatalog(tmp_path / "c")
    await catalog.put_file(FileRecord("r", "p", "x", DIGEST, 1, "t"))
    catalog.used("r", "x", 5.0)
    with trio.move_on_after(10) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_house, catalog, [store.paths])
            while os.listdir(store.paths.temporary):
                await trio.testing.wait_all_tasks_blocked(0.005)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert housekeeping.FLUSH_SECONDS <= 60
    await catalog.aclose(0.0)


async def begun(store: OneStore) -> str:
    return (await store.uploads.begin("local", "team/app", "ann")).id


async def test_an_upload_without_progress_for_a_day_goes_and_a_younger_one_stays(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    old, young = await begun(store), await begun(store)
    for name in (old, young):
        async with store.uploads.open(name) as upload:
            await upload.receive(GivenBody(DATA), None)
    assert clean(store.paths, time.time() + DAY - 60) == 0
    for path in (store.paths.upload(old), store.paths.upload_state(old)):
        os.utime(path, (time.time() - DAY - 60,) * 2)
    assert clean(store.paths, time.time()) == 1
    assert store.uploads.find(old) is None
    async with store.uploads.open(young) as upload:
        assert await upload.commit(DIGEST) == len(DATA)


async def test_an_upload_that_was_begun_and_never_sent_goes_too(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begun(store)
    assert clean(store.paths, time.time() + DAY + 60) == 1
    assert store.uploads.find(name) is None
    assert os.listdir(store.paths.uploads) == []


async def test_an_upload_that_somebody_is_at_stays_however_old(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begun(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
        assert clean(store.paths, time.time() + 100 * DAY) == 0
        assert await upload.commit(DIGEST) == len(DATA)


async def test_what_is_left_of_uploads_that_are_over_goes(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    async with store.uploads.open(await begun(store)) as upload:
        await upload.commit(Digest.of(b""))
    leave(store.paths.upload("0" * 32), b"bytes without a state", 2 * DAY)
    leave(store.paths.upload_state("1" * 32), b"state without bytes", 2 * DAY)
    leave(str(store.paths.uploads / "a user's file"), b"?", 2 * DAY)
    assert len(os.listdir(store.paths.uploads)) == 4
    assert clean(store.paths, time.time() + DAY + 60) == 3  # the spare state file among them
    assert os.listdir(store.paths.uploads) == ["a user's file"]
    name = await begun(store)  # whose spare was taken away
    assert store.uploads.find(name) is not None
