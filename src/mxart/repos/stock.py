"""Where the kinds keep things: blobs, their names, and the small files that are served from memory.

`Memory` remembers finished answers of small files, whole, and the heads of large ones.  An answer is valid while
the catalog's generation has not moved and its own time has not run out; after a move of the generation only the
name is looked up again, and the bytes are used further if it still means the same digest.
"""

from __future__ import annotations

from collections import OrderedDict
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache

from msgspec import Struct, field
from msgspec.structs import replace

from mxart.body import Body, Source
from mxart.digest import Digest
from mxart.message import Headers, Response
from mxart.repos.base import Format
from mxart.repos.behind import Behind
from mxart.repos.operations import Artifact, Document, Facts, File, Found
from mxart.store.base import Blobs, Catalog, FileRecord, Transfers, Turns, Uploads
from mxart.store.changes import Changes
from mxart.store.published import Publications

# Above this a document is refused; registries must take 4 MiB (distribution-spec, "Pushing Manifests").
MAX_DOCUMENT = 8 << 20
# A file up to this size is remembered whole.
SMALL = 64 << 10
# A remembered file's last use is told to the catalog this often, in seconds.
_NOTE_USE = 60.0
_ENTRY_COST = 1024
_MAX_DATE = 64  # characters; longer ones are none (RFC 9110 section 5.6.7)
_FOREVER = float("inf")
_LASTING = "max-age=31536000, immutable"
_MOVING = "no-cache"


class _Entry(Struct):
    """`data` None: of a large file, whose bytes are opened for each answer."""

    found: Found
    data: bytes | None
    generation: int
    until: float
    noted: float

    @property
    def cost(self) -> int:
        """Bytes in memory, more or less."""
        return len(self.data or b"") + _ENTRY_COST


class Memory:
    """Small files, and heads of large ones, least recently used out first. One for all repositories of a worker."""

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max = max_bytes
        self._held = 0
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def get(self, key: tuple[str, str]) -> _Entry | None:
        """An entry, whether it is still valid or not."""
        return self._entries.get(key)

    def touch(self, key: tuple[str, str]) -> None:
        """Make an entry the most recently used."""
        self._entries.move_to_end(key)

    def put(self, key: tuple[str, str], entry: _Entry) -> None:
        """Remember, and forget what no longer fits."""
        self.drop(key)
        self._entries[key] = entry
        self._held += entry.cost
        while self._held > self._max:
            _, oldest = self._entries.popitem(last=False)
            self._held -= oldest.cost

    def drop(self, key: tuple[str, str]) -> None:
        """Forget."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held -= entry.cost


class Stock(Struct, frozen=True):
    """The parts of the store that a repository uses."""

    blobs: Blobs
    transfers: Transfers
    catalog: Catalog
    publications: Publications
    changes: Changes
    uploads: Uploads
    turns: Turns
    memory: Memory = field(default_factory=Memory)
    behind: Behind = field(default_factory=Behind)


def etag_of(digest: Digest) -> str:
    """The entity tag of a file."""
    return f'"{digest}"'


def _http_date(upstream: str, created: float) -> str:
    """Upstream's date where it is one, else when the bytes were first seen here."""
    if len(upstream) > _MAX_DATE:
        return _dated("", created)
    return _dated(upstream, created)


@lru_cache(maxsize=4096)  # a file that is served again and again has one date; reading and writing it are slow
def _dated(upstream: str, created: float) -> str:
    seconds = seconds_of(upstream) or created
    return formatdate(seconds, usegmt=True) if seconds else ""


def seconds_of(date: str) -> float:
    """An HTTP date in seconds since the epoch; 0 for what is none."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else 0.0
    except (ValueError, OverflowError):
        return 0.0


def moving(found: Found, warning: str = "") -> Found:
    """A file under a name that may stand for another one tomorrow."""
    items = [(name, value.replace(_LASTING, _MOVING)) for name, value in found.headers]
    if warning and not found.stale:
        items.append(("warning", warning))
    return replace(found, headers=Headers.lowered(tuple(items)), ready=None, stale=found.stale or bool(warning))


class Known(Struct, frozen=True):
    """A name's record, and the catalog's generation in which it was read."""

    record: FileRecord
    generation: int


class Shelf:
    """What one repository keeps: looks up, opens, remembers, describes.

    `private`: not for everybody who can ask, so no cache that several people share may keep an answer.
    """

    def __init__(
        self,
        repository: str,
        format: Format,  # noqa: A002 the word of the house
        stock: Stock,
        *,
        private: bool = False,
    ) -> None:
        self._repository = repository
        self._format = format
        self._stock = stock
        # RFC 9111 section 3.5 has caches keep no answer to credentials anyway; not all of them go by that.
        self._lasting, self._moving = _LASTING, _MOVING
        if private:
            self._lasting, self._moving = f"private, {self._lasting}", f"private, {self._moving}"

    def remembered(self, operation: File, now: float) -> Found | None:
        """A valid answer from memory: the fast path, a few microseconds, and some more where a file is opened."""
        key = (self._repository, operation.path)
        memory = self._stock.memory
        entry = memory.get(key)
        if entry is None or now >= entry.until or entry.generation != self._stock.catalog.generation():
            return None
        found = entry.found if entry.data is not None else self._opened(operation, entry.found)
        if found is None:
            return None
        memory.touch(key)
        if now - entry.noted > _NOTE_USE:
            entry.noted = now
            self._stock.catalog.used(self._repository, operation.path, now)
        return found

    def look(self, path: str) -> Known | None:
        """What the name means, if it is known here."""
        # The generation first: what changes after it must make a remembered answer invalid.
        generation = self._stock.catalog.generation()
        record = self._stock.catalog.file(self._repository, path)
        return None if record is None else Known(record, generation)

    async def take(
        self, operation: File, known: Known, now: float, until: float = _FOREVER, warning: str = ""
    ) -> Found | None:
        """Open what a name means; None if its bytes are not here (any more).

        It is remembered until `until`.  A document's content is always bytes; a large file is not opened for its head.
        """
        record = known.record
        key = (self._repository, operation.path)
        entry = self._stock.memory.get(key)
        content: bytes | None = None
        if entry is not None and entry.data is not None and entry.found.digest == record.digest:
            content = entry.data
        elif isinstance(operation, Document):
            content = await self._stock.blobs.read(record.digest, MAX_DOCUMENT)
        elif record.size <= SMALL:
            content = await self._stock.blobs.read(record.digest, SMALL)
        large = not isinstance(operation, Document) and record.size > SMALL
        if content is None and not large:
            return None
        size = record.size if content is None else len(content)
        found = self.describe(operation, record, content, size=size, warning=warning, now=now)
        answer = self._opened(operation, found) if content is None else found
        if answer is None:
            return None
        self._stock.catalog.used(self._repository, operation.path, now)
        if until > now and (content is None or size <= SMALL * 16):
            self._stock.memory.put(key, _Entry(found, content, known.generation, until, now))
        return answer

    def _opened(self, operation: File, found: Found) -> Found | None:
        """A large file as it is remembered, with its bytes, unless only its head is asked for; None: they are gone."""
        digest = found.digest
        assert digest is not None, "it is kept"
        if operation.head:
            return found if self._stock.blobs.has(digest) else None
        source = self._stock.blobs.open(digest)
        return replace(found, content=source) if source is not None else None

    def describe(
        self,
        operation: File,
        record: FileRecord,
        content: bytes | Source | None,
        *,
        size: int | None,
        warning: str = "",
        now: float = 0.0,
    ) -> Found:
        """A file with the header fields that it is answered with. `warning` makes it stale, as of `now`."""
        last_modified = _http_date(record.last_modified, record.created)
        # RFC 7234 section 5.5. A fresh copy shows no Age: it would make every second's answer a new one,
        # and with no-cache nobody computes with it.
        age = (("warning", warning), ("age", str(max(0, int(now - record.validated))))) if warning else ()
        return self._answer(operation, record, last_modified, content, size, age)

    def announce(self, artifact: Artifact, facts: Facts, content: Source | None, size: int | None) -> Found:
        """One that is not kept, by what upstream says of it: nobody need know its digest yet."""
        last_modified = _http_date(facts.last_modified, 0.0)
        return self._answer(artifact, facts, last_modified, content, size, ())

    def _answer(
        self,
        operation: File,
        known: FileRecord | Facts,
        last_modified: str,
        content: bytes | Source | None,
        size: int | None,
        age: tuple[tuple[str, str], ...],
    ) -> Found:
        digest = known.digest
        etag = etag_of(digest) if digest is not None else ""
        mutable = isinstance(operation, Document) and operation.mutable
        fields = [
            *self._format.fields(operation, digest, known.media_type, known.checksum),
            ("cache-control", self._moving if mutable else self._lasting),
        ]
        if etag:
            fields.append(("etag", etag))
        if last_modified:
            fields.append(("last-modified", last_modified))
        if size is not None:
            fields.append(("accept-ranges", "bytes"))
        fields += age
        headers = Headers.lowered(tuple(fields))
        return Found(
            digest=digest,
            size=size,
            content=content,
            headers=headers,
            etag=etag,
            last_modified=last_modified,
            stale=bool(age),
            ready=Response(200, headers, Body((content,))) if isinstance(content, bytes) else None,
            checksum=known.checksum,
        )
