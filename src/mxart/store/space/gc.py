"""Mark, grace, sweep: what nothing refers to goes, while everybody else goes on.

First names: rows of files that exist for others only (an image's layers), and that nothing of their
package links.  Then files: what lies in a store without a row.  Both only once they are older than the
grace, which is for pushes under way: their layers come before the manifest that links them.
"""

from __future__ import annotations

import logging
import sqlite3
import time

from mxart.store.space.ledger import Ledger, is_full
from mxart.store.space.sweep import BATCH as SWEEP_BATCH
from mxart.store.space.sweep import Loose, Shelves
from mxart.store.space.task import Freed, Pause, Report, Task, Tell, ignore_progress, no_pause

log = logging.getLogger(__name__)

MARKING = "looking for what nothing refers to"
SWEEPING = "removing files"
# Rows that go in one transaction: some milliseconds. After each of them the workers look names up again, which is the
# dearer half for those who pull meanwhile.
ROWS = 500


def collect(
    task: Task,
    ledger: Ledger,
    now: float,
    tell: Tell = ignore_progress,
    pause: Pause = no_pause,
) -> Report:
    """One collection, from beginning to end. Blocks. Raises OSError, sqlite3.Error; what is done by then is done.

    `now` are seconds since the epoch.  Killed at any point it leaves nothing wrong, and the next one goes on.
    """
    began = time.monotonic()
    report = Report(dry_run=task.dry_run)
    if ledger.recount():
        log.warning("what repositories hold was counted wrongly, and is right now")
    for name in ledger.look_around(task.stores):
        report.unknown[name] = ledger.held(name)
    before = now - task.grace
    try:
        condemned = _mark(task, ledger, before, report, tell, pause)
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        log.warning("the disk is full: what has no name goes first")
        _sweep(task, ledger, before, set(), report, tell, pause)
        condemned = _mark(task, ledger, before, report, tell, pause)
    _sweep(task, ledger, before, condemned, report, tell, pause)
    report.seconds = time.monotonic() - began
    return report


def _mark(task: Task, ledger: Ledger, before: float, report: Report, tell: Tell, pause: Pause) -> set[int]:
    """Returns the rows that only a real run would have deleted."""
    total, after = ledger.count(), 0
    condemned: set[int] = set()
    while (until := ledger.window(after)) is not None:
        rows = ledger.unlinked(after, until, before)
        pause("marked")
        for start in range(0, len(rows), ROWS):
            batch = rows[start : start + ROWS]
            if task.dry_run:
                condemned.update(row.id for row in batch)
            else:
                batch = ledger.drop_unlinked(batch, before)
                pause("dropped")
            for row in batch:
                report.names.setdefault(row.repository, Freed()).add(row.size)
        after = until
        tell(min(after, total), total, MARKING)
    return condemned


def _sweep(
    task: Task, ledger: Ledger, before: float, condemned: set[int], report: Report, tell: Tell, pause: Pause
) -> None:
    if not task.dry_run:
        ledger.settle()
        pause("settled")
    places = task.places()
    shelves = [Shelves(name, places) for name in places]
    folders = [(shelf, folder) for shelf in shelves for folder in shelf.folders()]
    for number, (shelf, folder) in enumerate(folders):
        freed = report.blobs.setdefault(shelf.name, Freed())
        ledger.look_around(task.stores)
        found = shelf.digests(folder)
        pause("listed")
        named = ledger.named(shelf.name, folder, _after(folder), condemned)
        loose = [
            file
            for digest in found
            if str(digest) not in named
            and (file := shelf.loose(digest, before)) is not None
            and not shelf.is_missed(ledger, digest)
        ]
        pause("compared")
        for start in range(0, len(loose), SWEEP_BATCH):
            batch: list[Loose] = loose[start : start + SWEEP_BATCH]
            if not task.dry_run:
                batch = shelf.sweep(ledger, batch, before)
                pause("swept")
            for file in batch:
                freed.add(file.size)
        tell(number + 1, len(folders), SWEEPING)


def _after(folder: str) -> str:
    """The least text that is greater than all digests that begin so."""
    return folder[:-1] + chr(ord(folder[-1]) + 1)
