"""Sources of bodies, by hand: complete, growing, broken."""

from __future__ import annotations

import os
import tempfile

import trio

from mxart.errors import BodyBroken


class FileSource:
    """A temporary file that grows when told to; `total` is what it says it will come to."""

    def __init__(self, data: bytes = b"", *, total: int | None = None, complete: bool = True) -> None:
        handle, name = tempfile.mkstemp()
        os.unlink(name)
        self._fd = handle
        self._size = 0
        self._complete = False
        self._broken = False
        self._changed = trio.Event()
        self.waits = 0
        self.closed = False
        self._total = total
        self.grow(data)
        if complete:
            self.finish()

    def fileno(self) -> int:
        assert not self.closed, "used after it was closed"
        return self._fd

    @property
    def total(self) -> int | None:
        return self._size if self._complete and self._total is None else self._total

    def ready(self, offset: int) -> int:
        if self._broken:
            raise BodyBroken("upstream broke off")
        return max(offset, self._size)

    async def available(self, offset: int) -> int:
        self.waits += 1
        while True:
            ready = self.ready(offset)
            if ready > offset or self._complete:
                return ready
            await self._changed.wait()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._fd)

    def grow(self, data: bytes) -> None:
        os.pwrite(self._fd, data, self._size)
        self._size += len(data)
        self._notify()

    def finish(self) -> None:
        self._complete = True
        self._notify()

    def break_off(self) -> None:
        self._broken = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
