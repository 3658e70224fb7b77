"""Versions that are made of files which come one by one, in requests that know nothing of each other.

Theory of operation
-------------------
A client that deploys a version sends its files, a checksum for each, and lists of what there is then; nothing tells
its server when it is done.  So each file is published as it comes, in one transaction of its own in which the format
says what follows from it (roles.Assembling).  Lists and checksums are never kept: ours are computed from the files, so
that they are right at every moment.  What a client says in them is compared with that, or, where no file tells it,
noted.

Most of it is small: a checksum is forty bytes.  What says nothing new costs no transaction, and nothing on disk.
A small file goes from memory to its place, without an upload; a large one comes in an upload, as any does.

Before anything is put on disk, and again in the transaction, the format looks at what is there.  So who sends the same
again is told that all is well, and who is refused has cost nothing.  Killed before the transaction, there are bytes
without a name, which are swept.

With `staging` a file is published out of sight first, for its user and version: under a repository's name that no
configuration can have.  What the format takes for the end of a deploy moves them all, in one transaction.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from mxart.digest import Digest
from mxart.errors import NotFound, TooLarge, UpstreamUnavailable
from mxart.message import Headers, RequestBody, Trace
from mxart.repos.base import Format
from mxart.repos.bodies import whole
from mxart.repos.callers import Caller
from mxart.repos.publishing import Gone, Heard, Judgement, Release, Released, Remark, Removal, Spot, Write
from mxart.repos.roles import having
from mxart.repos.stock import Stock
from mxart.store.base import FileRecord, Unjudged, Upload
from mxart.store.changes import Change, View, held_name
from mxart.store.published import Vanished

_SMALL = 64 << 10  # bytes of a body that is kept in memory as a whole, and judged without a thread: that costs as much
_CLOSING_SECONDS = 5.0
_TRIES = 3


class Assemblies:
    """Those of one local repository. `max_upload` as for LocalPublisher."""

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        stock: Stock,
        clock: Callable[[], float],
        max_upload: int | None,
        *,
        staging: bool = False,
    ) -> None:
        self._name = name
        self._format = format
        self._stock = stock
        self._clock = clock
        self._max_upload = max_upload
        self._staging = staging

    def _spot(self, caller: Caller) -> Spot:
        return Spot(self._name, self._clock(), held_name(self._name, caller.name) if self._staging else "")

    def suits(self, operation: Write, caller: Caller) -> bool:
        """See Publisher."""
        role, spot = having(self._format.assembling), self._spot(caller)
        return self._stock.changes.look(lambda view: role.suits(operation, view, spot))

    # files

    async def publish(self, operation: Release, body: RequestBody, trace: Trace, caller: Caller) -> Released:
        """See Publisher.write. Raises Conflict if the name has another file; it keeps that."""
        spot = self._spot(caller)
        having(self._format.assembling).admit(operation, self._stock.changes.view(), spot)
        limit = self._limit(operation, body)
        if body.length is not None and body.length <= _SMALL:
            data = await whole(body, limit, partial(_too_large, limit))
            outcome = await self._publish_small(operation, data, spot)
        else:
            outcome = await self._publish_large(operation, body, limit, spot, caller)
        trace.decided("%s: %s", operation.path, "published" if outcome.new else "here already")
        return outcome

    def _limit(self, operation: Release, body: RequestBody) -> int:
        """How many bytes may come. Raises TooLarge, StorageFull before any has."""
        # What is here already needs no room; whether this is the same is known at its end.
        known = self._stock.catalog.file(self._name, operation.path) is not None
        room = self._stock.publications.demand_room(self._name, None, 0 if known else body.length or 0)
        limits = [limit for limit in (operation.most, room, self._max_upload) if limit is not None]
        if body.length is not None and body.length > min(limits):
            raise TooLarge(f"the file has {body.length} bytes; at most {min(limits)} are taken here", subject="size")
        return min(limits)

    async def _publish_small(self, operation: Release, data: bytes, spot: Spot) -> Released:
        digest = Digest.of(data)
        with io.BytesIO(data) as file:
            judgement = self._release(operation, Unjudged(file, len(data), digest, Headers()), spot.now)

        async def store() -> None:
            await self._stock.blobs.put(data, digest)

        return await self._settle(operation, _record(judgement, digest, len(data), spot), store, spot, tries=_TRIES)

    async def _publish_large(
        self, operation: Release, body: RequestBody, limit: int, spot: Spot, caller: Caller
    ) -> Released:
        uploads = self._stock.uploads
        state = await uploads.begin(self._name, operation.package, caller.name)
        async with uploads.open(state.id) as upload:
            try:
                await upload.receive(body, limit)
                return await self._publish_upload(operation, upload, spot)
            finally:
                # Its client does not know that there is one.
                with trio.move_on_after(_CLOSING_SECONDS, shield=True):
                    await upload.discard()

    async def _publish_upload(self, operation: Release, upload: Upload, spot: Spot) -> Released:
        def look(unjudged: Unjudged) -> tuple[Digest, int, Judgement]:
            return unjudged.digest, unjudged.size, self._release(operation, unjudged, spot.now)

        digest, size, judgement = await upload.review(look)

        async def store() -> None:
            await upload.commit(digest)

        return await self._settle(operation, _record(judgement, digest, size, spot), store, spot)

    def _release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        return having(self._format.releasing).release(operation, unjudged, now)

    async def _settle(
        self, operation: Release, record: FileRecord, store: Callable[[], Awaitable[None]], spot: Spot, tries: int = 1
    ) -> Released:
        """Put a file in its place: first the bytes, then the name. Of which name it is, nothing is known before."""
        place = having(self._format.assembling).place

        def decide(view: View) -> Change:
            return place(operation, record, view, spot)

        if not self._stock.changes.look(decide):
            return Released(record.checksum, new=False, digest=record.digest)
        self._stock.publications.demand_room(self._name, record.digest, record.size)
        for _ in range(tries):
            await store()
            try:
                change = await self._stock.changes.change(decide, lambda: self._stock.blobs.has(record.digest))
            except Vanished:
                continue
            path = change.files[0].path if change.files else ""
            return Released(record.checksum, new=bool(change), digest=record.digest, path=path)
        message = f"{operation.path} was swept from the store while it was published; publish it again"
        raise UpstreamUnavailable(message, subject=operation.subject, retry_after=1.0)

    # what is said of them

    async def hear(self, operation: Remark, body: RequestBody, trace: Trace, caller: Caller) -> Heard:
        """See Publisher.write. Raises NotFound and Conflict where it is not true of what is here."""
        role, spot = having(self._format.assembling), self._spot(caller)
        role.admit(operation, self._stock.changes.view(), spot)
        data = await whole(body, operation.most, partial(_too_large, operation.most))
        if len(data) > _SMALL:
            hearing = await trio.to_thread.run_sync(role.hear, operation, data)
        else:
            hearing = role.hear(operation, data)
        allowed = [package for package in hearing.packages if caller.grants.may("publish", self._name, package)]
        for package in (allowed or hearing.packages)[:1]:
            caller.grants.demand("publish", self._name, package)  # refused, or noted for the audit log

        def decide(view: View) -> Change:
            return hearing.decide(view, spot, allowed)

        if not self._stock.changes.look(decide):
            return Heard()
        # What moves into sight has a name already, which keeps its bytes.
        change = await self._stock.changes.change(decide, lambda: True)
        trace.decided("%s: %d files and %d notes follow", operation.path, len(change.files), len(change.notes))
        return Heard(new=bool(change))

    # deleting

    async def remove(self, operation: Removal, trace: Trace, caller: Caller) -> Gone:
        """See Publisher.write. Raises NotFound."""
        role, spot = having(self._format.assembling), self._spot(caller)
        try:
            package, _ = self._stock.changes.look(lambda view: role.remove(operation, view, spot))
        except NotFound:
            # Who may not delete here is not told what there is.
            caller.grants.demand("delete", self._name, operation.package or operation.path)
            raise
        caller.grants.demand("delete", self._name, package)

        def decide(view: View) -> Change:
            found, change = role.remove(operation, view, spot)
            if found != package:
                raise NotFound(f"{operation.path} is another thing by now; look at it, and try again")
            return change

        change = await self._stock.changes.change(decide, lambda: True)
        trace.decided("%s: %d names of %s are gone", operation.path, len(change.gone), package)
        return Gone()


def _record(judgement: Judgement, digest: Digest, size: int, spot: Spot) -> FileRecord:
    return FileRecord(
        spot.repository,
        judgement.package,
        judgement.path,
        digest,
        size,
        judgement.media_type,
        checksum=judgement.checksum,
        created=spot.now,
    )


def _too_large(limit: int, _size: int) -> TooLarge:
    return TooLarge(f"it has more than {limit} bytes, the most that is taken here", subject="size")
