"""One download, as one process takes part in it: what `writing`, `following` and `transfers` share."""

from __future__ import annotations

import copy

import trio

from mxart.digest import Digest
from mxart.errors import Problem, UpstreamFailed
from mxart.message import Headers
from mxart.store.base import Joined, Origin
from mxart.store.growing import GrowingFile, GrowingSource
from mxart.store.notes import Notes
from mxart.store.promises import Promise


class Download:
    """A growing file, the head that it came with, and how it went.

    `size` is what the caller who began it knows of the length; `origin` is that caller's too, and so is the promise.
    `digest` is None until it is known.
    """

    __slots__ = ("_head", "_known", "digest", "file", "notes", "origin", "problem", "promise", "size")

    def __init__(self, promise: Promise, size: int | None, origin: Origin, *, file: GrowingFile, notes: Notes) -> None:
        self.promise = promise
        self.digest: Digest | None = None
        self.size = size
        self.origin = origin
        self.file = file
        self.notes = notes
        self.problem: Problem | None = None
        self._head: Headers | None = None
        self._known = trio.Event()

    @property
    def begun(self) -> bool:
        """Whether the head is known here, so that readers may have been let in."""
        return self._head is not None

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return self.promise.label

    @property
    def told(self) -> bool:
        """Whether somebody here has been told something of it, which must then hold to the end."""
        return self.file.shown if self.promise.named else self.begun

    def begin(self, total: int | None, headers: Headers) -> None:
        """The head is known: lets the waiting joiners in."""
        self.file.announce(total)
        if self._head is None:
            self._head = headers
            self._known.set()

    def start_again(self, disk: int, notes: Notes) -> None:
        """Another file takes the place of this one, of which nobody has been told anything."""
        self.file.replace(disk)
        self.notes.close()
        self.notes = notes
        self._head = None

    def finish(self, digest: Digest | None) -> None:
        """The whole file is right, and has this digest."""
        self.digest = digest
        self.file.finish()
        self.begin(self.file.written, Headers())

    def fail(self, problem: Problem) -> None:
        """It ends here: an answer to those who wait for the head, a cut for those who already read."""
        if not self.file.verified and self.problem is None:
            self.problem = problem
            self.file.fail(problem.message)
            self._known.set()

    async def join(self, size: int | None, started: bool) -> Joined:
        """One more reader; returns when the head is known. Raises the Problem that came first."""
        source: GrowingSource = self.file.open()
        try:
            await self._known.wait()
            while self.promise.named and self.problem is None and not self.file.shown:
                await self.file.more()
            if self.problem is not None:
                raise copy.copy(self.problem) from self.problem  # each waiter its own traceback
            assert self._head is not None
            total = self.file.total
            if size is not None and total is not None and size != total:
                raise UpstreamFailed(f"{self.label} has {total} bytes, not the expected {size}", subject="blob")
        except BaseException:
            source.close()
            raise
        return Joined(source, self._head, started, self.digest)
