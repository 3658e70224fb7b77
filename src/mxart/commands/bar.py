"""A line on a terminal that tells how far long work is; nothing where the output is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_BETWEEN = 0.1  # seconds
_WIDTH = 24
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Bar:
    """Use it as a context, and as a progress callback: (done, total or None, what is under way)."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._live = self._out.isatty()
        self._drawn = 0.0
        self._shown = 0

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int | None, what: str) -> None:
        now = time.monotonic()
        if not self._live or now - self._drawn < _BETWEEN:
            return
        self._drawn = now
        if total:
            filled = _WIDTH * min(done, total) // total
            line = f"[{'=' * filled}{' ' * (_WIDTH - filled)}] {size_text(done)} of {size_text(total)}  {what}"
        else:
            line = what
        self._write(line[:110])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._write("")
            self._out.write("\r")
            self._out.flush()

    def _write(self, line: str) -> None:
        self._out.write(f"\r{line.ljust(self._shown)}")
        self._out.flush()
        self._shown = len(line)


def size_text(count: int) -> str:
    """Bytes for people: 3.2 MiB."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit fits everything")
