"""Who gives space back: one process at a time, settled by flock(2) on `<data>/gc`.

The file's time tells when the last round was finished, so the schedule outlives restarts, and every worker
sees that another one has done it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mxart.store.locks import try_lock

_AHEAD = 60.0  # a file this many seconds from the future: the clock was set back


@contextmanager
def leading(path: str) -> Iterator[bool]:
    """Whether this process is the one; until the end of the context, or of the process. Never waits. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(fd)
    finally:
        os.close(fd)


def finished(path: str, now: float) -> None:
    """Note that a round is over. Raises OSError."""
    os.utime(path, (now, now))


def begin_schedule(path: str) -> None:
    """Before the first round ever: the time begins to pass now. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def last_finished(path: str) -> float | None:
    """When the last round was over, in seconds since the epoch; None if there was none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return None


def is_due(last: float | None, now: float, every: float) -> bool:
    """Whether another round is to begin; `every` in seconds, 0: never."""
    if every <= 0 or last is None:
        return False
    return now >= last + every or last > now + _AHEAD
