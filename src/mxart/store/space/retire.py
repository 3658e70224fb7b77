"""Carrying out retention: the records of a package from the catalog, and what the plan says goes.

A plan is made from what was read a moment ago.  Each of its bundles goes in one transaction that looks
again whether all that it rests on still holds: a tag that moved, a manifest that somebody tagged, pulled, linked or
signed meanwhile keeps its bundle here until the next time.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mxart.store.space.ledger import Ledger
from mxart.store.space.retention import Bundle, Going, Manifest, Note, Package, Tag, plan
from mxart.store.space.retire_builds import retire_builds
from mxart.store.space.task import Member, Pause, Retired, Tell, ignore_progress, no_pause

RETIRING = "applying retention rules"
BATCH = 50  # tags and manifests in one transaction

_PACKAGES = """
    SELECT p.id, p.name FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name > ? ORDER BY p.name LIMIT 100"""
_COUNT = "SELECT count(*) FROM packages p JOIN repositories r ON r.id = p.repository WHERE r.name = ?"
_TAGS = """
    SELECT t.name, v.digest, f.created FROM tags t JOIN versions v ON v.id = t.version JOIN files f ON f.id = t.file
    WHERE t.package = ?"""
_MANIFESTS = """
    SELECT f.id, f.digest, f.size, f.created, coalesce((SELECT u.last FROM uses u WHERE u.file = f.id), 0.0),
           coalesce((SELECT n.subject FROM referrers n WHERE n.file = f.id), '')
    FROM files f JOIN packages p ON p.id = f.package
    WHERE f.package = :package AND f.path <> p.name || :part || f.digest
      AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)"""
_LINKS = "SELECT l.file, l.digest FROM files f JOIN links l ON l.file = f.id WHERE f.package = ?"
_PARTS = """
    SELECT f.digest, f.size FROM files f JOIN packages p ON p.id = f.package
    WHERE f.package = :package AND f.path = p.name || :part || f.digest"""
_PACKAGES_WITH = """
    SELECT count(DISTINCT f.package) FROM files f JOIN repositories r ON r.id = f.repository
    WHERE f.digest = ? AND r.name = ?"""
_HAS = "SELECT 1 FROM files WHERE digest = ? AND package = ?"
_TAG = f"{_TAGS} AND t.name = ?"
_TAGS_AT = "SELECT t.name FROM tags t JOIN versions v ON v.id = t.version WHERE v.package = ? AND v.name = ?"
_LINKERS = "SELECT m.digest FROM links l CROSS JOIN files m ON m.id = l.file WHERE l.digest = ? AND m.package = ?"
_ATTACHED = "SELECT digest FROM referrers WHERE subject = ? AND package = ?"
_LAST_USE = """
    SELECT coalesce(max(u.last), 0.0) FROM files f LEFT JOIN uses u ON u.file = f.id
    WHERE f.digest = ? AND f.package = ? AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)"""
_DROP_TAG = "DELETE FROM files WHERE id = (SELECT file FROM tags WHERE package = ? AND name = ?)"
_DROP_MANIFEST = """
    DELETE FROM files WHERE package = :package AND digest = :digest
        AND path <> (SELECT name FROM packages WHERE id = :package) || :part || digest"""
_DROP_VERSION = "DELETE FROM versions WHERE package = :package AND name = :digest"  # a version is named by its digest


def read_package(ledger: Ledger, number: int, name: str, part: str) -> Package:
    """All that the rules look at, as it is at one moment. Raises sqlite3.Error."""
    with ledger.reading() as db:
        values = {"package": number, "part": f"/{part}/"}
        tags = [Tag(*row) for row in db.execute(_TAGS, (number,)).fetchall()]
        links: dict[int, set[str]] = defaultdict(set)
        for file, digest in db.execute(_LINKS, (number,)).fetchall():
            links[file].add(digest)
        manifests = [
            Manifest(digest, size, created, used, frozenset(links[file]), subject)
            for file, digest, size, created, used, subject in db.execute(_MANIFESTS, values).fetchall()
        ]
        return Package(name, tags, manifests, dict(db.execute(_PARTS, values).fetchall()))


def retire(
    ledger: Ledger,
    member: Member,
    now: float,
    *,
    dry_run: bool = False,
    note: Note | None = None,
    tell: Tell = ignore_progress,
    pause: Pause = no_pause,
) -> Retired:
    """Let go what the rules of one repository let go. Blocks. Raises OSError, sqlite3.Error; what is done then is done.

    `dry_run`: only say what it would be.  The files themselves go with the next collections.
    """
    retired = Retired()
    if not member.retention:
        return retired
    total: int = ledger.rows(_COUNT, (member.name,))[0][0]
    room = _Room(ledger, member.name, dry_run=dry_run)
    for done, (number, name) in enumerate(_packages(ledger, member.name), 1):
        if member.builds:
            retired.add(
                retire_builds(ledger, member, number, name, now, dry_run=dry_run, note=note or _to_nobody, pause=pause)
            )
            tell(done, max(total, done), RETIRING)
            continue
        package = read_package(ledger, number, name, member.part)
        pause("read")
        for bundles in _batches(plan(package, member.retention, now)):
            changed = set() if dry_run else _drop(ledger, number, member.part, bundles)
            for index, bundle in enumerate(bundles):
                if index in changed:
                    retired.changed += 1
                    continue
                freed = room.freed_by(bundle)
                retired.tags += len(bundle.tags)
                retired.manifests += len(bundle.manifests)
                retired.bytes += freed
                if note is not None:
                    for place, going in enumerate(bundle.going):
                        note(name, going, 0 if place else freed)
            pause("retired")
        tell(done, max(total, done), RETIRING)
    if not dry_run and (retired.tags or retired.manifests or retired.builds):
        ledger.settle()
    return retired


def _to_nobody(package: str, going: Going, freed: int) -> None:
    """A `Note` for nobody."""


class _Room:
    """How many bytes of a repository come free: those that no other package of it has, or has let go already."""

    def __init__(self, ledger: Ledger, repository: str, *, dry_run: bool) -> None:
        self._ledger = ledger
        self._repository = repository
        self._dry_run = dry_run
        self._released: Counter[str] = Counter()  # by how many packages whose rows are still there

    def freed_by(self, bundle: Bundle) -> int:
        """It went, or would have."""
        manifests = {manifest.digest for manifest in bundle.manifests}
        freed = 0
        for digest, size in bundle.freed.items():
            # A manifest's row goes at once, a part's with the next collection.
            if self._dry_run or digest not in manifests:
                self._released[digest] += 1
            rows = self._ledger.rows(_PACKAGES_WITH, (digest, self._repository))
            if int(rows[0][0]) <= self._released[digest]:
                freed += size
        return freed


def _batches(bundles: Iterable[Bundle]) -> Iterator[list[Bundle]]:
    """As many as one transaction does in some milliseconds."""
    batch: list[Bundle] = []
    size = 0
    for bundle in bundles:
        batch.append(bundle)
        size += len(bundle.going)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _packages(ledger: Ledger, repository: str) -> Iterator[tuple[int, str]]:
    after = ""
    while rows := ledger.rows(_PACKAGES, (repository, after)):
        yield from rows
        after = rows[-1][1]


def _drop(ledger: Ledger, number: int, part: str, bundles: Sequence[Bundle]) -> set[int]:
    """All of them, but for those of which something has changed: their places are returned. One transaction."""
    changed: set[int] = set()
    with ledger.writing() as db:
        for index, bundle in enumerate(bundles):
            if not _is_unchanged(db, number, bundle):
                changed.add(index)
                continue
            for tag in bundle.tags:
                db.execute(_DROP_TAG, (number, tag.name))
            for manifest in bundle.manifests:
                values = {"package": number, "part": f"/{part}/", "digest": manifest.digest}
                db.execute(_DROP_VERSION, values)
                db.execute(_DROP_MANIFEST, values)
        ledger.forget_empty((number,))
    if len(changed) < len(bundles):
        ledger.tell()
    return changed


def _is_unchanged(db: sqlite3.Connection, number: int, bundle: Bundle) -> bool:
    mine = {manifest.digest for manifest in bundle.manifests}
    names = {tag.name for tag in bundle.tags}

    def found(statement: str, *values: str | int) -> set[str]:
        return {row[0] for row in db.execute(statement, values).fetchall()}

    for tag in bundle.tags:
        if db.execute(_TAG, (number, tag.name)).fetchall() != [(tag.name, tag.digest, tag.created)]:
            return False
    for manifest in bundle.manifests:
        digest = manifest.digest
        if not found(_TAGS_AT, number, digest) <= names:
            return False
        if not found(_LINKERS, digest, number) <= mine or not found(_ATTACHED, digest, number) <= mine | bundle.near:
            return False
        if manifest.subject and manifest.subject not in mine and found(_HAS, manifest.subject, number):
            return False
        if not names and db.execute(_LAST_USE, (digest, number)).fetchall() != [(manifest.used,)]:
            return False
    return True
