"""The two protocols of this room: a format and a kind. They talk in the neutral words of module operations.

A *format* (oci, go, later maven, ...) is synchronous and does no I/O.  It turns a request into an
`Operation`, says what to ask of an upstream, judges what upstream sent, renders lists and words
errors.  What only some formats do is in roles (module roles).  A *kind* (local, proxy, group) knows where bytes live:
it answers an `Operation` for any format and never looks inside a path.  Formats times kinds therefore do not multiply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.message import Headers, Response, Trace
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.operations import (
    AnyRead,
    Directory,
    Document,
    Entry,
    Facts,
    File,
    Found,
    Index,
    Indexed,
    Listed,
    Listing,
    Operation,
    Referred,
    Referrers,
)
from mxart.repos.publishing import Cancel, Delete, Gone, Publisher
from mxart.repos.roles import (
    Aliasing,
    Assembling,
    Browsing,
    Choosing,
    Gathering,
    Indexing,
    Judging,
    Paging,
    Pushing,
    Referring,
    Releasing,
    Summing,
)
from mxart.upstream.base import Ask


class Format(Protocol):
    """What is particular to one kind of package. Pure: no I/O, no clock, no state."""

    @property
    def name(self) -> str: ...

    # Roles: None for one that it does not have, because `parse` never makes an operation of that kind.

    @property
    def paging(self) -> Paging | None: ...
    @property
    def judging(self) -> Judging | None: ...
    @property
    def gathering(self) -> Gathering | None: ...
    @property
    def choosing(self) -> Choosing | None: ...
    @property
    def indexing(self) -> Indexing | None: ...
    @property
    def aliasing(self) -> Aliasing | None: ...
    @property
    def summing(self) -> Summing | None: ...
    @property
    def browsing(self) -> Browsing | None: ...
    @property
    def referring(self) -> Referring | None: ...
    @property
    def pushing(self) -> Pushing | None: ...
    @property
    def releasing(self) -> Releasing | None: ...
    @property
    def assembling(self) -> Assembling | None: ...

    # Requests and names

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        """What a request wants. `path` is escaped and lies below the repository's own; so is what it names.

        `root` is the repository's own URL as the client has it, without a slash at its end; "" where nobody needs it.

        Raises BadRequest, NotFound, MethodNotAllowed.
        """
        ...

    @property
    def lasting_tags(self) -> bool:
        """Whether a tag is a version's one name for ever: then the version is deleted by it, and goes with it."""
        ...

    def path_of(self, package: str, reference: str) -> str:
        """The path, escaped, that `parse` takes for a version of a package.

        By its tag; or by its digest, unless `lasting_tags`.
        """
        ...

    def adopt(self, operation: AnyRead) -> AnyRead:
        """The same operation in the names that this repository's upstream uses. Idempotent."""
        ...

    # Upstream

    def ask(self, operation: File, method: str) -> Ask:
        """The question to upstream. It never depends on who asked us."""
        ...

    def ask_login(self) -> Ask:
        """The question whose refusal tells how upstream asks its users for a login."""
        ...

    def facts(self, operation: File, headers: Headers) -> Facts:
        """What the head of upstream's answer says. Raises UpstreamFailed if it cannot be that file."""
        ...

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        """Judge a whole document: digest, media type, shape. The digest of the answer is set.

        Raises UpstreamFailed; nothing that fails here is stored.
        """
        ...

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        """The immutable name of the bytes that a mutable document holds now, if the format has one."""
        ...

    def together(self, operation: File) -> tuple[str, ...]:
        """The paths of all that belongs to one version with this file and must come from where that comes from.

        Its own path is among them; () where a file's name tells its digest, or may mean another one tomorrow.
        """
        ...

    # Answers

    def fields(
        self, operation: File, digest: Digest | None, media_type: str, checksum: str
    ) -> tuple[tuple[str, str], ...]:
        """The header fields that tell a client what it gets, in lower case.

        `digest` as in Found, `checksum` as in FileRecord; "" while a file is still arriving.
        """
        ...

    def gone(self, operation: Delete | Cancel, outcome: Gone) -> Response:
        """What became of a deletion, or of an upload that was given up."""
        ...

    def word(self, problem: Problem) -> Response:
        """An error the way its client shows it to its user."""
        ...


class Repository(Protocol):
    """One repository of some kind. Shared by all requests of a worker."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> Format: ...

    @property
    def site(self) -> str:
        """The upstream that a caller's credentials may be shown to (Upstream.site); "" if they are not looked at."""
        ...

    def owns(self, package: str) -> bool:
        """Whether this package is published here, so that no proxy beside it may be asked for it.

        A remark on what others hold is not enough: a signature of an image that is not here, say (see group).
        """
        ...

    def begun(self, package: str) -> bool:
        """Whether parts of this package were pushed here, and nothing yet that they are parts of."""
        ...

    @property
    def reaches(self) -> bool:
        """Whether an answer may have to wait for others than this server."""
        ...

    def keeps(self, paths: Sequence[str]) -> bool:
        """Whether a file of an upstream's has been kept here under one of these paths (Format.together)."""
        ...

    async def admit(self, caller: Caller, trace: Trace) -> None:
        """Return if the caller may come in at all, without a word about what he may see.

        Raises Unauthorized with a challenge where upstream asks everybody for a login, or refuses this one.
        """
        ...

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        """Find a file.

        Raises NotFound only if whoever would know has said so, else the Problem that stood in the
        way: UpstreamFailed, UpstreamUnavailable, UpstreamTimeout; Unauthorized or Forbidden where upstream's
        word on the caller is wanted, or was that.  Notes the outcome in `trace`.
        Cancellation leaks nothing and stops no download that has begun.
        """
        ...

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        """Names, never silently short: stale and marked, or a Problem. Cancellation leaks nothing."""
        ...

    async def index(self, operation: Index, trace: Trace, caller: Caller = NOBODY) -> Indexed:
        """What there is, never silently short: stale and marked, or a Problem. Cancellation leaks nothing.

        Raises NotFound only if whoever would know has said so.
        """
        ...

    async def directory(self, operation: Directory, trace: Trace, caller: Caller = NOBODY) -> Sequence[Entry]:
        """The names right below a path that are kept here and that the caller may see, in ASCII order.

        Raises NotFound where there is nothing, whoever may see it.  Cancellation leaks nothing.
        """
        ...

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        """What refers to a manifest: filtered, in order, cut (referring.cut). Nothing refers to what nobody knows.

        Empty only if whoever would know has said so, never short for the sake of trouble: stale and marked, or a
        Problem.  NotFound is never raised but where a whole repository cannot tell.  Cancellation leaks nothing.
        """
        ...

    def publishers(self) -> Sequence[Publisher]:
        """Who takes what is written to this repository: the first that it suits. Nobody: it is for reading only."""
        ...
