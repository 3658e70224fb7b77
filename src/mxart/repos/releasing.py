"""Files of any size that a format judges as a whole before they are published: a module's zip, say.

Theory of operation
-------------------
The body goes into an upload, hashed as it comes.  When all of it is there a thread judges it, and says what follows
from it: small files, and the version's name.  Nothing of this is known to anybody before one transaction publishes
it all, if nothing is under the name by then; two who publish the same version at once are in order by that.  Killed
before, there is an upload that expires, or bytes without a name, which are swept.  A registrar remembers the version
for ever, right before that transaction: killed in between, it can be published as it was, and not otherwise.

Who is the second is told that all is well if the format holds both files to be the same.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from mxart.digest import Digest
from mxart.errors import Conflict, UpstreamUnavailable
from mxart.message import RequestBody, Trace
from mxart.repos.base import Format
from mxart.repos.callers import Caller
from mxart.repos.publishing import Judgement, Registrar, Release, Released
from mxart.repos.roles import having
from mxart.repos.stock import Stock
from mxart.store.base import FileRecord, Unjudged, Upload
from mxart.store.published import Condition, Publication, Unmet, Vanished

_CLOSING_SECONDS = 5.0


class Releases:
    """Those of one local repository."""

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        stock: Stock,
        clock: Callable[[], float],
        max_upload: int | None,
        registrar: Registrar | None = None,
    ) -> None:
        self._name = name
        self._format = format
        self._stock = stock
        self._clock = clock
        self._max_upload = max_upload
        self._registrar = registrar

    async def publish(self, operation: Release, body: RequestBody, trace: Trace, caller: Caller) -> Released:
        """See Publisher.write. Raises Conflict if the name has another file; it keeps that."""
        uploads = self._stock.uploads
        state = await uploads.begin(self._name, operation.package, caller.name)
        async with uploads.open(state.id) as upload:
            try:
                await self._receive(operation, upload, body)
                outcome = await self._settle(operation, upload, caller)
            finally:
                # Its client does not know that there is one.
                with trio.move_on_after(_CLOSING_SECONDS, shield=True):
                    await upload.discard()
        what = "published" if outcome.new else "here already"
        trace.decided("%s: %s as %s", operation.path or operation.subject, what, outcome.checksum)
        return outcome

    async def _receive(self, operation: Release, upload: Upload, body: RequestBody) -> None:
        demand_room = self._stock.publications.demand_room
        # What is here already needs no room; whether this is the same is known at its end.
        known = operation.path and self._stock.catalog.file(self._name, operation.path) is not None
        room = demand_room(self._name, None, 0 if known else body.length or 0)
        limits = [limit for limit in (operation.most, room, self._max_upload) if limit is not None]
        await upload.receive(body, min(limits))

    async def _settle(self, operation: Release, upload: Upload, caller: Caller) -> Released:
        now = self._clock()
        release = having(self._format.releasing).release

        def look(unjudged: Unjudged) -> tuple[Digest, Judgement]:
            return unjudged.digest, release(operation, unjudged, now)

        digest, judgement = await upload.review(look)
        caller.grants.demand("publish", self._name, judgement.package)
        if (known := self._known(operation, judgement)) is not None:
            return known
        self._stock.publications.demand_room(self._name, digest, upload.state.offset)
        beside = [
            FileRecord(
                self._name,
                judgement.package,
                item.path,
                await self._stock.blobs.put(item.data),
                len(item.data),
                item.media_type,
                created=now,
            )
            for item in judgement.derived
        ]
        size = await upload.commit(digest)
        record = FileRecord(
            self._name,
            judgement.package,
            judgement.path,
            digest,
            size,
            judgement.media_type,
            checksum=judgement.checksum,
            created=now,
        )
        return await self._publish(operation, judgement, record, tuple(beside))

    async def _publish(
        self, operation: Release, judgement: Judgement, record: FileRecord, beside: tuple[FileRecord, ...]
    ) -> Released:
        if self._registrar is not None:
            await self._registrar.enter(self._name, judgement)
        free = Condition(judgement.path, lambda held: held is None)
        publication = Publication(record, (judgement.tag,), condition=free, beside=beside)
        digests = [item.digest for item in (record, *beside)]
        known: Released | None = None
        try:
            await self._stock.publications.publish(publication, lambda: all(map(self._stock.blobs.has, digests)))
        except Unmet:  # somebody was faster
            known = self._known(operation, judgement)
        except Vanished:
            pass
        else:
            return Released(judgement.checksum, new=True)
        if known is None:
            message = f"{judgement.path} came and went while it was published; publish it again"
            raise UpstreamUnavailable(message, subject=operation.subject, retry_after=1.0)
        return known

    def _known(self, operation: Release, judgement: Judgement) -> Released | None:
        """The same, if it is here already; None if nothing is. Raises Conflict if it is another one."""
        record = self._stock.catalog.file(self._name, judgement.path)
        if record is None:
            return None
        if record.checksum == judgement.checksum:
            return Released(judgement.checksum, new=False)
        raise Conflict(
            f"{judgement.package} {judgement.tag[0]} is published already, with other content, and never changes: "
            "publish this as a new version",
            subject=operation.subject,
            detail=f"here is {record.checksum}, this is {judgement.checksum}",
        )
