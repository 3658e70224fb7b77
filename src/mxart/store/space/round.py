"""One whole round, by whoever is the only one to do it."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

import msgspec

from mxart.errors import MxartError
from mxart.store.generation import Generation
from mxart.store.space.evict import evict
from mxart.store.space.gc import collect
from mxart.store.space.leader import finished, leading
from mxart.store.space.ledger import Ledger
from mxart.store.space.task import Pause, Report, Task, Tell, ignore_progress, no_pause

_NICENESS = 10


class Busy(MxartError):
    """Another process gives space back at this moment."""


class Failed(MxartError):
    """The catalog or a store cannot be used; what was done before that is done."""


def once(task: Task, tell: Tell = ignore_progress, pause: Pause = no_pause) -> Report:
    """Evict, then collect. Blocks, for minutes perhaps. Raises Busy, Failed, ConfigError."""
    try:
        with leading(task.lock) as alone:
            if not alone:
                raise Busy("another process is giving space back already; wait for its end")
            report = _round(task, tell, pause)
            if not task.dry_run:
                finished(task.lock, time.time())
            return report
    except sqlite3.Error as error:
        raise Failed(f"{task.catalog}: {error}") from error
    except OSError as error:
        raise Failed(f"{error.filename or task.lock}: {error.strerror or error}") from error


def _round(task: Task, tell: Tell, pause: Pause) -> Report:
    generation = Generation.outside(Path(task.generation))
    try:
        ledger = Ledger(Path(task.catalog), generation, task.members)
        try:
            evictions = Report(dry_run=task.dry_run)
            for member in task.members:
                evict(task, ledger, member, time.time(), evictions, tell, pause)
            report = collect(task, ledger, time.time(), tell, pause)
        finally:
            ledger.close()
    finally:
        generation.close()
    report.evicted = evictions.evicted
    for store, freed in evictions.blobs.items():
        mine = report.blobs.setdefault(store, freed)
        if mine is not freed:
            mine.files += freed.files
            mine.bytes += freed.bytes
    return report


class Breaths:
    """A `Pause` for who works beside others: rests three times as long as it has worked, and not too briefly."""

    _AT_LEAST = 0.002
    _AT_MOST = 0.5

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self, stage: str) -> None:
        worked = time.monotonic() - self._since
        time.sleep(min(self._AT_MOST, max(self._AT_LEAST, 3 * worked)))
        self._since = time.monotonic()


def be_nice() -> None:
    """This process takes the processor only when nobody else wants it much."""
    os.nice(_NICENESS)


def main() -> None:
    """A process of its own for one round: the task as JSON on standard input; on standard output a line for each step.

    A line is `[done, total, what]`, the last one the report, or `{"error": ...}`.
    """
    be_nice()
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    last = 0.0

    def tell(done: int, total: int | None, what: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > 0.1 or done == total:
            last = now
            _say((done, total, what))

    try:
        _say(once(task, tell, Breaths()))
    except MxartError as error:
        _say({"error": str(error), "busy": isinstance(error, Busy)})


def _say(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
