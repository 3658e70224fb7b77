"""Whatever the chunks, the ranges and the moments: a reader gets the right bytes, or it is told that it will not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.descriptors import open_files
from kit.store import HEAD, SmallDisk, running_store, some_bytes
from mxart.digest import Digest
from mxart.errors import BodyBroken, UpstreamFailed
from mxart.store.base import Sink
from mxart.store.files import write_at
from mxart.store.growing import TAIL, GrowingFile

sizes = st.integers(0, 3 * TAIL)


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(sizes, max_size=6),
    ranges=st.lists(st.tuples(sizes, sizes, st.integers(1, 40_000)), min_size=1, max_size=4),
    known=st.booleans(),
    fails=st.sampled_from(["no", "no", "digest", "cut"]),
    disk=st.none() | st.integers(0, 40_000),
)
def test_any_interleaving_of_chunks_and_ranges(
    chunks: list[int], ranges: list[tuple[int, int, int]], known: bool, fails: str, disk: int | None
) -> None:
    data = some_bytes(sum(chunks))
    digest = Digest.of(b"other") if fails == "digest" else Digest.of(data)

    async def origin(sink: Sink) -> None:
        sink.begin(len(data) if known else None, HEAD)
        offset = sink.offset
        for size in chunks:
            await sink.write(data[offset : offset + size])
            offset += size
            await trio.lowlevel.checkpoint()
        if fails == "cut":
            raise UpstreamFailed("cut")

    async def reader(store_join: object, start: int, length: int, step: int) -> None:
        assert callable(store_join)
        try:
            source = (await store_join(digest, None, origin)).source
        except UpstreamFailed:
            assert fails != "no"
            return
        try:
            offset = start
            while offset < start + length:
                ready = await source.available(offset)
                assert ready == source.ready(offset) or ready == offset
                if ready == offset:
                    assert fails == "no"
                    assert offset >= len(data)
                    break
                end = min(ready, offset + step, start + length)
                assert os.pread(source.fileno(), end - offset, offset) == data[offset:end]
                offset = end
                assert fails == "no" or offset < len(data)
            assert fails != "no" or offset >= min(start + length, len(data))
        except BodyBroken:
            assert fails != "no"
        finally:
            source.close()

    async def main(root: Path) -> None:
        write = write_at if disk is None else SmallDisk(disk)
        async with running_store(root, write) as store, trio.open_nursery() as nursery:
            for start, length, step in ranges:
                nursery.start_soon(reader, store.transfers.join, start, length, step)
        if fails != "no":
            assert not store.blobs.has(digest)
        elif disk is None:
            assert await store.blobs.read(digest, len(data)) == data

    with tempfile.TemporaryDirectory() as root:
        trio.run(main, Path(root))


async def test_many_readers_of_one_file_cost_next_to_nothing(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    file = GrowingFile(fd)
    before = open_files()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        source = file.open()
        await source.available(0)
        woken += 1
        source.close()

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert open_files() == before
        file.announce(1_000_000)
        os.pwrite(fd, b"x", 0)
        file.advance(1)
    assert woken == 500
    file.let_go()
