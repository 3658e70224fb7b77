"""Artifacts from an upstream that speaks HTTP into a store on disk: what breaks off goes on, what changes does not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec import structs

from kit.modules import Module
from kit.repos import Alone, World
from kit.store import SmallDisk, read_all, running_store, until_broken
from kit.upstream import FakeUpstream, Say, Seen, fake_upstream, html, say
from mxart.body import Source
from mxart.config import Upstreams
from mxart.digest import Digest
from mxart.errors import BodyBroken, Problem, UpstreamFailed
from mxart.message import Trace
from mxart.repos.operations import Artifact
from mxart.repos.proxy import Proxy
from mxart.store.base import Origin
from mxart.store.files import WriteAt, write_at
from mxart.store.transfers import DiskTransfers
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience

BIG = Module("example.com/big", "v1.0.0", extra={"noise.bin": random.Random(1).randbytes(700_000)})
CHANGED = replace(BIG, extra={"noise.bin": random.Random(2).randbytes(700_000)})
PATH = f"/{BIG.base}.zip"
ZIP = Artifact(BIG.path, f"{BIG.base}.zip", "zip")
QUICK = Patience(rounds=3, first_pause=0.001, longest_pause=0.01, total=1.0)


class OnDisk(Proxy):
    """With what its downloads are run by."""

    transfers: DiskTransfers


@asynccontextmanager
async def mirror(
    world: World, root: Path, ups: Sequence[FakeUpstream], write: WriteAt = write_at
) -> AsyncIterator[OnDisk]:
    """A proxy with a store on disk; at the end its downloads finish."""
    remote = Remote("mirror", [up.url for up in ups], Dialer(Upstreams()), patience=QUICK)

    def origin(ask: Ask) -> Origin:
        return Download(remote, ask, patience=QUICK)

    try:
        async with running_store(root, write) as store:
            stock = structs.replace(world.worker(), blobs=store.blobs, transfers=store.transfers)
            proxy = OnDisk("mirror", Alone(), remote, stock, nursery=world.nursery, origin=origin, clock=world.clock)
            proxy.transfers = store.transfers
            yield proxy
    finally:
        await remote.aclose()


async def get(proxy: Proxy) -> Source:
    found = await proxy.file(ZIP, Trace())
    assert not isinstance(found.content, bytes)
    assert found.content is not None
    return found.content


async def read(proxy: Proxy) -> bytes:
    source = await get(proxy)
    try:
        with trio.fail_after(20):
            return await read_all(source)
    finally:
        source.close()


def tag(module: Module) -> dict[str, str]:
    return {"ETag": f'"{Digest.of(module.zip).hex[:8]}"', "Content-Type": "application/zip"}


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def part(module: Module, span: str) -> Say:
    """The rest of a file from the offset asked for."""
    start, size = int(span.removeprefix("bytes=").removesuffix("-")), len(module.zip)
    headers = {**tag(module), "Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return say(module.zip[start:], 206, headers=headers)


async def stop(proxy: OnDisk) -> None:
    """As a server that is stopped at once."""
    await proxy.transfers.stop(0)


async def test_a_zip_is_judged_on_disk_and_kept(world: World, tmp_path: Path) -> None:
    async with fake_upstream() as up:
        up.on(PATH, say(BIG.zip, headers=tag(BIG)))
        async with mirror(world, tmp_path, [up]) as proxy:
            assert await read(proxy) == BIG.zip
        assert world.catalog.files["mirror", ZIP.path].digest == Digest.of(BIG.zip)
        async with mirror(world, tmp_path, [up]) as proxy:
            assert await read(proxy) == BIG.zip
        assert up.count() == 1


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_body_that_breaks_off_goes_on_where_upstream_vouches_for_the_file(
    world: World, tmp_path: Path, ranges: bool
) -> None:
    async with fake_upstream() as up:
        up.on(PATH, *[say(BIG.zip, headers=tag(BIG), close_after=at, ranges=ranges) for at in (300_000, 500_000, None)])
        async with mirror(world, tmp_path, [up]) as proxy:
            assert await read(proxy) == BIG.zip
        assert [seen.headers.get("if-range") for seen in up.requests[1:]] == [tag(BIG)["ETag"]] * (up.count() - 1)
        assert up.count() > 1


@pytest.mark.parametrize("ranges", [True, False])
async def test_readers_are_cut_where_the_file_changes_in_the_middle_and_the_next_get_the_new_one(
    world: World, tmp_path: Path, ranges: bool
) -> None:
    async with fake_upstream() as up:
        up.on(
            PATH,
            say(BIG.zip, headers=tag(BIG), close_after=300_000),
            say(CHANGED.zip, headers=tag(CHANGED), ranges=ranges),
        )
        async with mirror(world, tmp_path, [up]) as proxy:
            source = await get(proxy)
            with trio.fail_after(20):
                assert await until_broken(source) <= 300_000
            source.close()
            while True:  # the writer may not have let go yet
                try:
                    assert await read(proxy) == CHANGED.zip
                    break
                except (BodyBroken, Problem):
                    await trio.testing.wait_all_tasks_blocked()
        assert world.catalog.files["mirror", ZIP.path].digest == Digest.of(CHANGED.zip)


async def test_readers_are_cut_where_nobody_vouches_that_it_is_the_same_file(world: World, tmp_path: Path) -> None:
    async with fake_upstream() as up:
        up.on(PATH, say(BIG.zip, close_after=300_000), say(BIG.zip))
        async with mirror(world, tmp_path, [up]) as proxy:
            source = await get(proxy)
            with trio.fail_after(20):
                assert await until_broken(source) <= 300_000
            source.close()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("now", [BIG, CHANGED, replace(BIG, extra={"noise.bin": b""})])
async def test_what_a_stopped_process_has_left_is_gone_on_with_or_begun_again(
    world: World, tmp_path: Path, now: Module, ranges: bool
) -> None:
    async with fake_upstream() as up:
        up.on(PATH, say(BIG.zip, headers=tag(BIG), stall_after=400_000))
        async with mirror(world, tmp_path, [up]) as proxy:
            source = await get(proxy)
            assert (await read_all(source, end=300_000))[:300_000] == BIG.zip[:300_000]
            source.close()
            await stop(proxy)  # its upstream would never go on
        up.on(PATH, say(now.zip, headers=tag(now), ranges=ranges))
        async with mirror(world, tmp_path, [up]) as proxy:
            assert await read(proxy) == now.zip
        assert world.catalog.files["mirror", ZIP.path].digest == Digest.of(now.zip)


@pytest.mark.parametrize("longer", [0, 1000])
async def test_an_upstream_that_sends_a_part_of_another_file_is_asked_for_all_of_it(
    world: World, tmp_path: Path, longer: int
) -> None:
    """Some servers look at Range, and not at If-Range."""
    now = replace(CHANGED, extra={"noise.bin": random.Random(2).randbytes(700_000 + longer)})

    def careless(seen: Seen) -> Say:
        return say(now.zip, headers=tag(now)) if "range" not in seen.headers else part(now, seen.headers["range"])

    async with fake_upstream() as up:
        up.on(PATH, say(BIG.zip, headers=tag(BIG), stall_after=400_000))
        async with mirror(world, tmp_path, [up]) as proxy:
            source = await get(proxy)
            await read_all(source, end=300_000)
            source.close()
            await stop(proxy)
        up.on(PATH, careless)
        async with mirror(world, tmp_path, [up]) as proxy:
            assert await read(proxy) == now.zip
        assert ["range" in seen.headers for seen in up.requests[:3]] == [False, True, False]
        assert up.count() <= 4


@pytest.mark.parametrize("room", [0, 100_000, 600_000])
async def test_on_a_full_disk_a_zip_is_judged_where_its_bytes_are(world: World, tmp_path: Path, room: int) -> None:
    async with fake_upstream() as up:
        up.on(PATH, say(BIG.zip, headers=tag(BIG)))
        async with mirror(world, tmp_path, [up], SmallDisk(room)) as proxy:
            assert await read(proxy) == BIG.zip
        assert not world.catalog.files
        torn = bytearray(BIG.zip)
        torn[500_000] ^= 1
        up.on(PATH, say(bytes(torn), headers=tag(BIG)))
        async with mirror(world, tmp_path, [up], SmallDisk(room)) as proxy:
            with pytest.raises(BodyBroken):
                await read(proxy)


async def test_a_login_page_is_no_zip(world: World, tmp_path: Path) -> None:
    async with fake_upstream() as up:
        up.on(PATH, html())
        async with mirror(world, tmp_path, [up]) as proxy:
            with pytest.raises(UpstreamFailed):
                await read(proxy)
