"""Keeping a cache to its size: what was not used for longest goes first, but nothing that a kept manifest needs.

Files of one package with the same digest (a tag, and the manifest that it means) go together.  What a manifest links
comes up only once that manifest is gone, and then by its own last use: another image's layers survive.  Where a
cache is over its size, it is brought down to nine tenths of it, so that not every download begins this anew.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable

from msgspec import Struct

from mxart.digest import Digest
from mxart.store.space.ledger import BATCH, Ledger
from mxart.store.space.sweep import BATCH as SWEEP_BATCH
from mxart.store.space.sweep import Loose, Shelves
from mxart.store.space.task import Freed, Member, Pause, Report, Task, Tell, ignore_progress, no_pause

log = logging.getLogger(__name__)

EVICTING = "making room in caches"
TARGET = 0.9
_SETTLE_SECONDS = 1.0  # a file this young may be about to get a name: it comes up in the next round

_LISTED = 50 * BATCH  # the query looks at every row of the repository

_NEEDED = """
    SELECT 1 FROM links l CROSS JOIN files m ON m.id = l.file
    WHERE l.digest = f.digest AND m.package = f.package AND m.digest <> f.digest"""
_UNITS = f"""
    SELECT max(max(f.created, coalesce(u.last, 0))) AS used, f.package, f.digest, max(f.size)
    FROM files f LEFT JOIN uses u ON u.file = f.id
    WHERE NOT EXISTS ({_NEEDED}) AND """  # noqa: S608  # of our own words
_OLDEST = f"""
    {_UNITS} f.repository = (SELECT id FROM repositories WHERE name = ?)
    GROUP BY f.package, f.digest ORDER BY used, f.package, f.digest LIMIT {_LISTED}"""  # noqa: S608  # as above
_ONE = f"{_UNITS} f.package = ? AND f.digest = ? GROUP BY f.package, f.digest"
_LINKED = """
    SELECT DISTINCT l.digest FROM files f JOIN links l ON l.file = f.id WHERE f.package = ? AND f.digest = ?"""
_DROP = "DELETE FROM files WHERE package = ? AND digest = ?"
_DROP_VERSION = "DELETE FROM versions WHERE package = ? AND name = ?"  # a version is named by its digest


class _Unit(Struct, frozen=True, order=True):
    """Files of a package with the same digest. In the order in which they go."""

    used: float
    package: int
    digest: str
    size: int

    @property
    def name(self) -> Digest:
        """Its digest as files are named by."""
        return Digest.parse(self.digest)


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

    Killed at any point it leaves nothing wrong but files without a row, which a collection finds.  After a loss of
    power rows may be back whose files are gone: a proxy fetches them again.
    """
    ledger.look_around(task.stores)
    held = ledger.held(member.name)
    if member.max_bytes is None or not is_over(held.bytes, member):
        return
    target = int(member.max_bytes * TARGET)
    if task.dry_run:
        report.evicted[member.name] = Freed(0, held.bytes - target)
        return
    shelves = Shelves(member.store, task.places())
    evicted = report.evicted.setdefault(member.name, Freed())
    blobs = report.blobs.setdefault(member.store, Freed())
    excess = held.bytes - target
    before = now - _SETTLE_SECONDS
    queue = _Queue(ledger, member.name, lambda digest: shelves.is_young(digest, before))
    while held.bytes > target:
        queue.fill()
        pause("listed")
        gone = queue.drop(target)
        pause("evicted")
        for start in range(0, len(gone), SWEEP_BATCH):
            files = [Loose(unit.name, unit.size) for unit in gone[start : start + SWEEP_BATCH]]
            for file in shelves.sweep(ledger, files, before):
                blobs.add(file.size)
            pause("swept")
        for unit in gone:
            evicted.add(unit.size)
        if not gone and not queue.fill():
            break  # all that is left came this very moment
        held = ledger.held(member.name)
        tell(min(excess, excess - (held.bytes - target)), excess, EVICTING)
    log.info(
        "%s: %d files, %d bytes, made room; it holds %d now", member.name, evicted.files, evicted.bytes, held.bytes
    )


class _Queue:
    """What goes next: the oldest that nothing needs. What only these needed joins when they are gone."""

    def __init__(self, ledger: Ledger, repository: str, is_young: Callable[[Digest], bool]) -> None:
        self._ledger = ledger
        self._repository = repository
        self._is_young = is_young
        self._units: list[_Unit] = []
        self._horizon = -math.inf  # what was used later has not been listed
        self._exhausted = False

    def fill(self) -> bool:
        """See to it that the next ones are known; False if there are none."""
        while not self._exhausted and not (self._units and self._units[0].used <= self._horizon):
            found = [_Unit(*row) for row in self._ledger.rows(_OLDEST, (self._repository,))]
            self._exhausted = len(found) < _LISTED or found[-1].used <= self._horizon
            self._horizon = math.inf if self._exhausted else found[-1].used
            self._units = found  # in order, which is a heap
        return bool(self._units)

    def drop(self, target: int) -> list[_Unit]:
        """Delete them until no more than so many bytes are held; returns which. One transaction, of a batch at most."""
        gone: list[_Unit] = []
        held = self._ledger.held(self._repository).bytes
        with self._ledger.writing() as db:
            while self._units and self._units[0].used <= self._horizon and len(gone) < BATCH and held > target:
                unit = heapq.heappop(self._units)
                names = (unit.package, unit.digest)
                now = [_Unit(*row) for row in db.execute(_ONE, names).fetchall()]
                if now != [unit]:  # it was used, or is needed, or is gone
                    for other in now:
                        heapq.heappush(self._units, other)
                    continue
                if self._is_young(unit.name):
                    continue
                linked = db.execute(_LINKED, names).fetchall()
                db.execute(_DROP, names)
                db.execute(_DROP_VERSION, names)
                gone.append(unit)
                held = self._ledger.held(self._repository).bytes
                for (digest,) in linked:
                    for row in db.execute(_ONE, (unit.package, digest)).fetchall():
                        heapq.heappush(self._units, _Unit(*row))
            self._ledger.forget_empty({unit.package for unit in gone})
        if gone:
            self._ledger.tell()
        return gone
