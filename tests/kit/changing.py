"""An in-memory stand-in for changes that are decided by what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from mxart.store.base import FileRecord, VersionRecord
from mxart.store.changes import Change, Child, Decide, Seen, View
from mxart.store.published import Vanished

if TYPE_CHECKING:
    from kit.repos import FakeCatalog


class FakeView:
    """`View` over a FakeCatalog."""

    def __init__(self, catalog: FakeCatalog, said: dict[tuple[str, str], dict[str, str]]) -> None:
        self._catalog = catalog
        self._said = said

    def file(self, repository: str, path: str) -> FileRecord | None:
        return self._catalog.files.get((repository, path))

    def below(self, repository: str, folder: str) -> list[FileRecord]:
        start = f"{folder}/" if folder else ""
        own = {(name, f"{package}/{tag}") for (name, package), tags in self._catalog.tag_names.items() for tag in tags}
        found = [
            record
            for key, record in self._catalog.files.items()
            if key[0] == repository and key[1].startswith(start) and key not in own
        ]
        return sorted(found, key=lambda record: record.path)

    def tag(self, repository: str, package: str, name: str) -> VersionRecord | None:
        return self._catalog.tag_names.get((repository, package), {}).get(name)

    def tags(self, repository: str, package: str) -> list[VersionRecord]:
        tags = self._catalog.tag_names.get((repository, package), {})
        return [tags[name] for name in sorted(tags)]

    def children(
        self, repository: str, folder: str, after: Child | None = None, limit: int | None = None
    ) -> list[Child]:
        start = f"{folder}/" if folder else ""
        found: dict[str, Child] = {}
        for record in self.below(repository, folder):
            name, slash, _ = record.path.removeprefix(start).partition("/")
            found.setdefault(name, Child(name, record.package, None if slash else record))
        ordered = list(found.values())  # as their paths are
        first = 0 if after is None else ordered.index(after) + 1
        return ordered[first:][:limit]

    def has_package(self, repository: str, package: str) -> bool:
        return self._catalog.has_package(repository, package)

    def notes(self, repository: str, path: str) -> dict[str, str]:
        return dict(self._said.get((repository, path), {}))


class FakeChanges:
    """`Changes` over a FakeCatalog; a tag's own record has to lie at the package's path and the tag."""

    def __init__(self, catalog: FakeCatalog) -> None:
        self._catalog = catalog
        self.said: dict[tuple[str, str], dict[str, str]] = {}
        self.made: list[Change] = []

    def view(self) -> View:
        return FakeView(self._catalog, self.said)

    def look(self, read: Callable[[View], Seen]) -> Seen:
        return read(self.view())

    async def change(self, decide: Decide, ensure: Callable[[], bool]) -> Change:
        await trio.lowlevel.checkpoint()
        change = decide(self.view())
        if change.files and not ensure():
            raise Vanished("not in the store")
        for repository, path in change.gone:
            self._catalog.files.pop((repository, path), None)
            package, _, tag = path.rpartition("/")
            self._catalog.tag_names.get((repository, package), {}).pop(tag, None)
        for record in change.files:
            self._put(record)
        for tag, record in change.tags:
            self._put(record)
            tags = self._catalog.tag_names.setdefault((record.repository, record.package), {})
            tags[tag] = VersionRecord(tag, record.digest, record.created)
        for note in change.notes:
            said = self.said.setdefault((note.repository, note.path), {})
            if note.value:
                said[note.key] = note.value
            else:
                said.pop(note.key, None)
        self._catalog.writes += 1
        self.made.append(change)
        return change

    def _put(self, record: FileRecord) -> None:
        kept = self._catalog.files.get((record.repository, record.path))
        if kept is not None and kept.digest == record.digest:
            record = replace(record, created=kept.created)
        self._catalog.files[record.repository, record.path] = record
