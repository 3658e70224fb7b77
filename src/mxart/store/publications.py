"""What was published, and what hangs together: the catalog's role `Publications` in SQLite.

One transaction publishes.  It looks, inside itself, for everything that the new file needs, and that its
bytes are still in the store; as whoever sweeps does the opposite inside one of his, the two are ordered: either
the file is refused, or what it needs is known to be needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace as changed

from mxart.digest import Digest
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.published import (
    MAX_BELOW,
    MAX_DEPTH,
    Ensure,
    Holder,
    Incomplete,
    Need,
    Occupied,
    Publication,
    ReferrerRecord,
    TooDeep,
    Unmet,
    Vanished,
    Withdrawn,
)
from mxart.store.quotas import UNLIMITED, Quotas
from mxart.store.rows import as_digest, forget_empty, put_file, put_tag, put_use

# The running sum is of lengths, which are read without the bytes.
_REFERRERS = """
    WITH wanted (file, digest, kind, number, upto) AS (
        SELECT file, digest, artifact_type, row_number() OVER (ORDER BY digest),
               sum(length(descriptor) + 1) OVER (ORDER BY digest)
        FROM referrers
        WHERE package = (SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository
                         WHERE r.name = ? AND p.name = ?)
          AND subject = ? AND digest > ?
        ORDER BY digest LIMIT ?)
    SELECT w.digest, f.size, f.media_type, w.kind, n.descriptor
    FROM wanted w JOIN files f ON f.id = w.file JOIN referrers n ON n.file = w.file
    WHERE w.upto <= ? OR w.number = 1 ORDER BY w.digest"""
# Each has an index of its own: nobody looks through thousands of another type.
_REFERRERS_OF_TYPE = _REFERRERS.replace("AND digest >", "AND artifact_type = ? AND digest >")
# Not its own: what refers to another file or is needed by one, and what only such tags name as match a pattern.
_OWNED = """
    SELECT 1 FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name = ? AND (
        EXISTS (SELECT 1 FROM tags t WHERE t.package = p.id AND t.name NOT GLOB ?)
        OR EXISTS (
            SELECT 1 FROM files f
            WHERE f.package = p.id
              AND EXISTS (SELECT 1 FROM links l WHERE l.file = f.id)
              AND NOT EXISTS (SELECT 1 FROM referrers n WHERE n.file = f.id)
              AND NOT EXISTS (
                  SELECT 1 FROM links l JOIN files other ON other.id = l.file
                  WHERE l.digest = f.digest AND other.package = p.id)
              AND NOT EXISTS (
                  SELECT 1 FROM tags t JOIN versions v ON v.id = t.version
                  WHERE v.package = p.id AND v.digest = f.digest)))"""
_BEGUN = """
    SELECT 1 FROM packages p JOIN repositories r ON r.id = p.repository
    WHERE r.name = ? AND p.name = ? AND NOT EXISTS (
        SELECT 1 FROM files f JOIN links l ON l.file = f.id WHERE f.package = p.id)"""
_TAG_NAMES = """
    SELECT name FROM tags
    WHERE package = (SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository
                     WHERE r.name = ? AND p.name = ?)
      AND name > ? ORDER BY name LIMIT ?"""
_HOLDERS = """
    SELECT r.name, p.name, f.path
    FROM files f JOIN repositories r ON r.id = f.repository JOIN packages p ON p.id = f.package
    WHERE f.digest = ? LIMIT ?"""
_FILE = """
    SELECT f.id, f.package, f.digest, f.size, f.created
    FROM files f JOIN repositories r ON r.id = f.repository WHERE r.name = ? AND f.path = ?"""
_USE = "INSERT INTO uses (file, last) VALUES (?, ?) ON CONFLICT (file) DO UPDATE SET last = max(last, excluded.last)"
_LINK = "INSERT INTO links (file, digest) VALUES (?, ?) ON CONFLICT DO NOTHING"
_PUT_REFERRER = """
    INSERT INTO referrers (file, package, subject, digest, artifact_type, descriptor) VALUES (?, ?, ?, ?, ?, ?)"""
# What a file needs, and whether that needs others.
_NEEDS = """
    SELECT l.digest, EXISTS (SELECT 1 FROM files c CROSS JOIN links n ON n.file = c.id
                             WHERE c.package = f.package AND c.digest = l.digest)
    FROM files f CROSS JOIN links l ON l.file = f.id WHERE f.package = ? AND f.digest = ?"""
_NEEDED_BY = """
    SELECT count(DISTINCT f.digest) FROM links l JOIN files f ON f.id = l.file
    WHERE l.digest = ? AND f.package = ? AND f.id <> ?"""
_TAGS_OF_VERSION = """
    SELECT t.name, t.file FROM tags t JOIN versions v ON v.id = t.version WHERE v.package = ? AND v.name = ?
    ORDER BY t.name LIMIT ?"""
# Tags that go in one transaction: some tens of milliseconds.  A version may have any number of them.
_TAGS_TOGETHER = 500


class SqlitePublications:
    """`Publications` (store.base) in the catalog's database."""

    def __init__(self, catalog: SqliteCatalog, quotas: Quotas = UNLIMITED) -> None:
        self._catalog = catalog
        self._quotas = quotas

    def demand_room(self, repository: str, digest: Digest | None, size: int) -> int | None:
        self._quotas.demand(self._catalog.ask, repository, digest, size)
        return self._quotas.of(repository)

    async def publish(self, publication: Publication, ensure: Ensure, *, replace: bool = True) -> None:
        def work(db: sqlite3.Connection) -> None:
            def ask(statement: str, values: tuple[str | float, ...]) -> list[Any]:
                return db.execute(statement, values).fetchall()

            repository = publication.record.repository
            held = self._quotas.held(ask, repository)
            _publish(db, publication, ensure, replace)
            self._quotas.check(ask, repository, held)

        await self._catalog.write(work)

    async def rely(self, repository: str, path: str, now: float) -> bool:
        return bool(await self._catalog.write(lambda db: put_use(db, repository, path, now), tell=False))

    async def withdraw(
        self, repository: str, path: str, version: str = "", beside: tuple[str, ...] = ()
    ) -> Withdrawn | None:
        tags: list[str] = []
        while True:
            gone = await self._catalog.write(lambda db: _withdraw(db, repository, path, version, beside))
            if gone is None:
                return None
            tags += gone.tags
            if not gone.more:
                return Withdrawn(tuple(tags), gone.needed_by)

    def referrers(
        self,
        repository: str,
        package: str,
        subject: str,
        artifact_type: str = "",
        after: str = "",
        limit: int = 1000,
        max_bytes: int = 1 << 20,
    ) -> list[ReferrerRecord]:
        statement, kind = (_REFERRERS_OF_TYPE, (artifact_type,)) if artifact_type else (_REFERRERS, ())
        rows: list[tuple[str, int, str, str, bytes]] = self._catalog.ask(
            statement, (repository, package, subject, *kind, after, limit, max_bytes)
        )
        return [ReferrerRecord(as_digest(row[0]), row[1], row[2], row[3], row[4]) for row in rows]

    def owned(self, repository: str, package: str, companions: str) -> bool:
        return bool(self._catalog.ask(_OWNED, (repository, package, companions)))

    def begun(self, repository: str, package: str) -> bool:
        return bool(self._catalog.ask(_BEGUN, (repository, package)))

    def holders(self, digest: Digest, limit: int = 1000) -> list[Holder]:
        rows: list[tuple[str, str, str]] = self._catalog.ask(_HOLDERS, (str(digest), limit))
        return [Holder(*row) for row in rows]

    def tag_names(self, repository: str, package: str, after: str, limit: int) -> list[str]:
        rows: list[tuple[str]] = self._catalog.ask(_TAG_NAMES, (repository, package, after, limit))
        return [name for (name,) in rows]


def _publish(db: sqlite3.Connection, publication: Publication, ensure: Ensure, replace: bool) -> None:
    record = publication.record
    wanted = [record, *(changed(record, path=path) for _, path in publication.tags)]
    kept = [_kept(db, item) for item in wanted]
    if any(path == record.path for _, path in publication.tags):
        raise ValueError(f"{record.path} is the file itself; a tag's record has a path of its own")
    condition = publication.condition
    if condition is not None:
        held = _kept(db, changed(record, path=condition.path))
        if not condition.holds(None if held is None else held.digest):
            raise Unmet(f"{condition.path} is not what it should be")
    if kept[0] is not None and kept[0].digest != record.digest:
        raise Occupied((record.path,))
    if not replace:
        taken = [
            tag
            for (tag, _), old in zip(publication.tags, kept[1:], strict=True)
            if old is not None and old.digest != record.digest
        ]
        if taken:
            raise Occupied(tuple(taken))
    _demand(db, record.repository, publication.needs)
    if not ensure():
        raise Vanished(f"{record.digest} is not in the store any more")
    for item in publication.beside:
        put_file(db, item)
    package, file = put_file(db, _since(record, kept[0]))
    db.execute(_USE, (file, record.created))
    for (tag, _), item, old in zip(publication.tags, wanted[1:], kept[1:], strict=True):
        put_tag(db, tag, _since(item, old))
    _connect(db, publication, package, file)


def _connect(db: sqlite3.Connection, publication: Publication, package: int, file: int) -> None:
    """The file's links and its place among its subject's referrers; these follow from its bytes, so they never move."""
    needed = [*(need.digest for need in publication.needs), *(item.digest for item in publication.beside)]
    db.executemany(_LINK, ((file, str(digest)) for digest in needed))
    if publication.nests:
        _Depths(db, package).of(str(publication.record.digest))
    db.execute("DELETE FROM referrers WHERE file = ?", (file,))  # its descriptor holds the media type
    referrer = publication.referrer
    if referrer is not None:
        digest = str(publication.record.digest)
        db.execute(
            _PUT_REFERRER,
            (file, package, str(referrer.subject), digest, referrer.artifact_type, referrer.descriptor),
        )


class _Depths:
    """How deep files of a package nest. What many need is looked at once, and not more than `MAX_BELOW` altogether:
    whoever publishes indexes that share others, level upon level, must not have everybody wait.
    """

    def __init__(self, db: sqlite3.Connection, package: int) -> None:
        self._db = db
        self._package = package
        self._known: dict[str, int] = {}
        self._left = MAX_BELOW

    def of(self, digest: str, level: int = 0) -> int:
        """How many levels are below a file that is `level` levels below the first one. Raises TooDeep."""
        depth = self._known.get(digest)
        if depth is None:
            depth = 0
            needs = self._db.execute(_NEEDS, (self._package, digest)).fetchmany(self._left + 1)
            self._left -= len(needs)
            if self._left < 0:
                raise TooDeep(f"what it needs, and what that needs in turn, are more than {MAX_BELOW} files")
            for below, nests in needs:
                depth = max(depth, 1 + (self.of(below, level + 1) if nests and level < MAX_DEPTH else nests))
            self._known[digest] = depth
        if level + depth > MAX_DEPTH:
            raise TooDeep(f"it nests deeper than {MAX_DEPTH} levels")
        return depth


def _demand(db: sqlite3.Connection, repository: str, needs: Iterable[Need]) -> None:
    """Raise Incomplete unless everything that must be there is, in the size that is said."""
    lacks: list[tuple[Need, int | None]] = []
    for need in needs:
        sizes = [row[3] for path in need.paths for row in db.execute(_FILE, (repository, path)).fetchall()]
        if need.paths and not sizes:
            lacks.append((need, None))
        elif sizes and need.size is not None and need.size not in sizes:
            lacks.append((need, sizes[0]))
    if lacks:
        raise Incomplete(tuple(lacks))


def _kept(db: sqlite3.Connection, record: FileRecord) -> FileRecord | None:
    """What the record's path holds now: its digest and when it came count."""
    for _, _, digest, size, created in db.execute(_FILE, (record.repository, record.path)).fetchall():
        return changed(record, digest=as_digest(digest), size=size, created=created)
    return None


def _since(record: FileRecord, kept: FileRecord | None) -> FileRecord:
    same = kept is not None and kept.digest == record.digest
    return changed(record, created=kept.created) if kept is not None and same else record


class _Gone(Struct, frozen=True):
    """What went in one transaction; `more` has still to go."""

    tags: tuple[str, ...]
    needed_by: int = 0
    more: bool = False


def _withdraw(
    db: sqlite3.Connection, repository: str, path: str, version: str, beside: tuple[str, ...]
) -> _Gone | None:
    rows = db.execute(_FILE, (repository, path)).fetchall()
    if not rows:
        return None
    ((file, package, digest, _, _),) = rows
    tags: list[tuple[str, int]] = []
    if version := digest if beside else version:
        tags = db.execute(_TAGS_OF_VERSION, (package, version, _TAGS_TOGETHER + 1)).fetchall()
        more = len(tags) > _TAGS_TOGETHER
        del tags[_TAGS_TOGETHER:]
        db.executemany("DELETE FROM files WHERE id = ?", ((own,) for _, own in tags))
        if more:
            return _Gone(tuple(tag for tag, _ in tags), more=True)
        db.execute("DELETE FROM versions WHERE package = ? AND name = ?", (package, version))
    ((needed_by,),) = db.execute(_NEEDED_BY, (digest, package, file)).fetchall()
    db.execute("DELETE FROM files WHERE id = ?", (file,))
    db.executemany("DELETE FROM files WHERE package = ? AND path = ?", ((package, other) for other in beside))
    forget_empty(db, package)
    return _Gone(tuple(tag for tag, _ in tags), needed_by)
