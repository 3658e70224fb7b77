"""Stores in a temporary directory, and origins that do what a test tells them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import trio

from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import BodyBroken, Problem
from mxart.message import Headers
from mxart.store.base import Sink, Unjudged
from mxart.store.blobs import DiskBlobs
from mxart.store.files import WriteAt, write_at
from mxart.store.paths import StorePaths
from mxart.store.transfers import DiskTransfers
from mxart.store.uploads import DiskUploads

HEAD = Headers([("content-type", "application/octet-stream")])


def some_bytes(length: int, seed: int = 1) -> bytes:
    """Bytes that look like nothing, the same for the same seed."""
    return Random(seed).randbytes(length)


def file_bytes(path: str) -> bytes:
    """What is on disk, behind the store's back."""
    return Path(path).read_bytes()


def change_file(path: str, data: bytes, offset: int = 0, *, whole: bool = False) -> None:
    """Write over what is on disk, behind the store's back; `whole`: that is all there is then."""
    with Path(path).open("wb" if whole else "r+b") as file:
        file.seek(offset)
        file.write(data)


class OneStore:
    """A store on disk with its blobs and transfers, as one worker has it."""

    def __init__(self, root: Path, write: WriteAt = write_at) -> None:
        self.paths = StorePaths(root)
        self.paths.create()
        self.blobs = DiskBlobs(self.paths)
        self.transfers = DiskTransfers(self.paths, self.blobs, write)
        self.uploads = DiskUploads(self.paths, write)

    def partials(self) -> list[str]:
        """The names of what is in the folder of growing files."""
        return sorted(os.listdir(self.paths.partials))


@asynccontextmanager
async def running_store(root: Path, write: WriteAt = write_at) -> AsyncIterator[OneStore]:
    """A worker's store, its downloads running; at the end they may finish for 5 s."""
    store = OneStore(root, write)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.transfers.run)
        try:
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store.transfers.stop(5)


class ScriptedOrigin:
    """Delivers the bytes that it was given from the offset asked for, and counts how often it was asked.

    `gate`, where given, is awaited before each chunk and told the offset of it; `fails_at` makes it raise
    `problem` there; `announced` is the length it speaks of (-1: the true one).
    """

    def __init__(
        self,
        data: bytes,
        *,
        chunk: int = 65536,
        announced: int | None = -1,
        headers: Headers = HEAD,
        gate: Callable[[int], object] | None = None,
        fails_at: int | None = None,
        problem: Problem | None = None,
    ) -> None:
        self.data = data
        self.chunk = chunk
        self.announced = len(data) if announced == -1 else announced
        self.headers = headers
        self.gate = gate
        self.fails_at = fails_at
        self.problem = problem
        self.asked: list[int] = []  # the offset of each call
        self.heads: list[Headers | None] = []

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)

    async def __call__(self, sink: Sink) -> None:
        self.asked.append(sink.offset)
        self.heads.append(sink.headers)
        if self.problem is not None and self.fails_at is None:
            raise self.problem
        sink.begin(self.announced, self.headers)
        offset = sink.offset
        while offset < len(self.data):
            await trio.lowlevel.checkpoint()
            if isinstance(self.gate, Gate):
                await self.gate.wait(offset)
            end = min(offset + self.chunk, len(self.data))
            if self.fails_at is not None and offset < self.fails_at:
                end = min(end, self.fails_at)
            await sink.write(self.data[offset:end])
            offset = end
            if self.problem is not None and self.fails_at == offset:
                raise self.problem


class ScriptedNaming:
    """A name whose blob is `kept`, once it has one; judges what is `right` to be so, and remembers what it was shown.

    `problem` is what the judge raises of anything else, and of all if nothing is right; `gate` is awaited before.
    """

    def __init__(self, right: bytes | None = None, problem: Problem | None = None) -> None:
        self.right = right
        self.problem = problem
        self.gate: trio.Event | None = None
        self.shown: list[bytes] = []
        self.heads: list[Headers] = []
        self.kept: Digest | None = None
        self.unkept: Problem | None = None  # what stands in the way of keeping it

    def find(self) -> Digest | None:
        return self.kept

    async def judge(self, unjudged: Unjudged) -> None:
        data = await trio.to_thread.run_sync(unjudged.file.read)
        assert (unjudged.size, unjudged.digest) == (len(data), Digest.of(data))
        self.shown.append(data)
        self.heads.append(unjudged.headers)
        if self.gate is not None:
            await self.gate.wait()
        if data != self.right and self.problem is not None:
            raise self.problem

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        await trio.lowlevel.checkpoint()
        if self.unkept is not None:
            raise self.unkept
        self.kept = digest


class Gate:
    """Lets an origin on, up to an offset that the test moves."""

    def __init__(self) -> None:
        self.open_to = 0
        self._changed = trio.Event()

    def __call__(self, offset: int) -> None: ...

    def open(self, offset: int) -> None:
        """The origin may deliver the chunks that begin before this offset."""
        self.open_to = offset
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self, offset: int) -> None:
        while offset >= self.open_to:
            await self._changed.wait()


async def read_all(source: Source, offset: int = 0, end: int | None = None, step: int = 1 << 20) -> bytes:
    """Read a source the way a sender does. Raises what it raises."""
    parts = []
    while end is None or offset < end:
        ready = await source.available(offset)
        if ready == offset:
            break
        while offset < ready and (end is None or offset < end):
            piece = os.pread(source.fileno(), min(step, ready - offset), offset)
            assert piece
            parts.append(piece)
            offset += len(piece)
        await trio.lowlevel.checkpoint()
    return b"".join(parts)


async def until_broken(source: Source) -> int:
    """How far a source lets its reader before it breaks, as it has to."""
    offset = 0
    try:
        while True:
            ready = await source.available(offset)
            assert ready > offset, "the source said that it is complete"
            offset = ready
    except BodyBroken:
        return offset


@contextmanager
def small_file_system(path: Path, size: str) -> Iterator[Path]:
    """A file system of this size at a folder of that name; skips the test where mounting is not allowed."""
    import pytest  # not at the top: worker processes use this module too, and shall start quickly

    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


class SmallDisk:
    """A `WriteAt` that has room for so many bytes in all, and then says what a full disk says."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, fd: int, chunks: Sequence[bytes], offset: int) -> tuple[int, OSError | None]:
        data = b"".join(chunks)
        fits = data[: self.room]
        self.room -= len(fits)
        done, error = write_at(fd, (fits,), offset)
        if error is None and done < len(data):
            error = OSError(28, os.strerror(28))
        return done, error
