"""A worker process with a store, driven line by line: the other side is `kit.workers`.

Reads `join NAME`, `open OFFSET`, `leave NAME`, `put FILE`, `stop` from standard input.  Says what happens
on standard output: `ready`, `asked OFFSET`, `head NAME started|joined`, `read NAME OFFSET`,
`end NAME DIGEST`, `broken NAME`, `problem NAME STATUS`, `put DIGEST`, `stuck` (in the middle of a draw).

`named NAME` is `join` by a name that does not tell a digest, which means whatever the file `named` beside the store
says.  Upstream's head has a strong validator, unless it is told to be `weak`.  `judge HOW` says how a file is judged:
`wrong`, `unsure`, `stuck` (says `judging`, and stays there for ever); `recording stuck` says `recording` and stays
where its name is to be recorded.

For uploads: `begin`, answered `begun ID`; `push ID END`, which says `at ID OFFSET` when it has it open, sends on
from there, no further than `open` allows, and says `pushed ID OFFSET`; `draw ID END`, the same by a tap; `commit ID`,
answered `committed ID`; `stick STAGE`: from now on a commit says `stuck` at a stage (sync, place, retire), for ever.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from kit.bodies import DrawnBody, GivenBody
from kit.store import HEAD, Gate, OneStore, ScriptedOrigin, SmallDisk
from mxart.digest import Digest
from mxart.errors import BodyBroken, Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers
from mxart.store import uploads_open
from mxart.store.base import Sink, Unjudged
from mxart.store.files import write_at
from mxart.store.uploads import DiskUploads
from mxart.store.uploads_file import UploadFile


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class TellingOrigin(ScriptedOrigin):
    """Says that it was asked, and waits for `open 0` before it speaks of a head."""

    async def __call__(self, sink: Sink) -> None:
        say("asked", sink.offset)
        assert isinstance(self.gate, Gate)
        await self.gate.wait(-1)
        await super().__call__(sink)


class DrawnOrigin(TellingOrigin):
    """Lets a thread draw from it, 50,000 bytes a write.

    At `stuck_at` it gives a little more, which is not written, and then holds the thread for ever.
    """

    stuck_at = 0
    _at = 0
    _pause = False

    async def __call__(self, sink: Sink) -> None:
        say("asked", sink.offset)
        assert isinstance(self.gate, Gate)
        await self.gate.wait(-1)
        sink.begin(self.announced, self.headers)
        self._at = sink.offset
        while self._at < len(self.data):
            await sink.draw(self)

    def take(self, buffer: memoryview, wait: float) -> int:
        if self._at > self.stuck_at:
            say("stuck")
            threading.Event().wait()
        self._pause = not self._pause
        if not self._pause:  # so that what came is written
            return 0
        end = min(self._at + 50_000, self.stuck_at) if self._at < self.stuck_at else self._at + 7_000
        piece = self.data[self._at : end]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class FileNaming:
    """A name that a file keeps, so that all workers see it; what is judged right is told as `right DIGEST`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stage = self.recording = ""

    def find(self) -> Digest | None:
        return Digest.parse(self.path.read_text()) if self.path.exists() else None

    async def judge(self, unjudged: Unjudged) -> None:
        data = await trio.to_thread.run_sync(unjudged.file.read)
        assert (unjudged.size, unjudged.digest) == (len(data), Digest.of(data))
        match self.stage:
            case "wrong":
                raise UpstreamFailed("this is not what everybody else has")
            case "unsure":
                raise UpstreamUnavailable("nobody can be asked")
            case "stuck":
                say("judging")
                await trio.sleep_forever()
        say("right", unjudged.digest)

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        if self.recording:
            say("recording")
            await trio.sleep_forever()
        await trio.Path(self.path).write_text(str(digest))


class GatedBody(GivenBody):
    """Gives no more than the gate lets through."""

    def __init__(self, data: bytes, gate: Gate, start: int) -> None:
        super().__init__(data, chunk=50_000)
        self.gate = gate
        self.start = start

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await self.gate.wait(self.start + self.taken)
        return await super().receive(max_bytes)


class StuckBody(DrawnBody):
    """Gives the whole of its data to a thread, and then holds it for ever."""

    def take(self, buffer: memoryview, wait: float) -> int:
        count = super().take(buffer, wait)
        if not count:
            say("stuck")
            threading.Event().wait()
        return count


def stick(stage: str) -> None:
    """Whoever comes to this stage of a commit, in this process, stays there."""

    def stay(*_: object) -> None:
        say("stuck")
        threading.Event().wait()

    match stage:
        case "sync":
            UploadFile.sync = stay  # type: ignore[method-assign]
        case "place":
            uploads_open.place = stay
        case "retire":
            DiskUploads._retire = stay  # type: ignore[method-assign]
        case _:
            raise ValueError(stage)


async def serve_upload(store: OneStore, data: bytes, gate: Gate, words: list[str]) -> None:
    try:
        match words:
            case ["begin"]:
                say("begun", (await store.uploads.begin("local", "team/app", "ann")).id)
            case ["push" | "draw" as how, name, end]:
                async with store.uploads.open(name) as upload:
                    at = upload.state.offset
                    say("at", name, at)
                    rest = data[at : int(end)]
                    await upload.receive(GatedBody(rest, gate, at) if how == "push" else StuckBody(rest), None)
                    offset = upload.state.offset
                say("pushed", name, offset)
            case ["commit", name]:
                async with store.uploads.open(name) as upload:
                    await upload.commit(Digest.of(data))
                say("committed", name)
    except Problem as error:
        say("problem", words[1], error.status)


async def main(root: str, data_file: str, disk: int, fails_at: int, stuck_at: int) -> None:
    data = await trio.Path(data_file).read_bytes()
    gate = Gate()
    gate.open_to = -1
    problem = UpstreamFailed("told to fail") if fails_at >= 0 else None
    kind = DrawnOrigin if stuck_at >= 0 else TellingOrigin
    head = Headers([*HEAD, ("etag", f'"{Digest.of(data).hex[:16]}"')])
    failing = fails_at if fails_at > 0 else None
    origin = kind(data, gate=gate, chunk=50_000, headers=head, fails_at=failing, problem=problem)
    naming = FileNaming(Path(root).parent / "named")
    if isinstance(origin, DrawnOrigin):
        origin.stuck_at = stuck_at
    store = OneStore(Path(root), SmallDisk(disk) if disk >= 0 else write_at)
    leaving: dict[str, trio.CancelScope] = {}

    async def reader(name: str, named: bool) -> None:
        try:
            if named:
                joined = await store.transfers.join_named("team\0file", origin, naming)
            else:
                joined = await store.transfers.join(origin.digest, None, origin)
        except Problem as error:
            say("problem", name, error.status)
            return
        say("head", name, "started" if joined.started else "joined")
        digest = Digest.of(b"").hasher()
        offset = 0
        with joined_scope(name), closing(joined.source):
            try:
                while (ready := await joined.source.available(offset)) > offset:
                    digest.update(os.pread(joined.source.fileno(), ready - offset, offset))
                    offset = ready
                    say("read", name, offset)
            except BodyBroken:
                say("broken", name)
            else:
                say("end", name, f"sha256:{digest.hexdigest()}")

    def joined_scope(name: str) -> trio.CancelScope:
        leaving[name] = trio.CancelScope()
        return leaving[name]

    async with trio.open_nursery() as nursery:
        await nursery.start(store.transfers.run)
        say("ready")
        stdin = trio.lowlevel.FdStream(os.dup(0))
        pending = b""
        while True:
            *lines, pending = pending.split(b"\n")
            for line in lines:
                match line.decode().split():
                    case ["join" | "named" as how, name]:
                        nursery.start_soon(reader, name, how == "named")
                    case ["weak"]:
                        origin.headers = HEAD
                    case ["judge", stage]:
                        naming.stage = stage
                    case ["recording", stage]:
                        naming.recording = stage
                    case ["open", offset]:
                        gate.open(int(offset))
                    case ["leave", name]:
                        leaving[name].cancel()
                    case ["put", file]:
                        say("put", await store.blobs.put(await trio.Path(file).read_bytes()))
                    case ["begin" | "push" | "draw" | "commit", *_] as words:
                        nursery.start_soon(serve_upload, store, data, gate, words)
                    case ["stick", stage]:
                        stick(stage)
                    case ["stop"]:
                        await store.transfers.stop(10)
                        nursery.cancel_scope.cancel()
            if (more := await stdin.receive_some()) == b"":
                nursery.cancel_scope.cancel()
                break
            pending += more


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
