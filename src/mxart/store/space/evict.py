"""Keeping a cache to its size: what was not used for longest goes first, but nothing that a kept manifest needs.

Files of one package with the same digest (a tag, and the manifest that it means) go together.  What a manifest links
comes up only once that manifest is gone, and then by its own last use: another image's layers survive.  Where a
cache is over its size, it is brought down to nine tenths of it, so that not every download begins this anew.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mxart.digest import Digest
from mxart.store.paths import StorePaths
from mxart.store.space.ledger import BATCH, Ledger
from mxart.store.space.sweep import Loose, Shelves
from mxart.store.space.task import Freed, Member, Pause, Report, Task, Tell, ignore_progress, no_pause

log = logging.getLogger(__name__)

EVICTING = "making room in caches"
TARGET = 0.9
_SETTLE_SECONDS = 1.0  # a file this young may be about to get a name: it comes up in the next round

_NEEDED = """
    SELECT 1 FROM links l CROSS JOIN files m ON m.id = l.file
    WHERE l.digest = f.digest AND m.package = f.package AND m.digest <> f.digest"""
_UNITS = f"""
    SELECT max(max(f.created, coalesce(u.last, 0))) AS used, f.package, f.digest, max(f.size)
    FROM files f LEFT JOIN uses u ON u.file = f.id
    WHERE NOT EXISTS ({_NEEDED}) AND """  # noqa: S608  # of our own words
_OLDEST = f"""
    {_UNITS} f.repository = (SELECT id FROM repositories WHERE name = ?)
    GROUP BY f.package, f.digest ORDER BY used, f.package, f.digest LIMIT {BATCH}"""  # noqa: S608  # as above
_ONE = f"{_UNITS} f.package = ? AND f.digest = ? GROUP BY f.package, f.digest"
_LINKED = """
    SELECT DISTINCT l.digest FROM files f JOIN links l ON l.file = f.id WHERE f.package = ? AND f.digest = ?"""
_DROP = f"""
    DELETE FROM files WHERE package = ? AND digest = ? AND NOT EXISTS (
        SELECT 1 FROM files f WHERE f.id = files.id AND EXISTS ({_NEEDED}))"""  # noqa: S608  # as above
_DROP_VERSION = "DELETE FROM versions WHERE package = ? AND digest = ?"


@dataclass(frozen=True, slots=True, order=True)
class _Unit:
    """Files of a package with the same digest. In the order in which they go."""

    used: float
    package: int
    digest: str
    size: int


def is_over(held: int, member: Member) -> bool:
    """Whether a repository holds more bytes than it may."""
    return member.max_bytes is not None and held > member.max_bytes


def evict(
    task: Task,
    ledger: Ledger,
    member: Member,
    now: float,
    report: Report,
    tell: Tell = ignore_progress,
    pause: Pause = no_pause,
) -> None:
    """Bring one repository down to its size. Blocks. Raises OSError, sqlite3.Error; what is done by then is done.

    Killed at any point it leaves nothing wrong but files without a row, which a collection finds.
    """
    ledger.look_around(task.stores)
    held = ledger.held(member.name)
    if member.max_bytes is None or not is_over(held.bytes, member):
        return
    target = int(member.max_bytes * TARGET)
    if task.dry_run:
        report.evicted[member.name] = Freed(0, held.bytes - target)
        return
    shelves = Shelves(member.store, StorePaths(task.root(member.store)))
    evicted = report.evicted.setdefault(member.name, Freed())
    blobs = report.blobs.setdefault(member.store, Freed())
    excess = held.bytes - target
    before = now - _SETTLE_SECONDS

    def young(digest: str) -> bool:
        return shelves.is_young(Digest.parse(digest), before)

    while held.bytes > target:
        oldest = _oldest(ledger, member.name)
        pause("listed")
        gone = _drop(ledger, member.name, oldest, target, young)
        pause("evicted")
        files = [Loose(Digest.parse(unit.digest), unit.size) for unit in gone]
        for file in shelves.sweep(ledger, files, before):
            blobs.add(file.size)
        pause("swept")
        for unit in gone:
            evicted.add(unit.size)
        if not gone:
            return  # all that is left came this very moment
        held = ledger.held(member.name)
        tell(min(excess, excess - (held.bytes - target)), excess, EVICTING)
    log.info(
        "%s: %d files, %d bytes, made room; it holds %d now", member.name, evicted.files, evicted.bytes, held.bytes
    )


def _oldest(ledger: Ledger, repository: str) -> list[_Unit]:
    return [_Unit(*row) for row in ledger.rows(_OLDEST, (repository,))]


def _drop(
    ledger: Ledger, repository: str, units: list[_Unit], target: int, young: Callable[[str], bool]
) -> list[_Unit]:
    """Delete the oldest of these, and of what only they needed, until the target is reached; returns which.

    One transaction, of a batch at most.
    """
    gone: list[_Unit] = []
    heapq.heapify(units)
    with ledger.writing() as db:
        while units and len(gone) < BATCH and ledger.held(repository).bytes > target:
            unit = heapq.heappop(units)
            names = (unit.package, unit.digest)
            linked = db.execute(_LINKED, names).fetchall()
            if young(unit.digest) or not db.execute(_DROP, names).rowcount:
                continue  # or it was needed meanwhile, or is gone
            db.execute(_DROP_VERSION, names)
            gone.append(unit)
            for (digest,) in linked:
                for row in db.execute(_ONE, (unit.package, digest)).fetchall():
                    heapq.heappush(units, _Unit(*row))
        ledger.forget_empty({unit.package for unit in gone})
    if gone:
        ledger.tell()
    return gone
