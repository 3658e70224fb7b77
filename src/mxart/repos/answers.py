"""From an operation to a response: the one place where what a kind found meets what a client asked for."""

from __future__ import annotations

from typing import Protocol, assert_never

from mxart.access.base import Action
from mxart.conditional import respond
from mxart.digest import Digest
from mxart.errors import BodyBroken, MethodNotAllowed, PreconditionFailed, Problem, RangeNotSatisfiable
from mxart.message import Headers, Request, Response, Trace
from mxart.repos.base import Format, Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.computed import Given, alias_found, checksum_found, index_found, undated, undivided
from mxart.repos.operations import (
    Alias,
    Artifact,
    Blob,
    Checksum,
    Computed,
    Directory,
    Document,
    File,
    Found,
    Index,
    Listed,
    Listing,
    Operation,
    Referrers,
    Static,
)
from mxart.repos.publishing import (
    Cancel,
    Delete,
    Gone,
    Heard,
    Outcome,
    Published,
    Release,
    Released,
    Remark,
    Removal,
    Stored,
    Uploading,
    Write,
    WrongOffset,
)
from mxart.repos.roles import having
from mxart.repos.seen import packages_seen
from mxart.repos.telling import tell

_CONDITIONS = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"))


class Deputy(Protocol):
    """Who answers some questions himself, whichever repository they were put to."""

    def answers(self, operation: Operation) -> bool:
        """Whether this is one of them."""
        ...

    async def file(self, repository: Repository, document: Document, trace: Trace, caller: Caller) -> Found:
        """As Repository.file; what it needs is demanded of the caller's grants, too."""
        ...


async def answer(
    repository: Repository,
    operation: Operation,
    request: Request,
    caller: Caller = NOBODY,
    given: Given | None = None,
    deputy: Deputy | None = None,
) -> Response:
    """The response to a parsed request. Raises Problems, to be worded by the repository's format.

    What the operation needs is demanded of the caller's grants here, once, before the repository is asked.  `given` is
    what connections were given before (None: nothing).
    Cancelled: nothing stays open, and a download that has begun goes on.
    """
    if isinstance(operation, Static):
        await repository.admit(caller, request.trace)
        request.trace.outcome = "static"
        return operation.response
    try:
        if isinstance(operation, Write):
            return await _write(repository, operation, request, caller)
        if isinstance(operation, Index | Computed):
            return await _compute(repository, operation, request, caller, given or Given())
        if deputy is not None and isinstance(operation, Document) and deputy.answers(operation):
            return respond_with(await deputy.file(repository, operation, request.trace, caller), request)
        return await _ask(repository, operation, request, caller)
    except Problem as problem:
        # Upstream does not know the format's word for what it was asked for.
        problem.subject = problem.subject or operation.subject
        raise


async def _write(repository: Repository, operation: Write, request: Request, caller: Caller) -> Response:
    publishers = repository.publishers()
    if not publishers:
        raise MethodNotAllowed(
            f"{repository.name} is for reading only: push to a local repository, or to a group that has a publish_to",
            subject="route",
            headers=(("allow", "GET, HEAD"),),
        )
    if len(publishers) > 1:
        publishers = [one for one in publishers if one.suits(operation, caller)] or publishers[:1]
    publisher = publishers[0]
    action: Action = "delete" if isinstance(operation, Delete | Removal) else "publish"
    # Where only the body, or what is there, tells what it is, that is demanded then; nobody in particular need not try.
    if operation.package or not caller.name or not isinstance(operation, Release | Remark | Removal):
        caller.grants.demand(action, publisher.name, operation.package)
    try:
        if isinstance(operation, Remark) and not operation.package:
            outcome: Outcome = await tell(operation, publishers, request.body, request.trace, caller)
        else:
            outcome = await publisher.write(operation, request.body, request.trace, caller)
    except WrongOffset as problem:
        problem.headers += having(repository.format.pushing).resume(problem.at, request.target)
        raise
    return _told(repository.format, operation, outcome, request.target)


def _told(form: Format, operation: Write, outcome: Outcome, target: str) -> Response:
    match outcome:
        case Uploading() | Stored() | Published():
            return having(form.pushing).outcome(operation, outcome, target)
        case Released():
            assert isinstance(operation, Release), "nothing else is released"
            return having(form.releasing).released(operation, outcome)
        case Heard():
            assert isinstance(operation, Remark), "nothing else is heard"
            return having(form.assembling).heard(operation, outcome)
        case Gone():
            if isinstance(operation, Removal):
                return having(form.assembling).removed(operation)
            assert isinstance(operation, Delete | Cancel), "nothing else makes it go"
            return form.gone(operation, outcome)
        case _:
            assert_never(outcome)


async def _compute(
    repository: Repository, operation: Index | Computed, request: Request, caller: Caller, given: Given
) -> Response:
    caller.grants.demand("read", repository.name, operation.package)
    match operation:
        case Index():
            found = await index_found(repository, operation, request, caller, given)
            return respond_with(found, undivided(request))
        case Alias():
            return respond_with(await alias_found(repository, operation, request, caller), undated(request))
        case Checksum():
            return respond_with(await checksum_found(repository, operation, request, caller, given), request)
        case _:
            assert_never(operation)


async def _ask(
    repository: Repository, operation: File | Listing | Referrers | Directory, request: Request, caller: Caller
) -> Response:
    match operation:
        case Document() | Blob() | Artifact():
            _demand_reading(repository, operation, caller)
            found = await repository.file(operation, request.trace, caller)
            return respond_with(found, request)
        case Directory():
            entries = await repository.directory(operation, request.trace, caller)
            if not entries:  # who may see nothing is told why, rather than that there is nothing
                caller.grants.demand("read", repository.name, operation.package)
            browsing = having(repository.format.browsing)
            headers, data = browsing.render_directory(operation, entries, request.target)
            return _made(headers, data, "", request)
        case Listing():
            listed = await _listed(repository, operation, request, caller)
            headers, data = having(repository.format.paging).render(operation, listed, request.target)
            return _made(headers, data, listed.warning, request)
        case Referrers():
            _demand_reading(repository, operation, caller)
            referred = await repository.referrers(operation, request.trace, caller)
            headers, data = having(repository.format.referring).render(operation, referred, request.target)
            return _made(headers, data, referred.warning, request)
        case _:
            assert_never(operation)


def _demand_reading(repository: Repository, operation: File | Listing | Referrers, caller: Caller) -> None:
    """Under the name that the repository's rules know: "alpine" is "library/alpine" where it is so upstream."""
    caller.grants.demand("read", repository.name, repository.format.adopt(operation).package)


async def _listed(repository: Repository, operation: Listing, request: Request, caller: Caller) -> Listed:
    if operation.of != "packages":
        _demand_reading(repository, operation, caller)
        return await repository.listing(operation, request.trace, caller)
    listed = await packages_seen(repository, operation, request.trace, caller)
    if not listed.names:  # who may see nothing is told why, rather than that there is nothing
        caller.grants.demand("read", repository.name, "")
    return listed


def _made(headers: Headers, data: bytes, warning: str, request: Request) -> Response:
    """Bytes that were made for this answer, and may be others the next time."""
    extra = (("cache-control", "no-cache"), *((("warning", warning),) if warning else ()))
    digest = Digest.of(data)
    return respond_with(Found(digest, len(data), data, headers + extra, f'"{digest.hex[:32]}"'), request)


def respond_with(found: Found, request: Request) -> Response:
    """A found file as the answer to this request; owns `found` from here on. Raises 412 and 416 as Problems."""
    if found.ready is not None and _CONDITIONS.isdisjoint([name for name, _ in request.headers.items]):
        return found.ready
    content = found.content if found.content is not None else Absent(found.size)
    response = respond(
        request, found.headers, content, etag=found.etag, last_modified=found.last_modified, size=found.size
    )
    if response.status == 416:
        fields = tuple(item for item in response.headers if item[0] == "content-range")
        raise RangeNotSatisfiable("no part of the range lies within the file", headers=fields)
    if response.status == 412:
        raise PreconditionFailed("the file is not the one that the request's condition names")
    return response


class Absent:
    """A file of which only the length is known: the answer to a HEAD. The wire never reads it."""

    def __init__(self, total: int | None) -> None:
        self._total = total

    def fileno(self) -> int:
        raise BodyBroken("only the head of this file is known")

    @property
    def total(self) -> int | None:
        return self._total

    def ready(self, offset: int) -> int:
        raise BodyBroken("only the head of this file is known")

    async def available(self, offset: int) -> int:
        raise BodyBroken("only the head of this file is known")

    def close(self) -> None:
        pass
