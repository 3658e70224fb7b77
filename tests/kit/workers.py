"""Worker processes that share a store, driven by a test (see `kit.store_worker`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

_SCRIPT = Path(__file__).with_name("store_worker.py")


class Worker:
    """One process. What it says is kept until somebody expects it."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""
        self.said: list[str] = []

    async def tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all((" ".join(map(str, words)) + "\n").encode())

    async def next(self) -> str:
        """The next line; "" when it has ended."""
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            more = await self._process.stdout.receive_some()
            if not more:
                return ""
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        self.said.append(line.decode())
        return line.decode()

    async def expect(self, start: str) -> str:
        """The rest of the next line that begins so; others are passed over."""
        with trio.fail_after(20):
            while line := await self.next():
                if line.startswith(start):
                    return line[len(start) :].strip()
        raise AssertionError(f"{start!r} was never said, but {self.said}")

    async def read_to(self, name: str, offset: int) -> None:
        """Until its reader has come so far."""
        while int(await self.expect(f"read {name}")) < offset:
            pass

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Let it finish what it does."""
        await self.tell("stop")
        with trio.fail_after(20):
            assert await self._process.wait() == 0


@asynccontextmanager
async def worker(
    root: Path, data: Path, *, disk: int = -1, fails_at: int = -1, stuck_at: int = -1
) -> AsyncIterator[Worker]:
    """A worker whose origins deliver what is in a file; its disk takes `disk` bytes; origins fail at `fails_at`.

    With `stuck_at` they are drawn from by a thread, which stops there in the middle of a draw.
    """
    numbers = [str(number) for number in (disk, fails_at, stuck_at)]
    command = [sys.executable, "-W", "error", str(_SCRIPT), str(root), str(data), *numbers]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    one = Worker(process)
    try:
        await one.expect("ready")
        yield one
    finally:
        with trio.CancelScope(shield=True):
            await one.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
