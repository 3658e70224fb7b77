"""What an upstream tells whoever builds metrics. Calls are synchronous, short, and never raise."""

from __future__ import annotations

from typing import Protocol

from mxart.upstream.budget import Budget


class Observer(Protocol):
    """Counts. `upstream` is the repository's name; there are few of them, so it may be a metric's label."""

    def answered(self, upstream: str, status: int, seconds: float) -> None:
        """The head of an answer came, `seconds` after its request left; redirects and 401 count too."""
        ...

    def received(self, upstream: str, count: int) -> None:
        """So many bytes of bodies came."""
        ...

    def failed(self, upstream: str, cause: str) -> None:
        """An attempt failed; `cause` is one of a few words: "refused", "timeout", "http 503", ..."""
        ...

    def budget(self, upstream: str, budget: Budget) -> None:
        """The upstream told how many requests it will still take."""
        ...

    def document(self, upstream: str, method: str) -> None:
        """The upstream gave a document, or its head; not the bytes of a large file."""
        ...


class Silent:
    """Listens to nobody."""

    def answered(self, upstream: str, status: int, seconds: float) -> None:
        """Nothing."""

    def received(self, upstream: str, count: int) -> None:
        """Nothing."""

    def failed(self, upstream: str, cause: str) -> None:
        """Nothing."""

    def budget(self, upstream: str, budget: Budget) -> None:
        """Nothing."""

    def document(self, upstream: str, method: str) -> None:
        """Nothing."""


SILENT = Silent()
