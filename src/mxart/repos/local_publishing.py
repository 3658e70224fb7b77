"""What is written to a local repository: uploads, small files with what hangs on them, deletions.

Theory of operation
-------------------
An upload belongs to whoever began it, for one package of one repository; to everybody else it is unknown.  Finishing it
makes it a blob of the store, and then gives the blob a name in the catalog: killed in between, the bytes lie there
without a name until they are swept, and the client, who got no answer, sends them again.

A small file is first put into the store, then published in one transaction that looks for everything that it needs
and that its own bytes are still there.  If these were swept in that moment, they are put there once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

import trio

from mxart.access.base import LoginWanted
from mxart.conditional import permits
from mxart.digest import Digest
from mxart.errors import BadRequest, NotFound, PreconditionFailed, Problem, TooLarge, UpstreamUnavailable
from mxart.message import RequestBody, Trace
from mxart.repos.assembling import Assemblies
from mxart.repos.base import Format
from mxart.repos.bodies import whole
from mxart.repos.callers import Caller
from mxart.repos.operations import Facts
from mxart.repos.publishing import (
    Append,
    Begin,
    Cancel,
    Delete,
    Finish,
    Gone,
    Inspection,
    Outcome,
    Progress,
    Publish,
    Published,
    Registrar,
    Release,
    Remark,
    Removal,
    Stored,
    Uploading,
    Write,
    WrongOffset,
)
from mxart.repos.releasing import Releases
from mxart.repos.roles import having
from mxart.repos.stock import MAX_DOCUMENT, Stock, etag_of
from mxart.store.base import FileRecord, Upload, UploadState, UploadUnknown
from mxart.store.published import Condition, Holder, Incomplete, Need, Occupied, Publication, TooDeep, Unmet, Vanished

# Above this, hashing and parsing leave the loop for a thread.
_LONG = 128 << 10
_NAMED = 5  # of what is missing, in a message ...
_DETAILED = 100  # ... and in its detail
_TRIES = 5
_CLOSING_SECONDS = 5.0


class LocalPublisher:
    """`Publisher` (repos.publishing) of one local repository.

    `lends` says of which repositories blobs may be mounted, if the caller may read them there.  `max_upload`: how many
    bytes an upload may have, in however many requests they come; None: any number.  `staging`: see Assemblies.
    `registrar` remembers what was released here.
    """

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        stock: Stock,
        clock: Callable[[], float],
        lends: Callable[[str], bool],
        max_upload: int | None = None,
        *,
        staging: bool = False,
        registrar: Registrar | None = None,
    ) -> None:
        self.name = name
        self._format = format
        self._stock = stock
        self._clock = clock
        self._lends = lends
        self._max_upload = max_upload
        self._registrar = registrar
        self._releases = Releases(name, format, stock, clock, max_upload, registrar)
        self._assemblies = Assemblies(name, format, stock, clock, max_upload, staging=staging)

    def suits(self, operation: Write, caller: Caller) -> bool:
        return self._format.assembling is None or self._assemblies.suits(operation, caller)

    async def write(self, operation: Write, body: RequestBody, trace: Trace, caller: Caller) -> Outcome:
        trace.outcome = "local"
        match operation:
            case Begin():
                return await self._begin(operation, body, trace, caller)
            case Append():
                async with self._stock.uploads.open(self._own(operation, caller).id) as upload:
                    await self._receive(upload, operation.start, body)
                    return _progress(upload.state)
            case Finish():
                async with self._stock.uploads.open(self._own(operation, caller).id) as upload:
                    await self._receive(upload, operation.start, body, operation.digest)
                    return await self._commit(upload, operation.package, operation.path, operation.digest)
            case Progress():
                return _progress(self._own(operation, caller))
            case Cancel():
                async with self._stock.uploads.open(self._own(operation, caller).id) as upload:
                    await upload.discard()
                return Gone()
            case Publish():
                return await self._publish(operation, body, trace, caller)
            case Release():
                if self._format.assembling is not None:
                    return await self._assemblies.publish(operation, body, trace, caller)
                return await self._releases.publish(operation, body, trace, caller)
            case Remark():
                return await self._assemblies.hear(operation, body, trace, caller)
            case Removal():
                return await self._assemblies.remove(operation, trace, caller)
            case Delete():
                return await self._delete(operation, trace)
            case _:
                assert_never(operation)

    # uploads

    def _own(self, operation: Append | Finish | Progress | Cancel, caller: Caller) -> UploadState:
        """The upload, if it is this caller's, here. Raises UploadUnknown."""
        state = self._stock.uploads.find(operation.upload)
        if state is None or (state.repository, state.package, state.owner) != (
            self.name,
            operation.package,
            caller.name,
        ):
            raise UploadUnknown(operation.upload)
        return state

    async def _begin(self, operation: Begin, body: RequestBody, trace: Trace, caller: Caller) -> Outcome:
        if operation.mount is not None and await self._mount(operation, operation.mount, trace, caller):
            return Stored(operation.mount, mounted=True)
        algorithm = operation.algorithm or "sha256"
        state = await self._stock.uploads.begin(self.name, operation.package, caller.name, algorithm)
        if operation.digest is None:
            return _progress(state)
        async with self._stock.uploads.open(state.id) as upload:
            try:
                await self._receive(upload, 0, body, operation.digest)
                return await self._commit(upload, operation.package, operation.path, operation.digest)
            except BaseException:
                # Its client does not know that there is one.
                with trio.move_on_after(_CLOSING_SECONDS, shield=True):
                    await upload.discard()
                raise

    async def _receive(
        self, upload: Upload, start: int | None, body: RequestBody, digest: Digest | None = None
    ) -> None:
        state = upload.state
        if start is not None and start != state.offset:
            message = f"the piece begins at byte {start}, but {state.offset} bytes are here: go on from there"
            raise WrongOffset(message, _progress(state), subject="upload")
        demand_room = self._stock.publications.demand_room
        most = demand_room(self.name, digest, state.offset + (body.length or 0))
        limits = [limit for limit in (most, self._max_upload) if limit is not None]
        await upload.receive(body, min(limits, default=None))
        demand_room(self.name, digest, upload.state.offset)

    async def _commit(self, upload: Upload, package: str, path: str, digest: Digest) -> Stored:
        size = await upload.commit(digest)
        try:
            await self._name(package, path, digest, size)
        except Vanished:
            raise UpstreamUnavailable(
                f"{digest} was swept from the store while it was pushed; push it again", subject="blob", retry_after=1.0
            ) from None
        return Stored(digest)

    async def _name(self, package: str, path: str, digest: Digest, size: int) -> None:
        record = FileRecord(self.name, package, path, digest, size, "", created=self._clock())
        await self._stock.publications.publish(Publication(record), lambda: self._stock.blobs.has(digest))

    async def _mount(self, operation: Begin, digest: Digest, trace: Trace, caller: Caller) -> bool:
        """Give a blob that the caller may read somewhere a name here, too. False: it has to be sent."""
        source = self._readable(operation, digest, caller)
        if source is None:
            trace.decided("%s: not mounted, the caller can read it nowhere", digest)
            return False
        try:
            await self._name(operation.package, operation.path, digest, source.size)
        except Vanished:  # deleted and swept in this moment, or kept in another store
            trace.decided("%s: not mounted, its bytes are not in this store", digest)
            return False
        return True

    def _readable(self, operation: Begin, digest: Digest, caller: Caller) -> FileRecord | None:
        """A name under which the caller may read a blob: what `source` says first, then any.

        Raises LoginWanted where another token of his would do.
        """
        rest = operation.path.removeprefix(operation.package)
        # The name in `from` may have a prefix of the router's; this very package may have the blob already.
        parts = operation.source.split("/")
        named = [operation.package, *("/".join(parts[first:]) for first in range(len(parts)))]
        holders = [Holder(self.name, package, package + rest) for package in named if package]
        narrow: LoginWanted | None = None
        for holder in [*holders, *self._stock.publications.holders(digest)]:
            here = holder.repository == self.name
            record = self._stock.catalog.file(holder.repository, holder.path)
            if record is None or record.digest != digest or not (here or self._lends(holder.repository)):
                continue
            if caller.grants.may("read", holder.repository, holder.package):
                return record
            if here and narrow is None:
                narrow = _too_narrow(caller, holder, operation.package)
        if narrow is not None:
            raise narrow
        return None

    # small files

    async def _publish(self, operation: Publish, body: RequestBody, trace: Trace, caller: Caller) -> Published:
        data = await whole(body, MAX_DOCUMENT, _too_large)
        judge = partial(self._judge, operation, data)
        path, facts, inspection = await trio.to_thread.run_sync(judge) if len(data) > _LONG else judge()
        digest = facts.digest
        assert digest is not None, "Pushing.accept sets it"
        self._stock.publications.demand_room(self.name, digest, len(data))
        record = FileRecord(
            self.name, operation.package, path, digest, len(data), facts.media_type, created=self._clock()
        )
        publication = Publication(
            record,
            operation.tags,
            inspection.needs,
            inspection.referrer,
            inspection.nests,
            _condition(operation),
        )
        try:
            may = caller.grants.may("overwrite", self.name, operation.package)
            await self._settle(publication, data, replace=may)
        except Occupied:
            caller.grants.demand("overwrite", self.name, operation.package)
            await self._settle(publication, data, replace=True)  # it was given meanwhile
        subject = None if inspection.referrer is None else inspection.referrer.subject
        trace.decided("%s: published as %s", operation.package, digest)
        return Published(digest, tuple(tag for tag, _ in operation.tags), subject)

    def _judge(self, operation: Publish, data: bytes) -> tuple[str, Facts, Inspection]:
        pushing = having(self._format.pushing)
        path, facts = pushing.accept(operation, data)
        return path, facts, pushing.inspect(operation.package, facts, data)

    async def _settle(self, publication: Publication, data: bytes, *, replace: bool) -> None:
        digest = publication.record.digest
        publications, blobs = self._stock.publications, self._stock.blobs
        for _ in range(_TRIES):
            await blobs.put(data, digest)
            try:
                await publications.publish(publication, lambda: blobs.has(digest), replace=replace)
            except Vanished:
                continue
            except Incomplete as refusal:
                raise _incomplete(refusal.lacks) from None
            except Unmet:
                raise PreconditionFailed(
                    "what is published there is not what the request's condition names; look at it, and try again",
                    subject="manifest",
                ) from None
            except TooDeep as refusal:
                raise BadRequest(f"the manifest is not taken: {refusal}", subject="manifest") from None
            return
        raise UpstreamUnavailable(f"{digest} is swept as fast as it comes", subject="manifest", retry_after=5.0)

    async def _delete(self, operation: Delete, trace: Trace) -> Gone:
        told = await self._registrar.leaving(self.name, operation.path, trace) if self._registrar is not None else ""
        gone = await self._stock.publications.withdraw(self.name, operation.path, operation.version, operation.beside)
        if gone is None:
            known = self._stock.catalog.has_package(self.name, operation.package)
            what, subject = (operation.path, operation.subject) if known else (operation.package, "name")
            raise NotFound(f"{self.name} has no {what}", subject=subject)
        if not gone.needed_by:
            return Gone(told)
        count = "a manifest" if gone.needed_by == 1 else f"{gone.needed_by} manifests"
        return Gone(f"{count} of {operation.package} still needed what was deleted, and cannot be pulled whole now")


def _too_narrow(caller: Caller, holder: Holder, package: str) -> LoginWanted | None:
    """How the caller is told that he may read this, but for his token: that was asked for another package only."""
    try:
        caller.grants.demand("read", holder.repository, holder.package)
    except LoginWanted as problem:
        if problem.error:
            problem.beside = package
            return problem
    except Problem:
        pass  # it has to be sent
    return None


def _condition(operation: Publish) -> Condition | None:
    if not operation.conditions.items:
        return None
    return Condition(
        operation.target,
        lambda held: permits(operation.conditions, None if held is None else etag_of(held)),
    )


def _progress(state: UploadState) -> Uploading:
    return Uploading(state.id, state.offset)


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"a manifest has at most {MAX_DOCUMENT} bytes here, this one {size} or more", subject="manifest")


def _incomplete(lacks: Iterable[tuple[Need, int | None]]) -> BadRequest:
    """What is missing by name, or of which size it is."""
    lacks = tuple(lacks)
    missing = [str(need.digest) for need, size in lacks if size is None]
    wrong = [f"{need.digest} has {size} bytes, not {need.size}" for need, size in lacks if size is not None]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        message = f"the manifest needs what is not here, push it first: {', '.join(missing[:_NAMED])}{more}"
        return BadRequest(message, subject="needs", detail=" ".join(missing[:_DETAILED]))
    return BadRequest(f"the manifest is not taken: {'; '.join(wrong[:_NAMED])}", subject="manifest")
