"""A body that a thread may draw, past the event loop: the fast way for large files over HTTP/1.1."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from mxart.message import Tap


@runtime_checkable
class Tapped(Protocol):
    """A `base.Reply` whose body need not come through `receive`. Only some are."""

    def tap(self) -> Tap | None:
        """For a thread to take over from `receive`, until it gets 0; None where only `receive` will do."""
        ...

    def drawn(self, count: int) -> None:
        """So many bytes were taken from the tap."""
        ...
