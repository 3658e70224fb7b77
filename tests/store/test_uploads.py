"""A client pushes a file in as many requests as it likes; what gets a name is whole, and what came is never lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.bodies import GivenBody
from kit.store import OneStore, change_file, some_bytes
from mxart.digest import Digest
from mxart.errors import Disconnected, TooLarge, UpstreamUnavailable
from mxart.store.base import DigestMismatch, Unjudged, UploadBusy, UploadUnknown
from mxart.store.paths import SPARE
from mxart.store.uploads import DiskUploads

DATA = some_bytes(3_000_001)
DIGEST = Digest.of(DATA)


async def begin(store: OneStore, algorithm: str = "sha256") -> str:
    return (await store.uploads.begin("local", "team/app", "ann", algorithm)).id


async def send(store: OneStore, name: str, data: bytes, limit: int | None = None) -> None:
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(data), limit)


def left_over(store: OneStore) -> list[str]:
    """What is in the folder, but for the files that wait for the next upload."""
    return sorted(name for name in os.listdir(store.paths.uploads) if not name.endswith(SPARE))


async def test_a_file_pushed_at_once_is_a_blob_when_commit_returns(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
        assert upload.state.offset == len(DATA)
        assert await upload.commit(DIGEST) == len(DATA)
    assert await store.blobs.read(DIGEST, len(DATA)) == DATA
    assert stat.S_IMODE(os.stat(store.paths.blob(DIGEST)).st_mode) == 0o444
    assert left_over(store) == []
    assert store.uploads.find(name) is None


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1])
async def test_a_file_of_any_size_is_pushed(tmp_path: Path, size: int) -> None:
    store = OneStore(tmp_path)
    async with store.uploads.open(await begin(store)) as upload:
        await upload.receive(GivenBody(DATA[:size]), size)
        assert await upload.commit(Digest.of(DATA[:size])) == size
    assert await store.blobs.read(Digest.of(DATA[:size]), len(DATA)) == DATA[:size]


async def test_an_upload_is_known_by_what_it_was_begun_with(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    begun = await store.uploads.begin("local", "team/app", "ann", "sha512")
    await send(store, begun.id, DATA[:1000])
    found = DiskUploads(store.paths).find(begun.id)
    assert found is not None
    assert (found.repository, found.package, found.owner) == ("local", "team/app", "ann")
    assert (found.algorithm, found.offset, found.created) == ("sha512", 1000, begun.created)


async def test_an_upload_in_pieces_goes_on_in_another_worker_without_reading_them_again(tmp_path: Path) -> None:
    name = await begin(OneStore(tmp_path))
    for start in range(0, len(DATA), 700_000):
        store = OneStore(tmp_path)
        async with store.uploads.open(name) as upload:
            assert upload.state.offset == start
            if start:  # it goes on with the hash, not with the bytes: those may be anything
                change_file(store.paths.upload(name), bytes(start))
            await upload.receive(GivenBody(DATA[start : start + 700_000]), None)
            change_file(store.paths.upload(name), DATA[: start + 700_000])
    async with OneStore(tmp_path).uploads.open(name) as upload:
        assert await upload.commit(DIGEST) == len(DATA)


async def test_a_wrong_digest_is_told_with_the_right_one_and_the_upload_is_kept(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA), None)
        with pytest.raises(DigestMismatch, match=str(DIGEST)) as wrong:
            await upload.commit(Digest.of(b"other"))
        assert wrong.value.found == DIGEST
    assert not store.blobs.has(Digest.of(b"other"))
    async with store.uploads.open(name) as upload:
        assert await upload.commit(DIGEST) == len(DATA)


@pytest.mark.parametrize(("begun", "asked"), [("sha256", "sha512"), ("sha512", "sha512"), ("sha512", "sha256")])
async def test_an_upload_is_committed_under_a_digest_that_it_did_not_announce(
    tmp_path: Path, begun: str, asked: str
) -> None:
    store = OneStore(tmp_path)
    digest = Digest.of(DATA, asked)
    async with store.uploads.open(await begin(store, begun)) as upload:
        await upload.receive(GivenBody(DATA), None)
        with pytest.raises(DigestMismatch):
            await upload.commit(Digest.of(b"x", asked))
        assert await upload.commit(digest) == len(DATA)
    assert await store.blobs.read(digest, len(DATA)) == DATA


async def test_a_body_that_breaks_off_leaves_what_came_and_the_rest_is_sent_later(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    with pytest.raises(Disconnected):
        async with store.uploads.open(name) as upload:
            await upload.receive(GivenBody(DATA, breaks_at=1_234_567), None)
    found = store.uploads.find(name)
    assert found is not None
    assert found.offset == 1_234_567
    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA[1_234_567:]), None)
        await upload.commit(DIGEST)


@pytest.mark.parametrize("told", [True, False])
async def test_more_than_the_limit_is_refused_and_what_fits_is_kept(tmp_path: Path, told: bool) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    await send(store, name, DATA[:1000], 1_500_000)
    body = GivenBody(DATA[1000:], length=len(DATA) - 1000 if told else None)
    async with store.uploads.open(name) as upload:
        with pytest.raises(TooLarge, match="1500000"):
            await upload.receive(body, 1_500_000)
        assert upload.state.offset == (1000 if told else 1_500_000)
        assert (body.taken == 0) == told
        await upload.receive(GivenBody(DATA[upload.state.offset :]), None)
        await upload.commit(DIGEST)


@pytest.mark.parametrize("name", ["", "..", "../x", "0" * 31, "0" * 32, "F" * 32, "0" * 32 + "\n", "0" * 32 + ".state"])
async def test_an_id_that_nobody_was_given_is_unknown(tmp_path: Path, name: str) -> None:
    store = OneStore(tmp_path)
    await begin(store)
    assert store.uploads.find(name) is None
    with pytest.raises(UploadUnknown):
        async with store.uploads.open(name):
            pass


async def test_a_second_request_at_an_upload_is_told_that_it_is_busy(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    other = DiskUploads(store.paths, busy_seconds=0.01)
    async with store.uploads.open(name) as upload:
        with pytest.raises(UploadBusy):
            async with other.open(name):
                pass
        await upload.receive(GivenBody(b"first"), None)
    async with other.open(name) as upload:
        assert upload.state.offset == 5


async def test_whoever_waits_for_an_upload_that_is_committed_is_told_that_it_is_gone(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    told: list[type[Exception]] = []

    async def wait() -> None:
        try:
            async with store.uploads.open(name):
                pass
        except UploadUnknown as error:
            told.append(type(error))

    async with trio.open_nursery() as nursery, store.uploads.open(name) as upload:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await upload.receive(GivenBody(DATA), None)
        await upload.commit(DIGEST)
        with pytest.raises(UploadUnknown):
            await upload.commit(DIGEST)
    assert told == [UploadUnknown]


async def test_the_same_file_pushed_twice_is_placed_anew_and_is_young_again(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    await store.blobs.put(DATA)
    os.utime(store.paths.blob(DIGEST), (1.0, 1.0))
    reader = store.blobs.open(DIGEST)
    assert reader is not None
    names = [await begin(store), await begin(store)]
    async with store.uploads.open(names[0]) as one, store.uploads.open(names[1]) as two:
        await one.receive(GivenBody(DATA), None)
        await two.receive(GivenBody(DATA), None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.commit, DIGEST)
            nursery.start_soon(two.commit, DIGEST)
    assert os.stat(store.paths.blob(DIGEST)).st_mtime > 1e9
    assert await store.blobs.read(DIGEST, len(DATA)) == DATA
    assert os.pread(reader.fileno(), 100, 0) == DATA[:100]
    reader.close()
    assert left_over(store) == []


async def test_an_upload_that_is_given_up_frees_its_bytes_at_once(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)
    await send(store, name, DATA)
    async with store.uploads.open(name) as upload:
        await upload.discard()
        await upload.discard()
        assert left_over(store) == []
        with pytest.raises(UploadUnknown):
            await upload.receive(GivenBody(b"more"), None)
    assert store.uploads.find(name) is None


async def test_a_flood_of_uploads_ends_at_a_limit_and_goes_on_when_some_are_over(tmp_path: Path) -> None:
    store = OneStore(tmp_path)
    here, there = (DiskUploads(store.paths, most=250) for _ in range(2))
    names: list[str] = []

    async def flood() -> None:
        while len(names) < 1000:
            for uploads in (here, there):
                begun = await uploads.begin("local", "team/app", "ann")
                names.append(begun.id)

    with pytest.raises(UpstreamUnavailable, match="give them up"):
        await flood()
    assert 250 <= len(names) <= 350  # the other worker's are counted now and then
    for uploads in (here, there):
        await uploads.begin("local", "team/app", "bob")  # who has none does not suffer from that
    for name in names[100:]:
        async with store.uploads.open(name) as upload:
            await upload.discard()
    await here.begin("local", "team/app", "ann")
    await there.begin("local", "team/app", "ann")


@pytest.mark.parametrize("size", [0, 70, 3_000_001])
async def test_what_came_is_looked_at_before_it_is_anything(tmp_path: Path, size: int) -> None:
    store = OneStore(tmp_path)
    name = await begin(store)

    def refuse(unjudged: Unjudged) -> None:
        raise ValueError(f"{unjudged.size} bytes")

    async with store.uploads.open(name) as upload:
        await upload.receive(GivenBody(DATA[:size]), None)
        seen = await upload.review(lambda unjudged: (unjudged.digest, unjudged.file.read()))
        assert seen == (Digest.of(DATA[:size]), DATA[:size])
        with pytest.raises(ValueError, match=f"{size} bytes"):
            await upload.review(refuse)
        assert await upload.commit(seen[0]) == size
        with pytest.raises(UploadUnknown):
            await upload.review(refuse)
