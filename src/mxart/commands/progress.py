"""How far long work is, on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WIDTH = 30
_EVERY = 0.1  # seconds
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Callable[[int, int | None, str], None]]:
    """A bar on standard error while the context lasts, if that is a terminal. It takes: done, total, what."""
    out = sys.stderr if stream is None else stream
    if not out.isatty():
        yield lambda done, total, what: None
        return
    bar = _Bar(out)
    try:
        yield bar.tell
    finally:
        out.write(_CLEAR)
        out.flush()


class _Bar:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = ""
        self._last = 0.0

    def tell(self, done: int, total: int | None, what: str) -> None:
        now = time.monotonic()
        if what == self._shown and now - self._last < _EVERY:
            return
        self._shown, self._last = what, now
        self._out.write(_CLEAR + bar(done, total, what))
        self._out.flush()


def bar(done: int, total: int | None, what: str) -> str:
    """One line of it."""
    if total is None:
        return f"{what}  {done}"
    part = min(1.0, done / total) if total else 1.0
    full = round(part * _WIDTH)
    return f"{what}  [{'#' * full}{' ' * (_WIDTH - full)}] {part:4.0%}"
