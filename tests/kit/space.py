"""A data directory with repositories in it, as a worker fills it and as whoever gives space back finds it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kit.store import some_bytes
from mxart.digest import Digest
from mxart.store.base import FileRecord
from mxart.store.blobs import DiskBlobs
from mxart.store.catalog import SqliteCatalog
from mxart.store.generation import Generation
from mxart.store.paths import DataPaths, StorePaths
from mxart.store.publications import SqlitePublications
from mxart.store.published import Need, Publication, Referrer
from mxart.store.space.ledger import Ledger
from mxart.store.space.task import Member, Task

DAY = 24 * 3600.0
NOW = 1_700_000_000.0  # what these tests call now
OLD = NOW - 30 * DAY

OWN = Member("own", "default", part="blobs")
CACHE = Member("cache", "default")


class Warehouse:
    """Repositories and stores below one folder, with a worker's way to write. Everything in it is `age` old."""

    def __init__(
        self,
        data: Path,
        members: Sequence[Member] = (OWN, CACHE),
        stores: Sequence[str] = ("default",),
        slot: int = 1,
    ) -> None:
        self.paths = DataPaths(data)
        self.paths.create()
        self.members = tuple(members)
        self.places = {
            name: StorePaths(self.paths.store if name == "default" else data / f"store-{name}") for name in stores
        }
        for place in self.places.values():
            place.create()
        self.generation = Generation.open(self.paths.generation, 9)
        self._mine = self.generation.slot(slot)
        self.catalog = SqliteCatalog(self.paths.catalog, self._mine)
        self.publications = SqlitePublications(self.catalog)
        self.blobs = {name: DiskBlobs(place) for name, place in self.places.items()}

    def close(self) -> None:
        self.catalog.close()
        self._mine.close()
        self.generation.close()

    def task(self, *, grace: float = DAY, dry_run: bool = False) -> Task:
        return Task(
            catalog=str(self.paths.catalog),
            generation=str(self.paths.generation),
            lock=str(self.paths.gc),
            stores={name: str(place.root) for name, place in self.places.items()},
            members=self.members,
            grace=grace,
            dry_run=dry_run,
        )

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        generation = Generation.outside(self.paths.generation)
        ledger = Ledger(self.paths.catalog, generation, self.members)
        try:
            yield ledger
        finally:
            ledger.close()
            generation.close()

    def store_of(self, repository: str) -> str:
        return next((member.store for member in self.members if member.name == repository), "default")

    # Filling

    async def put(self, data: bytes, *, store: str = "default", at: float = OLD) -> Digest:
        """A file without a name, as a push that was broken off leaves it."""
        digest = await self.blobs[store].put(data)
        with suppress(FileNotFoundError):  # collected already
            os.utime(self.places[store].blob(digest), (at, at))
        return digest

    async def push_blob(self, data: bytes, package: str = "app", *, repository: str = "own", at: float = OLD) -> Digest:
        """An acknowledged layer."""
        store = self.store_of(repository)
        digest = await self.put(data, store=store, at=at)
        record = FileRecord(
            repository, package, f"{package}/blobs/{digest}", digest, len(data), "application/octet-stream", created=at
        )
        await self.publications.publish(Publication(record), lambda: self.blobs[store].has(digest))
        return digest

    async def push_manifest(
        self,
        data: bytes,
        layers: Sequence[Digest] = (),
        package: str = "app",
        *,
        repository: str = "own",
        tags: Sequence[str] = (),
        manifests: Sequence[Digest] = (),
        subject: Digest | None = None,
        at: float = OLD,
    ) -> Digest:
        """An acknowledged manifest that needs what was pushed before."""
        store = self.store_of(repository)
        digest = await self.put(data, store=store, at=at)
        record = FileRecord(
            repository, package, f"{package}/manifests/{digest}", digest, len(data), "application/json", created=at
        )
        needs = [Need(layer, None, (f"{package}/blobs/{layer}",)) for layer in layers]
        needs += [Need(child, None, (f"{package}/manifests/{child}",)) for child in manifests]
        publication = Publication(
            record,
            tuple((tag, f"{package}/manifests/{tag}") for tag in tags),
            tuple(needs),
            referrer=None if subject is None else Referrer(subject, "a/b", b"{}"),
            nests=bool(manifests),
        )
        await self.publications.publish(publication, lambda: self.blobs[store].has(digest))
        return digest

    async def push_image(
        self, name: str, package: str = "app", *, repository: str = "own", layers: int = 2, at: float = OLD
    ) -> list[Digest]:
        """A manifest, tagged, and its layers: the digests, the manifest's first."""
        data = [some_bytes(1000 + number, seed=hash_of(f"{name}{number}")) for number in range(layers)]
        digests = [await self.push_blob(item, package, repository=repository, at=at) for item in data]
        manifest = await self.push_manifest(
            f"manifest of {name}".encode(), digests, package, repository=repository, tags=[name], at=at
        )
        return [manifest, *digests]

    # Looking

    def has(self, digest: Digest, store: str = "default") -> bool:
        return os.path.exists(self.places[store].blob(digest))

    def on_disk(self, store: str = "default") -> int:
        return sum(len(files) for _, _, files in os.walk(self.places[store].blobs))

    def names(self, repository: str = "own") -> set[str]:
        rows = self.catalog.ask(
            "SELECT f.path FROM files f JOIN repositories r ON r.id = f.repository WHERE r.name = ?", (repository,)
        )
        return {path for (path,) in rows}

    def check(self) -> None:
        """What must hold at every moment: no row of `own` dangles, and every manifest has all it links."""
        rows = self.catalog.ask("SELECT r.name, f.digest FROM files f JOIN repositories r ON r.id = f.repository", ())
        for repository, digest in rows:
            if repository != "cache":
                assert self.has(Digest.parse(digest), self.store_of(repository)), f"{repository} {digest} dangles"
        broken = self.catalog.ask(
            "SELECT m.path, l.digest FROM links l JOIN files m ON m.id = l.file WHERE NOT EXISTS"
            " (SELECT 1 FROM files f WHERE f.package = m.package AND f.digest = l.digest)",
            (),
        )
        assert broken == []

    def counted_right(self) -> bool:
        with self.ledger() as ledger:
            return not ledger.recount()


def hash_of(text: str) -> int:
    return int(Digest.of(text.encode()).hex[:8], 16)
