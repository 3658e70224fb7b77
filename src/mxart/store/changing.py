"""Changes that are decided within their transaction: the catalog's role `Changes` in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from mxart.store.base import FileRecord, VersionRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.changes import HELD, Change, Child, Decide, Seen, View
from mxart.store.published import Vanished
from mxart.store.quotas import UNLIMITED, Ask, Quotas
from mxart.store.rows import RECORDS, as_digest, as_record, forget_empty, put_file, put_tag

_FILE = f"{RECORDS} WHERE r.name = ? AND f.path = ?"
_LAST = "\U0010ffff"  # and "0" comes after "/"
_BELOW = f"""
    {RECORDS} WHERE r.name = ? AND f.path >= ? AND f.path < ?
        AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)
    ORDER BY f.path"""  # noqa: S608  # of our own words
_NEXT = f"{_BELOW} LIMIT 1"
_PACKAGE = "(SELECT p.id FROM packages p JOIN repositories r ON r.id = p.repository WHERE r.name = ? AND p.name = ?)"
_TAG = f"""
    SELECT t.name, v.digest, f.created FROM tags t JOIN versions v ON v.id = t.version JOIN files f ON f.id = t.file
    WHERE t.package = {_PACKAGE} AND t.name = ?"""  # noqa: S608  # as above
_TAGS = _TAG.removesuffix("AND t.name = ?") + "ORDER BY t.name"
_HAS_PACKAGE = f"SELECT 1 FROM packages WHERE id = {_PACKAGE}"  # noqa: S608  # as above
_NOTES = """
    SELECT n.key, n.value FROM notes n JOIN repositories r ON r.id = n.repository WHERE r.name = ? AND n.path = ?
    ORDER BY n.key"""
_PUT_NOTE = """
    INSERT INTO notes (repository, path, key, value) VALUES ((SELECT id FROM repositories WHERE name = ?), ?, ?, ?)
    ON CONFLICT (repository, path, key) DO UPDATE SET value = excluded.value"""
_DROP_NOTE = """
    DELETE FROM notes WHERE repository = (SELECT id FROM repositories WHERE name = ?) AND path = ? AND key = ?"""
_DROP_FILE = """
    DELETE FROM files WHERE repository = (SELECT id FROM repositories WHERE name = ?) AND path = ? RETURNING package"""
# A tag that has moved leaves a version behind, unless another one points there.
_LEFT = f"SELECT version FROM tags WHERE package = {_PACKAGE} AND name = ?"  # noqa: S608  # as above
_LEFT_BY_FILE = """
    SELECT t.version FROM tags t JOIN files f ON f.id = t.file JOIN repositories r ON r.id = f.repository
    WHERE r.name = ? AND f.path = ?"""
_DROP_LEFT = "DELETE FROM versions WHERE id = ? AND NOT EXISTS (SELECT 1 FROM tags WHERE version = versions.id)"


class SqliteView:
    """`View` over whatever answers questions: a connection within a transaction, or the loop's own."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def file(self, repository: str, path: str) -> FileRecord | None:
        rows = self._ask(_FILE, (repository, path))
        return as_record(rows[0]) if rows else None

    def below(self, repository: str, folder: str) -> list[FileRecord]:
        after, before = (f"{folder}/", f"{folder}0") if folder else ("", _LAST)
        return [as_record(row) for row in self._ask(_BELOW, (repository, after, before))]

    def tag(self, repository: str, package: str, name: str) -> VersionRecord | None:
        rows: list[tuple[str, str, float]] = self._ask(_TAG, (repository, package, name))
        return VersionRecord(rows[0][0], as_digest(rows[0][1]), rows[0][2]) if rows else None

    def tags(self, repository: str, package: str) -> list[VersionRecord]:
        rows: list[tuple[str, str, float]] = self._ask(_TAGS, (repository, package))
        return [VersionRecord(name, as_digest(digest), created) for name, digest, created in rows]

    def children(
        self, repository: str, folder: str, after: Child | None = None, limit: int | None = None
    ) -> list[Child]:
        start, before = (f"{folder}/", f"{folder}0") if folder else ("", _LAST)
        found: list[Child] = []
        at = start if after is None else _behind(start, after)
        # What lies below a folder is jumped over: a question for each name, however many files there are.
        while len(found) != limit and (rows := self._ask(_NEXT, (repository, at, before))):
            record = as_record(rows[0])
            name, slash, _ = record.path.removeprefix(start).partition("/")
            found.append(Child(name, record.package, None if slash else record))
            at = _behind(start, found[-1])
        return found

    def has_package(self, repository: str, package: str) -> bool:
        return bool(self._ask(_HAS_PACKAGE, (repository, package)))

    def notes(self, repository: str, path: str) -> dict[str, str]:
        return dict(self._ask(_NOTES, (repository, path)))


class SqliteChanges:
    """`Changes` (store.changes) in the catalog's database."""

    def __init__(self, catalog: SqliteCatalog, quotas: Quotas = UNLIMITED) -> None:
        self._catalog = catalog
        self._quotas = quotas

    def view(self) -> View:
        return SqliteView(self._catalog.ask)

    def look(self, read: Callable[[View], Seen]) -> Seen:
        with self._catalog.one_moment():
            return read(self.view())

    async def change(self, decide: Decide, ensure: Callable[[], bool]) -> Change:
        def work(db: sqlite3.Connection) -> Change:
            def ask(statement: str, values: tuple[str | float, ...]) -> list[Any]:
                return db.execute(statement, values).fetchall()

            view = SqliteView(ask)
            change = decide(view)
            if change.files and not ensure():
                raise Vanished("what was to be named is not in the store any more")
            names = {record.repository.partition(HELD)[0] for record in change.files}
            held = {name: self._quotas.held(ask, name) for name in names}
            _apply(db, view, change)
            for name, before in held.items():
                self._quotas.check(ask, name, before)
            return change

        return await self._catalog.write(work)


def _apply(db: sqlite3.Connection, view: SqliteView, change: Change) -> None:
    packages: set[int] = set()
    left: set[int] = set()
    for place in change.gone:
        left.update(version for (version,) in db.execute(_LEFT_BY_FILE, place).fetchall())
        packages.update(package for (package,) in db.execute(_DROP_FILE, place).fetchall())
    for record in change.files:
        put_file(db, _since(view, record))
    for tag, record in change.tags:
        left.update(version for (version,) in db.execute(_LEFT, (record.repository, record.package, tag)).fetchall())
        put_tag(db, tag, _since(view, record))
    db.executemany(_DROP_LEFT, ((version,) for version in left))
    for package in packages:
        forget_empty(db, package)
    for note in change.notes:
        if note.value:
            db.execute("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING", (note.repository,))
            db.execute(_PUT_NOTE, (note.repository, note.path, note.key, note.value))
        else:
            db.execute(_DROP_NOTE, (note.repository, note.path, note.key))


def _behind(start: str, child: Child) -> str:
    """Where what comes after a name right below `start` begins."""
    return f"{start}{child.name}{'0' if child.record is None else chr(0)}"


def _since(view: SqliteView, record: FileRecord) -> FileRecord:
    kept = view.file(record.repository, record.path)
    same = kept is not None and kept.digest == record.digest
    return replace(record, created=kept.created) if kept is not None and same else record
