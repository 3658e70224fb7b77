from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.wire import PEER, FakeSource
from mxart.body import Body, Span
from mxart.errors import BodyBroken
from mxart.message import Peer
from mxart.proto.transmit import Progress, transmit


class Recorder:
    """A transport that keeps what it was given, call by call."""

    protocol = ""

    def __init__(self) -> None:
        self.peer: Peer = PEER
        self.calls: list[bytes] = []
        self.files = 0
        self.aborted = False
        self.moved = trio.Event()

    async def receive_some(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        raise AssertionError("nobody receives here")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._got(bytes(data))

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        await trio.lowlevel.checkpoint()
        data = os.pread(fd, count, offset)
        assert len(data) == count, "only what is there is asked for"
        self.files += 1
        self._got(data)

    def _got(self, data: bytes) -> None:
        self.calls.append(data)
        self.moved.set()
        self.moved = trio.Event()

    async def aclose(self) -> None:
        raise AssertionError("nobody closes here")

    def abort(self) -> None:
        self.aborted = True


async def test_head_and_small_segments_go_in_one_send(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"0123456789")
    source = FakeSource(tmp_path / "small", 10)
    wire, progress = Recorder(), Progress()
    await transmit(wire, Body([b"<", Span(source, 2, 5), b">"]), head=b"HEAD\r\n\r\n", progress=progress)
    assert wire.calls == [b"HEAD\r\n\r\n<23456>"]
    assert progress.body_bytes == 7
    assert progress.first_byte is not None
    source.close()


async def test_large_segments_are_not_copied_together() -> None:
    wire = Recorder()
    large = bytes(200_000)
    await transmit(wire, Body([large, b"", b"x"]), head=b"HEAD")
    assert wire.calls == [b"HEAD", large, b"x"]


async def test_a_file_goes_as_a_file(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "large").write_bytes(data)
    source = FakeSource(tmp_path / "large", len(data))
    wire, progress = Recorder(), Progress()
    await transmit(wire, Body([Span(source, 100, 2_500_000)]), head=b"HEAD", progress=progress)
    assert wire.calls[0] == b"HEAD"
    assert b"".join(wire.calls[1:]) == data[100:2_500_100]
    assert wire.files == 3
    assert progress.body_bytes == 2_500_000
    source.close()


async def test_the_head_does_not_wait_for_a_file_that_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "growing").write_bytes(b"")
    source = FakeSource(tmp_path / "growing", 6)
    wire = Recorder()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await transmit(wire, Body([b"-", Span(source, 0, 6)]), head=b"HEAD")

        nursery.start_soon(send)
        await source.waiting.wait()
        assert wire.calls == [b"HEAD-"]
        source.grow(b"abc")
        await wire.moved.wait()
        assert wire.calls[1:] == [b"abc"]
        source.grow(b"def")
    assert wire.calls[1:] == [b"abc", b"def"]
    source.close()


async def test_a_file_may_move_while_it_is_followed(tmp_path: Path) -> None:
    (tmp_path / "partial").write_bytes(b"a" * 50_000)
    source = FakeSource(tmp_path / "partial", 100_000)
    wire = Recorder()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await transmit(wire, Body([Span(source, 0, 100_000)]))

        nursery.start_soon(send)
        await source.waiting.wait()
        (tmp_path / "complete").write_bytes(b"a" * 50_000 + b"b" * 50_000)
        old, source.fd = source.fd, os.open(tmp_path / "complete", os.O_RDONLY)
        os.close(old)
        source.grow(b"b" * 50_000)
    assert b"".join(wire.calls) == b"a" * 50_000 + b"b" * 50_000
    source.close()


async def test_what_was_promised_and_is_not_there_aborts(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    for size in (10, 100_000):
        source = FakeSource(tmp_path / "short", size)
        source.finish()
        wire = Recorder()
        with pytest.raises(BodyBroken, match="too early"):
            await transmit(wire, Body([Span(source, 0, size), b"never sent"]), head=b"HEAD")
        assert wire.aborted
        assert b"".join(wire.calls) == b"HEADabc"
        source.close()


async def test_a_source_that_lies_about_what_is_ready_aborts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    source = FakeSource(tmp_path / "file", 10)
    (tmp_path / "file").write_bytes(b"a")
    wire = Recorder()
    with pytest.raises(BodyBroken):
        await transmit(wire, Body([Span(source, 0, 3)]), head=b"HEAD")
    assert wire.aborted
    assert wire.calls == []
    source.close()


async def test_a_broken_download_aborts_and_never_ends_the_chunks(tmp_path: Path) -> None:
    (tmp_path / "growing").write_bytes(b"abc")
    source = FakeSource(tmp_path / "growing")
    wire = Recorder()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(BodyBroken, match="wrong digest"):
                await transmit(wire, Body([Span(source, 0, None)]), head=b"HEAD", chunked=True)

        nursery.start_soon(send)
        await source.waiting.wait()
        source.fail(BodyBroken("wrong digest"))
    assert wire.aborted
    assert b"".join(wire.calls) == b"HEAD3\r\nabc\r\n"
    source.close()


def dechunked(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        body, data, end = body + data[:count], data[count + 2 :], data[count : count + 2]
        assert end == b"\r\n"
        if count == 0:
            assert data == b""
            return body


piece = st.one_of(st.binary(max_size=50), st.integers(0, 40_000))


@settings(max_examples=40, deadline=None)
@given(st.lists(piece, max_size=6), st.lists(st.integers(1, 30_000), max_size=6), st.booleans())
def test_any_body_arrives_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes | int], steps: list[int], chunked: bool
) -> None:
    path = tmp_path_factory.mktemp("transmit") / "file"
    content = bytes(range(256)) * 200
    path.write_bytes(content[:100])

    async def run() -> None:
        source = FakeSource(path)
        wire, progress = Recorder(), Progress()
        segments = [part if isinstance(part, bytes) else Span(source, part, 1000) for part in pieces]
        segments.append(Span(source, 40_000, None))
        expected = b"".join(part if isinstance(part, bytes) else content[part : part + 1000] for part in pieces)
        expected += content[40_000:]

        async def grow() -> None:
            there = 100
            for step in [*steps, len(content)]:
                more = content[there : there + step]
                await trio.lowlevel.checkpoint()
                if more:
                    source.grow(more)
                there += len(more)
            source.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grow)
            await transmit(wire, Body(segments), chunked=chunked, progress=progress)
        sent = b"".join(wire.calls)
        assert (dechunked(sent) if chunked else sent) == expected
        assert progress.body_bytes == len(expected)
        assert not wire.aborted
        source.close()

    trio.run(run)
