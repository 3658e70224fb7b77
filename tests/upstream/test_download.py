"""A large file comes whole, whatever its upstream does in the middle."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio

from kit.upstream import FakeUpstream, fake_upstream, html, redirect, say
from mxart.config import Upstreams
from mxart.errors import NotFound, StorageFull, UpstreamFailed, UpstreamTimeout
from mxart.message import Headers, Tap
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience, Timeouts

BLOB = random.Random(7).randbytes(1_000_000)
QUICK = Patience(rounds=3, first_pause=0.001, longest_pause=0.01, total=1.0)
ASK = Ask("GET", "blob")


class ListSink:
    """Keeps everything in memory; refuses what the store's sink refuses."""

    def __init__(self, before: bytes = b"", headers: Headers | None = None) -> None:
        self.data = bytearray(before)
        self.headers = headers
        self.total: int | None = None
        self.begun: list[int | None] = []
        self.full_at: int | None = None
        self.drawn = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    def begin(self, total: int | None, headers: Headers) -> None:
        if self.begun and total is not None and self.total not in (None, total):
            raise UpstreamFailed("another length than before")
        self.begun.append(total)
        self.total = total
        self.headers = self.headers or headers

    async def write(self, chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.data += chunk
        if self.total is not None and len(self.data) > self.total:
            raise UpstreamFailed("more than was said")
        if self.full_at is not None and len(self.data) > self.full_at:
            raise StorageFull("the disk is full")

    async def draw(self, tap: Tap) -> None:
        buffer = memoryview(bytearray(50_000))
        while count := await trio.to_thread.run_sync(tap.take, buffer, 0.001):
            self.drawn += count
            await self.write(bytes(buffer[:count]))


async def download(ups: Sequence[FakeUpstream], sink: ListSink, **timeouts: float) -> None:
    limits = Timeouts(**timeouts) if timeouts else Timeouts()
    remote = Remote("hub", [up.url for up in ups], Dialer(Upstreams()), timeouts=limits, patience=QUICK)
    try:
        with trio.fail_after(20):
            await Download(remote, ASK, patience=QUICK)(sink)
    finally:
        await remote.aclose()


async def test_a_whole_file_in_one_go() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, headers={"Content-Type": "a/b"}))
        sink = ListSink()
        await download([up], sink)
        assert (bytes(sink.data), sink.begun) == (BLOB, [len(BLOB)])
        assert sink.headers is not None
        assert sink.headers.get("content-type") == "a/b"
        assert up.count() == 1


@pytest.mark.parametrize("broken", ["reset_after", "close_after"])
async def test_a_broken_body_is_taken_up_by_range_through_a_fresh_redirect(broken: str) -> None:
    async with fake_upstream() as up:
        up.on("/blob", redirect("/cdn?sig=1"), redirect("/cdn?sig=2"), redirect("/cdn?sig=3"))
        up.on(
            "/cdn",
            say(BLOB, headers={"ETag": '"e"'}, **{broken: 300_000}),
            say(BLOB, headers={"ETag": '"e"'}, **{broken: 100_000}),
            say(BLOB, headers={"ETag": '"e"'}),
        )
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB
        cdn = [seen for seen in up.requests if seen.path == "/cdn"]
        assert [dict(seen.query)["sig"] for seen in cdn] == ["1", "2", "3"]
        assert "range" not in cdn[0].headers
        if broken == "close_after":  # a reset may take bytes with it that were sent already
            assert [seen.headers["range"] for seen in cdn[1:]] == ["bytes=300000-", "bytes=400000-"]
        assert cdn[1].headers["if-range"] == '"e"'
        assert sink.begun == [len(BLOB)] * 3


async def test_a_stalled_body_is_taken_up_from_the_other_mirror() -> None:
    async with fake_upstream() as one, fake_upstream() as two:
        one.on("/blob", say(BLOB, stall_after=5000))
        two.on("/blob", say(BLOB))
        sink = ListSink()
        await download([one, two], sink, idle=0.25)
        assert bytes(sink.data) == BLOB
        assert (one.count(), two.count()) == (1, 1)


async def test_a_server_without_range_sends_all_again_and_what_is_there_is_skipped() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=400_000), say(BLOB, ranges=False, step=777))
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB


async def test_another_etag_makes_if_range_fetch_all_of_it() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, headers={"ETag": '"1"'}, close_after=10), say(BLOB, headers={"ETag": '"2"'}))
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB


@pytest.mark.parametrize(
    "content_range", ["bytes 0-999999/1000000", "bytes 10-5/1000000", "items 10-20/30", "", "bytes 10-1000000/1000000"]
)
async def test_a_lying_content_range_is_not_believed_and_the_file_fetched_without(content_range: str) -> None:
    async with fake_upstream() as up:
        lie = say(b"x" * 100, 206, headers={"Content-Range": content_range} if content_range else {})
        up.on("/blob", say(BLOB, close_after=10), lie, say(BLOB))
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB
        assert "range" not in up.requests[2].headers


async def test_a_206_that_holds_less_than_asked_is_followed_by_another() -> None:
    async with fake_upstream() as up:
        part = say(BLOB[10:20], 206, headers={"Content-Range": f"bytes 10-19/{len(BLOB)}"})
        up.on("/blob", say(BLOB, close_after=10), part, say(BLOB))
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB
        assert up.requests[2].headers["range"] == "bytes=20-"


async def test_a_file_that_changed_its_length_is_asked_for_as_a_whole_for_the_sink_to_refuse() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=10), say(BLOB[:-1]))
        with pytest.raises(UpstreamFailed, match="another length than before"):
            await download([up], ListSink())
        assert ["range" in seen.headers for seen in up.requests] == [False, True, False]


async def test_a_partial_file_of_an_earlier_process_is_completed() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, headers={"ETag": '"e"'}))
        sink = ListSink(BLOB[:1234], Headers([("etag", '"e"'), ("content-length", str(len(BLOB)))]))
        await download([up], sink)
        assert bytes(sink.data) == BLOB
        assert (up.requests[0].headers["range"], up.requests[0].headers["if-range"]) == ("bytes=1234-", '"e"')


async def test_a_partial_file_that_is_complete_asks_nobody() -> None:
    async with fake_upstream() as up:
        sink = ListSink(BLOB, Headers([("content-length", str(len(BLOB)))]))
        await download([up], sink)
        assert (sink.begun, up.count()) == ([len(BLOB)], 0)


async def test_a_partial_file_longer_than_what_is_there_now_is_the_stores_to_judge() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB))
        sink = ListSink(BLOB + b"more")
        with pytest.raises(UpstreamFailed):
            await download([up], sink)
        assert up.count() <= 6


async def test_a_chunked_body_that_breaks_off_is_taken_up() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, chunked=True, close_after=500_000), say(BLOB, chunked=True))
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) == BLOB


async def test_it_gives_up_when_nothing_comes_any_more() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=5000), say(BLOB, close_after=0))
        sink = ListSink()
        with pytest.raises(UpstreamFailed, match="before the body's end"):
            await download([up], sink)
        assert bytes(sink.data) == BLOB[:5000]
        assert up.count() == 1 + QUICK.rounds


async def test_a_stall_without_end_is_a_timeout() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, stall_after=5), say(BLOB, stall_after=0))
        with pytest.raises(UpstreamTimeout, match="stalled"):
            await download([up], ListSink(), idle=0.1)


async def test_an_upstream_that_breaks_off_all_the_time_but_moves_is_used_to_the_end() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=50_000))
        sink = ListSink()
        await download([up], sink)
        assert (bytes(sink.data), up.count()) == (BLOB, 20)


async def test_a_file_that_vanished_in_the_middle_is_not_found() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, close_after=5), say(b"", 404))
        with pytest.raises(NotFound):
            await download([up], ListSink())


async def test_trouble_before_the_first_head_is_told_at_once() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(b"", 500))
        with pytest.raises(UpstreamFailed, match="500"):
            await download([up], ListSink())
        assert up.count() == 1


async def test_a_full_disk_is_not_the_upstreams_fault() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB))
        sink = ListSink()
        sink.full_at = 100_000
        with pytest.raises(StorageFull):
            await download([up], sink)
        assert up.count() == 1


async def test_an_html_page_with_200_is_delivered_for_the_digest_to_refuse() -> None:
    async with fake_upstream() as up:
        up.on("/blob", html())
        sink = ListSink()
        await download([up], sink)
        assert bytes(sink.data) != BLOB


async def test_a_slow_body_that_moves_takes_as_long_as_it_takes() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, step=100_000, gap=0.05))
        sink = ListSink()
        await download([up], sink, idle=0.4, first_byte=0.4)  # less than the whole takes
        assert (bytes(sink.data), up.count()) == (BLOB, 1)
