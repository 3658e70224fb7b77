"""The kind `local`: what was published here, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from mxart.digest import Digest
from mxart.errors import NotFound, Problem
from mxart.message import Trace
from mxart.repos.base import Format
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.directories import entries
from mxart.repos.indexes import Indexes
from mxart.repos.local_publishing import LocalPublisher
from mxart.repos.operations import (
    Blob,
    Descriptor,
    Directory,
    Document,
    Entry,
    File,
    Found,
    Index,
    Indexed,
    Listed,
    Listing,
    Referred,
    Referrers,
)
from mxart.repos.publishing import Publisher, Registrar
from mxart.repos.referring import MAX_PAGE
from mxart.repos.roles import having
from mxart.repos.stock import Shelf, Stock
from mxart.store.base import FileRecord

_STEP = 10_000
_MAX_OWNED = 10_000
_RELIANCE = 600.0  # seconds; far less than anybody's grace


class Local:
    """A repository that is its own truth. `lends`, `max_upload`, `staging`, `registrar`: see LocalPublisher."""

    site = ""

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        stock: Stock,
        clock: Callable[[], float] = time.time,
        lends: Callable[[str], bool] = lambda repository: False,
        max_upload: int | None = None,
        *,
        staging: bool = False,
        registrar: Registrar | None = None,
        reserved: Callable[[str], bool] | None = None,
    ) -> None:
        """`reserved` tells packages that are its own although none of them is published yet."""
        self.name = name
        self._reserved = reserved
        self.format = format
        self._stock = stock
        self._clock = clock
        self._shelf = Shelf(name, format, stock)
        self._publisher = LocalPublisher(
            name, format, stock, clock, lends, max_upload, staging=staging, registrar=registrar
        )
        self._relied: dict[str, float] = {}  # when that was last written
        # Groups ask at every request; the answers hold until the catalog changes.
        self._owned: dict[str, bool] = {}
        self._generation: int | None = None
        self._indexes = Indexes()

    def begun(self, package: str) -> bool:
        return self._stock.publications.begun(self.name, package)

    def owns(self, package: str) -> bool:
        if self._reserved is not None and self._reserved(package):
            return True
        generation = self._stock.catalog.generation()
        if generation != self._generation or len(self._owned) >= _MAX_OWNED:
            self._owned.clear()
            self._generation = generation
        owned = self._owned.get(package)
        if owned is None:
            owned = self._owned[package] = self._published(package)
        return owned

    def _holds(self, package: str) -> bool:
        return self._stock.catalog.has_package(self.name, package)

    def _published(self, package: str) -> bool:
        referring = self.format.referring
        if referring is None:
            return self._holds(package)
        return self._stock.publications.owned(self.name, package, referring.companions)

    @property
    def reaches(self) -> bool:
        """It has everything here."""
        return False

    def keeps(self, paths: Sequence[str]) -> bool:
        """Never: what is published here is owned, which says more."""
        return False

    async def admit(self, caller: Caller, trace: Trace) -> None:
        """No upstream asks for a login."""

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        trace.outcome = "local"
        now = self._clock()
        found = self._shelf.remembered(operation, now) or await self._find(operation, trace, now)
        if isinstance(operation, Blob) and operation.head and not await self._relied_on(operation, now):
            found.close()
            raise self._not_found(operation)
        return found

    async def _find(self, operation: File, trace: Trace, now: float) -> Found:
        for _ in range(2):  # it may be deleted, and swept, after it was looked up
            known = self._shelf.look(operation.path)
            if known is None:
                made = await self._made(operation, trace, now) if isinstance(operation, Document) else None
                if made is not None:
                    return made
                raise self._not_found(operation)
            found = await self._shelf.take(operation, known, now)
            if found is not None:
                return found
        # Published, and lost: anything but "not found" (that would be a lie that builds act on).
        raise Problem(f"the bytes of {operation.path} are missing from the store", subject=operation.subject)

    def _not_found(self, operation: File) -> NotFound:
        if not self._holds(operation.package):
            return NotFound(f"{self.name} has no {operation.package}", subject="name")
        return NotFound(f"{self.name} has no {operation.path}", subject=operation.subject)

    async def _relied_on(self, blob: Blob, now: float) -> bool:
        """Who asks whether a blob is here goes on to publish something that needs it, and sends no bytes of it.

        So this use is on disk before he is told: nobody sweeps it as unused meanwhile.  False: somebody just has.
        """
        if now - self._relied.get(blob.path, -_RELIANCE) < _RELIANCE:
            return True
        if not await self._stock.publications.rely(self.name, blob.path, now):
            return False
        if len(self._relied) >= _MAX_OWNED:
            self._relied.clear()
        self._relied[blob.path] = now
        return True

    async def index(self, operation: Index, trace: Trace, caller: Caller = NOBODY) -> Indexed:
        trace.outcome = "local"
        # The generation first: what changes after it must make what is composed now invalid.
        generation = self._stock.catalog.generation()
        remembered = self._indexes.get(operation.path, generation)
        made = remembered[0] if remembered is not None else self._compose(operation, generation)
        if made is None:
            raise NotFound(f"{self.name} has no {operation.path}", subject=operation.subject)
        return made

    def _compose(self, operation: Index, generation: int) -> Indexed | None:
        compose = having(self.format.indexing).compose
        composed = self._stock.changes.look(lambda view: compose(operation, view, self.name))
        made = Indexed(composed[0], modified=composed[1]) if composed is not None else None
        return self._indexes.put(operation.path, generation, made)

    async def directory(self, operation: Directory, trace: Trace, caller: Caller = NOBODY) -> Sequence[Entry]:
        trace.outcome = "local"
        return await entries(self._stock, self.name, operation, caller.grants)

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        trace.outcome = "local"
        if operation.of == "tags" and not self._holds(operation.package):
            raise NotFound(f"{self.name} has no {operation.package}", subject="name")
        names: list[str] = []
        after = operation.after
        while True:
            # One more than wanted tells whether there are more.
            step = _STEP if operation.limit is None else min(_STEP, operation.limit + 1 - len(names))
            part = self._part(operation, after, step)
            names += part
            if len(part) < step:
                return Listed(names, more=False)
            if operation.limit is not None and len(names) > operation.limit:
                return Listed(names[: operation.limit], more=True)
            after = part[-1]

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        trace.outcome = "local"
        publications = self._stock.publications
        key = (self.name, operation.package, str(operation.digest), operation.artifact_type)
        limit = _STEP if operation.limit is None else min(operation.limit, _STEP)
        records = publications.referrers(*key, operation.after, limit, MAX_PAGE)
        more = bool(records) and bool(publications.referrers(*key, str(records[-1].digest), 1))
        return Referred(
            [Descriptor(item.digest, item.size, item.media_type, item.artifact_type, item.json) for item in records],
            more=more,
        )

    async def _made(self, document: Document, trace: Trace, now: float) -> Found | None:
        """What is not kept under its name, but follows from what is."""
        return await (self._best(document, now) if document.chosen else self._listed(document, trace))

    async def _best(self, document: Document, now: float) -> Found | None:
        """What stands for the best version."""
        generation = self._stock.catalog.generation()
        versions = self._all(document.package)
        choosing = having(self.format.choosing)
        guide = choosing.guide(document, versions)
        if guide is None:
            return None
        known = self._shelf.look(guide.path)
        found = await self._shelf.take(guide, known, now) if known is not None else None
        said = found.content if found is not None and isinstance(found.content, bytes) else b""
        best = self._shelf.look(choosing.best(document, versions, said).path)
        if best is None:
            return None
        return await self._shelf.take(document, replace(best, generation=generation), now)

    def _all(self, package: str) -> list[str]:
        names: list[str] = []
        while part := self._stock.publications.tag_names(self.name, package, names[-1] if names else "", _STEP):
            names += part
        return names

    async def _listed(self, document: Document, trace: Trace) -> Found | None:
        """A list of referrers under the name that stands in for it, for clients that do not ask for referrers."""
        referring = self.format.referring
        operation = referring.fallback(document) if referring is not None else None
        if referring is None or operation is None:
            return None
        referred = await self.referrers(operation, trace)
        if not referred.descriptors:
            return None
        headers, data = referring.render(operation, referred, "")
        media_type = headers.get("content-type") or ""
        record = FileRecord(self.name, document.package, document.path, Digest.of(data), len(data), media_type)
        return self._shelf.describe(document, record, data, size=len(data))

    def publishers(self) -> Sequence[Publisher]:
        return (self._publisher,)

    def _part(self, operation: Listing, after: str, limit: int) -> list[str]:
        if operation.of == "packages":
            return self._stock.catalog.packages(self.name, after, limit)
        return self._stock.publications.tag_names(self.name, operation.package, after, limit)
