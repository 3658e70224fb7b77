"""What is kept after it was answered.

A small file of an upstream's is checked, then answered, then written: nobody waits for the disk.  Until it is on disk
it can be lost, with the process or the power, and is fetched again then; that is no loss to anybody, since upstream has
it.  What a client publishes, what may be another one tomorrow, and what upstreams count requests for is never kept in
this way.

That is bounded: where a disk is slower than an upstream, the next ones are kept first and answered then.
"""

from __future__ import annotations

import trio

_MOST = 64  # files that are on their way to the disk, of one worker


class Behind:
    """The names that are on their way to the catalog. One for all repositories of a worker."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._names: set[tuple[str, str]] = set()
        self._idle = trio.Event()
        self._idle.set()

    def begin(self, repository: str, path: str) -> bool:
        """Whether it may be kept behind; then `end` has to follow."""
        if len(self._names) >= self._most or (repository, path) in self._names:
            return False
        if not self._names:
            self._idle = trio.Event()
        self._names.add((repository, path))
        return True

    def end(self, repository: str, path: str) -> None:
        """It is in the catalog, or will not be."""
        self._names.discard((repository, path))
        if not self._names:
            self._idle.set()

    def has(self, repository: str, path: str) -> bool:
        """Whether somebody may have been given this already, which the catalog does not have yet."""
        return (repository, path) in self._names

    async def settle(self) -> None:
        """Return once everything is kept; at shutdown, say. Cancelled: the rest goes on."""
        while self._names:
            await self._idle.wait()
