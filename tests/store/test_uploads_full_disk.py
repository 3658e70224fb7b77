"""A disk that is full, or fails, is told to the client: what came stays, and nothing wrong gets a name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kit.bodies import DrawnBody, GivenBody
from kit.store import OneStore, SmallDisk, change_file, file_bytes, small_file_system, some_bytes
from mxart.digest import Digest
from mxart.errors import Problem, StorageFull
from mxart.store import uploads_file
from mxart.store.uploads_file import UploadFile

DATA = some_bytes(3_000_001)
DIGEST = Digest.of(DATA)
KINDS = [GivenBody, DrawnBody]


async def begin(store: OneStore) -> str:
    return (await store.uploads.begin("local", "team/app", "ann")).id


async def finish(store: OneStore, name: str) -> int:
    """Send what is missing, and commit; returns where it went on from."""
    async with store.uploads.open(name) as upload:
        offset = upload.state.offset
        await upload.receive(GivenBody(DATA[offset:]), None)
        assert await upload.commit(DIGEST) == len(DATA)
    assert await store.blobs.read(DIGEST, len(DATA)) == DATA
    return offset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, 1, 65_536, 262_144, 1_500_000])
async def test_a_disk_that_becomes_full_keeps_what_fitted_and_the_upload_goes_on_when_there_is_room(
    tmp_path: Path, kind: type[GivenBody], room: int
) -> None:
    disk = SmallDisk(room)
    store = OneStore(tmp_path, disk)
    name = await begin(store)
    with pytest.raises(StorageFull, match="team/app"):
        async with store.uploads.open(name) as upload:
            await upload.receive(kind(DATA), None)
    assert file_bytes(store.paths.upload(name)) == DATA[:room]
    with pytest.raises(StorageFull):
        async with store.uploads.open(name) as upload:
            await upload.receive(kind(DATA[room:]), None)
    disk.room = 1 << 30
    assert await finish(store, name) == room


async def test_a_small_file_that_finds_the_disk_full_at_its_commit_is_not_lost_from_view(tmp_path: Path) -> None:
    disk = SmallDisk(100)
    store = OneStore(tmp_path, disk)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA[:1000]), None)
        assert upload.state.offset == 1000
        with pytest.raises(StorageFull):
            await upload.commit(Digest.of(DATA[:1000]))
        assert upload.state.offset == 100
    assert not store.blobs.has(Digest.of(DATA[:1000]))
    disk.room = 1 << 30
    assert await finish(store, name) == 100


async def test_a_small_piece_that_finds_the_disk_full_is_told_before_its_request_is_answered(tmp_path: Path) -> None:
    store = OneStore(tmp_path, SmallDisk(100))
    name = await begin(store)
    with pytest.raises(StorageFull):
        async with store.uploads.open(name) as upload:
            await upload.receive(GivenBody(DATA[:1000]), None)
    found = store.uploads.find(name)
    assert found is not None
    assert found.offset == 100


@pytest.mark.parametrize("kind", KINDS)
async def test_on_a_disk_that_is_really_full(tmp_path: Path, kind: type[GivenBody]) -> None:
    with small_file_system(tmp_path / "small", "2m") as root:
        store = OneStore(root)
        name = await begin(store)
        with pytest.raises(StorageFull):
            async with store.uploads.open(name) as upload:
                await upload.receive(kind(DATA), None)
        with pytest.raises(StorageFull):
            await begin(store)
        kept = os.stat(store.paths.upload(name)).st_size
        assert file_bytes(store.paths.upload(name)) == DATA[:kept]
        async with store.uploads.open(name) as upload:  # its hash could be put aside all the same
            assert upload.state.offset == kept
            assert await upload.commit(Digest.of(DATA[:kept])) == kept
        assert store.blobs.has(Digest.of(DATA[:kept]))


async def test_without_room_for_another_name_a_commit_is_refused_and_the_upload_is_kept(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "10m,nr_inodes=8") as root:
        store = OneStore(root)
        name = await begin(store)
        async with store.uploads.open(name) as upload:
            await upload.receive(GivenBody(DATA), None)
            with pytest.raises(StorageFull):
                await upload.commit(DIGEST)
        assert not store.blobs.has(DIGEST)
        found = store.uploads.find(name)
        assert found is not None
        assert found.offset == len(DATA)
        with pytest.raises(StorageFull):
            await begin(store)
        assert sorted(os.listdir(store.paths.uploads)) == [name, f"{name}.state"]


def failing(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize(("code", "problem"), [(errno.ENOSPC, StorageFull), (errno.EIO, Problem)])
async def test_after_a_sync_that_failed_nobody_trusts_the_bytes_and_the_upload_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, problem: type[Problem]
) -> None:
    """The kernel tells of a lost write once (fsync(2)): the next sync may say that all is well."""

    def fail(*_: object) -> None:
        raise failing(code)

    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            with pytest.raises(problem):
                await upload.commit(DIGEST)
        assert upload.state.offset == 0
        change_file(store.paths.upload(name), b"")
    assert not store.blobs.has(DIGEST)
    assert await finish(store, name) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_disk_that_loses_what_is_written_out_early_is_found_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[GivenBody]
) -> None:
    def fail(*_: object) -> None:
        raise failing(errno.EIO)

    monkeypatch.setattr(uploads_file, "_WRITEBACK", 300_000)
    monkeypatch.setattr(uploads_file, "_BEHIND", 1_000_000)
    store = OneStore(tmp_path)
    name = await begin(store)
    with monkeypatch.context() as broken:
        broken.setattr(uploads_file, "finish_writeback", fail)
        with pytest.raises(Problem):
            async with store.uploads.open(name) as upload:
                await upload.receive(kind(DATA), None)
    assert await finish(store, name) == 0


async def test_an_upload_that_cannot_even_begin_again_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failing(errno.EIO)

    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            broken.setattr(UploadFile, "start_again", fail)
            with pytest.raises(Problem):
                await upload.commit(DIGEST)
    assert store.uploads.find(name) is None
    assert not store.blobs.has(DIGEST)
