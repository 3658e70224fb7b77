"""What has a digest as its name has that digest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from kit.descriptors import open_files
from kit.store import OneStore, small_file_system, some_bytes
from mxart.digest import Digest
from mxart.errors import ConfigError, StorageFull
from mxart.store.paths import StorePaths


async def test_what_was_put_is_there_for_the_next_process_too(tmp_path: Path) -> None:
    data = some_bytes(300_000)
    digest = await OneStore(tmp_path).blobs.put(data)
    again = OneStore(tmp_path).blobs
    assert digest == Digest.of(data)
    assert again.has(digest)
    assert await again.read(digest, 300_000) == data
    assert await again.read(digest, 299_999) is None
    source = again.open(digest)
    assert source is not None
    assert (source.total, source.ready(0), await source.available(300_000)) == (300_000, 300_000, 300_000)
    assert os.pread(source.fileno(), 10, 5) == data[5:15]
    source.close()
    source.close()


async def test_a_blob_that_is_not_there_is_none(tmp_path: Path) -> None:
    blobs = OneStore(tmp_path).blobs
    digest = Digest.of(b"nothing")
    assert not blobs.has(digest)
    assert blobs.open(digest) is None
    assert await blobs.read(digest, 100) is None


async def test_bytes_that_do_not_have_their_digest_are_refused(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    with pytest.raises(ValueError, match="sha256:"):
        await store.blobs.put(b"some", Digest.of(b"other"))
    assert list(store.paths.blobs.rglob("*")) == []
    assert os.listdir(store.paths.temporary) == []


async def test_sha512_has_a_place_of_its_own(tmp_path: Path) -> None:
    blobs = OneStore(tmp_path).blobs
    digest = Digest.of(b"x", "sha512")
    assert await blobs.put(b"x", digest) == digest
    assert await blobs.read(digest, 1) == b"x"


async def test_the_same_bytes_put_many_times_at_once_are_one_file(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(store.blobs.put, b"the same")
    assert len([path for path in store.paths.blobs.rglob("*") if path.is_file()]) == 1
    assert os.listdir(store.paths.temporary) == []


async def test_a_put_that_is_cancelled_is_whole_or_not_there(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.blobs.put(b"never begun")
    with trio.move_on_after(0.0005):
        await store.blobs.put(some_bytes(4_000_000))
    kept = await store.blobs.read(Digest.of(some_bytes(4_000_000)), 5_000_000)
    assert kept in {None, some_bytes(4_000_000)}
    assert not store.blobs.has(Digest.of(b"never begun"))
    assert os.listdir(store.paths.temporary) == []


async def test_readers_of_one_blob_share_a_descriptor_and_leave_none(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    digest = await store.blobs.put(b"shared")
    before = open_files()
    sources = [store.blobs.open(digest) for _ in range(500)]
    assert open_files() == before + 1
    for source in sources:
        assert source is not None
        source.close()
    assert open_files() == before
    assert sources[0] is not None
    with pytest.raises(ValueError, match="closed"):
        sources[0].fileno()


async def test_files_and_folders_are_the_owners_only(tmp_path: Path) -> None:
    store = OneStore(tmp_path / "new")
    digest = await store.blobs.put(b"private")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(store.paths.blob(digest)).st_mode) == 0o444


async def test_a_place_that_is_no_directory_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="choose a directory"):
        StorePaths(tmp_path / "file").create()


async def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "64k") as small:
        store = OneStore(small)
        with pytest.raises(StorageFull):
            await store.blobs.put(some_bytes(200_000))
        assert os.listdir(store.paths.temporary) == []
        assert await store.blobs.put(b"fits") == Digest.of(b"fits")


async def test_a_blob_that_is_swept_the_moment_it_is_there_is_no_fault_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection without grace does that; whoever gives the bytes a name looks for them first."""
    rename = os.rename

    def swept(source: str, target: str) -> None:
        rename(source, target)
        os.unlink(target)

    store = OneStore(tmp_path)
    monkeypatch.setattr(os, "rename", swept)
    digest = await store.blobs.put(b"of a moment")
    assert not store.blobs.has(digest)
    monkeypatch.undo()
    assert await store.blobs.put(b"of a moment") == digest
    assert store.blobs.has(digest)
