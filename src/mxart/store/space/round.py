"""One whole round, by whoever is the only one to do it."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mxart.errors import MxartError
from mxart.store.generation import Generation
from mxart.store.space.evict import evict
from mxart.store.space.gc import collect
from mxart.store.space.leader import finished, is_due, last_finished, leading
from mxart.store.space.ledger import Ledger, is_full
from mxart.store.space.retire import retire
from mxart.store.space.task import Freed, Pause, Report, Task, Tell, ignore_progress, no_pause

_NICENESS = 10


class Busy(MxartError):
    """Another process gives space back at this moment."""


class Failed(MxartError):
    """The catalog or a store cannot be used; what was done before that is done."""


def once(task: Task, tell: Tell = ignore_progress, pause: Pause = no_pause) -> Report:
    """Retire, evict, collect. Blocks, for minutes perhaps. Raises Busy, Failed, ConfigError.

    A collection may be long, and a cache that grows must not wait for it: evictions have an election of their own.
    """
    try:
        with opened(task) as ledger:
            if task.only_evict:
                report = Report(dry_run=task.dry_run)
                if not _evict(task, ledger, report, tell, pause):
                    raise Busy("another process is evicting already; wait for its end")
                return report
            with leading(task.lock) as alone:
                if not alone:
                    raise Busy("another process is giving space back already; wait for its end")
                if task.every and not is_due(last_finished(task.lock), time.time(), task.every):
                    raise Busy("another process has given space back just now")
                return _all(task, ledger, tell, pause)
    except sqlite3.Error as error:
        raise Failed(f"{task.catalog}: {error}") from error
    except OSError as error:
        raise Failed(f"{error.filename or task.lock}: {error.strerror or error}") from error


@contextmanager
def opened(task: Task) -> Iterator[Ledger]:
    """The catalog of a task, for a process that is no worker. Raises ConfigError, sqlite3.Error."""
    generation = Generation.outside(Path(task.generation))
    try:
        ledger = Ledger(Path(task.catalog), generation, task.members)
        try:
            yield ledger
        finally:
            ledger.close()
    finally:
        generation.close()


def _all(task: Task, ledger: Ledger, tell: Tell, pause: Pause) -> Report:
    before = Report()
    try:
        _make_orphans(task, ledger, before, tell, pause)
        report = collect(task, ledger, time.time(), tell, pause)
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        report = collect(task, ledger, time.time(), tell, pause)  # makes some room, for what comes before it otherwise
        _make_orphans(task, ledger, before, tell, pause)
    report.retired, report.evicted = before.retired, before.evicted
    for store, freed in before.blobs.items():
        mine = report.blobs.setdefault(store, Freed())
        mine.files += freed.files
        mine.bytes += freed.bytes
    if not task.dry_run:
        finished(task.lock, time.time())
    return report


def _make_orphans(task: Task, ledger: Ledger, report: Report, tell: Tell, pause: Pause) -> None:
    """What rules let go, and what is too much."""
    for member in task.members:
        if member.retention:
            report.retired[member.name] = retire(
                ledger, member, time.time(), dry_run=task.dry_run, tell=tell, pause=pause
            )
    _evict(task, ledger, report, tell, pause)


def _evict(task: Task, ledger: Ledger, report: Report, tell: Tell, pause: Pause) -> bool:
    """Whether this process was the one to do it."""
    with leading(f"{task.lock}-evict") as alone:
        for member in task.members if alone else ():
            evict(task, ledger, member, time.time(), report, tell, pause)
        return alone


class Breaths:
    """A `Pause` for who works beside others: rests three times as long as it has used the processor, and half as long
    as it has waited for the disk, or for a processor that others wanted.
    """

    _AT_LEAST = 0.002
    _AT_MOST = 0.5

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._used = time.thread_time()

    def __call__(self, stage: str) -> None:
        used = time.thread_time() - self._used
        waited = time.monotonic() - self._since - used
        time.sleep(min(self._AT_MOST, max(self._AT_LEAST, 3 * used + waited / 2)))
        self._since, self._used = time.monotonic(), time.thread_time()


def be_nice() -> None:
    """This process takes the processor only when nobody else wants it much."""
    os.nice(_NICENESS)


class Step(msgspec.Struct, tag="step"):
    """How far the process is."""

    done: int
    total: int | None
    what: str


class Done(msgspec.Struct, tag="done"):
    """It is over."""

    report: Report


class Ended(msgspec.Struct, tag="ended"):
    """It could not be done. `busy`: because another process is at it."""

    error: str
    busy: bool


class Said(msgspec.Struct, tag="said"):
    """For the log."""

    level: int
    text: str


Line = Step | Said | Done | Ended
"""What a process says on its standard output, a line of JSON each; the last one is how it ended."""


def main() -> None:
    """A process of its own for one round: the task as JSON on standard input, lines on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a terminal's Ctrl-C comes here, too: no word is wanted
    be_nice()
    logging.basicConfig(level=logging.INFO, handlers=[_Telling()])
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    last = 0.0

    def tell(done: int, total: int | None, what: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > 0.1 or done == total:
            last = now
            _say(Step(done, total, what))

    try:
        _say(Done(once(task, tell, Breaths())))
    except MxartError as error:
        _say(Ended(str(error), isinstance(error, Busy)))


class _Telling(logging.Handler):
    """Hands the log on to who started this process."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(Said(record.levelno, record.getMessage()))


def _say(what: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
