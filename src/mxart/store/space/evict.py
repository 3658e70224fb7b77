"""Keeping a cache to its size: what was not used for longest goes first, but nothing that a kept manifest needs.

Files of one package with the same digest (a tag, and the manifest that it means) go together.  What a manifest links
comes up only once that manifest is gone, and then by its own last use: another image's layers survive.  Where a
cache is over its size, it is brought down to nine tenths of it, so that not every download begins this anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mxart.digest import Digest
from mxart.store.paths import StorePaths
from mxart.store.space.ledger import BATCH, Ledger
from mxart.store.space.sweep import Loose, Shelves
from mxart.store.space.task import Freed, Member, Pause, Report, Task, Tell, ignore_progress, no_pause

log = logging.getLogger(__name__)

EVICTING = "making room in caches"
TARGET = 0.9
_SETTLE_SECONDS = 10.0  # a file this young may be about to get a name

_NEEDED = """
    SELECT 1 FROM links l CROSS JOIN files m ON m.id = l.file
    WHERE l.digest = f.digest AND m.package = f.package AND m.digest <> f.digest"""
_OLDEST = f"""
    SELECT f.package, f.digest, max(f.size), max(max(f.created, coalesce(u.last, 0))) AS used
    FROM files f LEFT JOIN uses u ON u.file = f.id
    WHERE f.repository = (SELECT id FROM repositories WHERE name = ?) AND NOT EXISTS ({_NEEDED})
    GROUP BY f.package, f.digest ORDER BY used, f.package, f.digest LIMIT {BATCH}"""  # noqa: S608  # of our own words
_DROP = f"""
    DELETE FROM files WHERE package = :package AND digest = :digest AND NOT EXISTS (
        SELECT 1 FROM files f WHERE f.id = files.id AND EXISTS ({_NEEDED}))"""  # noqa: S608  # as above


@dataclass(frozen=True, slots=True)
class _Unit:
    package: int
    digest: str
    size: int


def is_over(held: Freed, member: Member) -> bool:
    """Whether a repository holds more than it may."""
    return member.max_bytes is not None and held.bytes > member.max_bytes


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
    if member.max_bytes is None or not is_over(held, member):
        return
    target = int(member.max_bytes * TARGET)
    if task.dry_run:
        report.evicted[member.name] = Freed(0, held.bytes - target)
        return
    shelves = Shelves(member.store, StorePaths(task.root(member.store)))
    evicted = report.evicted.setdefault(member.name, Freed())
    blobs = report.blobs.setdefault(member.store, Freed())
    excess = held.bytes - target
    while held.bytes > target:
        oldest = _oldest(ledger, member.name)
        pause("listed")
        gone = _drop(ledger, member.name, oldest, target)
        pause("evicted")
        files = [Loose(Digest.parse(unit.digest), unit.size) for unit in gone]
        for file in shelves.sweep(ledger, files, now - _SETTLE_SECONDS):
            blobs.add(file.size)
        pause("swept")
        for unit in gone:
            evicted.add(unit.size)
        if not gone:
            return  # all that is left is used by somebody this very moment
        held = ledger.held(member.name)
        tell(min(excess, excess - (held.bytes - target)), excess, EVICTING)
    log.info(
        "%s: %d files, %d bytes, made room; it holds %d now", member.name, evicted.files, evicted.bytes, held.bytes
    )


def _oldest(ledger: Ledger, repository: str) -> list[_Unit]:
    return [_Unit(package, digest, size) for package, digest, size, _ in ledger.rows(_OLDEST, (repository,))]


def _drop(ledger: Ledger, repository: str, units: list[_Unit], target: int) -> list[_Unit]:
    """Delete the first of them, until the target is reached; returns which. One transaction."""
    gone: list[_Unit] = []
    with ledger.writing() as db:
        for unit in units:
            if ledger.held(repository).bytes <= target:
                break
            if db.execute(_DROP, {"package": unit.package, "digest": unit.digest}).rowcount:
                db.execute(
                    "DELETE FROM versions WHERE package = :package AND digest = :digest",
                    {"package": unit.package, "digest": unit.digest},
                )
                gone.append(unit)
        ledger.forget_empty({unit.package for unit in gone})
    if gone:
        ledger.tell()
    return gone
