"""How far a replication is: bytes done, of how many, and what is under way."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None, str], None]
"""Told (bytes done, bytes in all or None, what is under way). Called often; must be quick and must not raise."""


def silent(done: int, total: int | None, what: str) -> None:
    """Tell nobody."""


class Meter:
    """Adds up what many transfers say."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._done = 0
        self._total = 0

    def expect(self, count: int) -> None:
        """So many bytes more are to come."""
        self._total += count

    def say(self, what: str) -> None:
        """Something without bytes is under way."""
        self._tell(self._done, self._total or None, what)

    def share(self, what: str) -> Callable[[int], None]:
        """For one transfer: to be told up to which offset it is; that may go back."""
        before = 0

        def moved(offset: int) -> None:
            nonlocal before
            self._done += offset - before
            before = offset
            self._tell(self._done, self._total, what)

        return moved
