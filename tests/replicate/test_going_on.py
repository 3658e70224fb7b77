"""What is left of a run for the next one, and what it says while it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kit.registry import Image, image
from kit.replicating import CHUNK, NOISE, arrived, copy, files, offer
from kit.target import FakeTarget, fake_target
from kit.upstream import FakeUpstream, fake_upstream, say
from mxart.errors import MxartError
from mxart.replicate.memo import Memo


@pytest.fixture(scope="module")
def app() -> Image:
    """An image with one layer of 3 MiB, which is sent in chunks, and a config, which is not."""
    return image(NOISE)


@pytest.fixture
async def source() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as up:
        yield up


@pytest.fixture
async def target() -> AsyncIterator[FakeTarget]:
    async with fake_target() as fake:
        yield fake


async def test_cancelled_in_the_middle_nothing_is_open_and_the_next_run_goes_on(
    source: FakeUpstream, target: FakeTarget, app: Image, tmp_path: Path
) -> None:
    offer(source, app)
    layer = app.layers[0]
    source.on(f"/v2/app/blobs/{layer.digest}", say(layer.data[:1500000], length=len(layer.data), stall_after=1500000))

    async def run() -> None:
        await copy(source, target, tmp_path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await target.until(lambda: target.received >= CHUNK and bool(target.blobs))
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await target.until(lambda: target.open_connections == 0)
        await source.until(lambda: source.open_connections == 0)
    assert target.manifests == {}
    assert len(files(tmp_path)) == 1
    assert files(tmp_path)[0].stat().st_mode & 0o777 == 0o600
    offer(source, app)
    before = target.received
    outcome = await copy(source, target, tmp_path)
    assert arrived(target, app)
    assert outcome.bytes_resumed >= CHUNK
    assert target.received - before == len(layer.data) - outcome.bytes_resumed
    assert files(tmp_path) == []


async def test_two_at_once_do_not_share_an_upload(
    source: FakeUpstream, target: FakeTarget, app: Image, tmp_path: Path
) -> None:
    offer(source, app)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(copy, source, target, tmp_path)
    assert arrived(target, app)
    assert files(tmp_path) == []


async def test_what_is_remembered_and_worth_nothing_is_no_hindrance(
    source: FakeUpstream, target: FakeTarget, app: Image, tmp_path: Path
) -> None:
    offer(source, app)
    memo = Memo(tmp_path)
    for location, data in (("", b"no json"), (f"{target.url}/v2/team/app/blobs/uploads/77", b"")):
        with memo.hold("target/team/app", app.layers[0].digest) as kept:
            kept.keep(location or "x")
        if data:
            files(tmp_path)[0].write_bytes(data)
        await copy(source, target, tmp_path)
        assert arrived(target, app)
        target.blobs.clear()
        target.manifests.clear()


async def test_progress_ends_where_it_should_and_never_beyond(
    source: FakeUpstream, target: FakeTarget, app: Image
) -> None:
    offer(source, app)
    target.cuts = [300_000]
    said: list[tuple[int, int | None]] = []
    await copy(source, target, progress=lambda done, total, what: said.append((done, total)))
    assert said[-1][0] == said[-1][1] == sum(len(blob.data) for blob in (*app.blobs, app.manifest))
    assert all(total is None or 0 <= done <= total for done, total in said)


async def test_a_folder_that_cannot_be_written_is_told_before_anything_is_sent(
    source: FakeUpstream, target: FakeTarget, app: Image, tmp_path: Path
) -> None:
    offer(source, app)
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(MxartError, match="replications remember there"):
        await copy(source, target, file / "state")
    assert target.asked("POST") == []
