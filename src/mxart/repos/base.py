"""The two protocols of this room: a format and a kind. They talk in the neutral words of module operations.

A *format* (oci, later go, maven, ...) is synchronous and does no I/O.  It turns a request into an
`Operation`, says what to ask of an upstream, judges what upstream sent, renders lists and words
errors.  A *kind* (local, proxy, group) knows where bytes live: it answers an `Operation` for any
format and never looks inside a path.  Formats times kinds therefore do not multiply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from mxart.access.base import ANYBODY, Grants
from mxart.digest import Digest
from mxart.errors import Problem
from mxart.message import Headers, Response, Trace
from mxart.repos.operations import (
    Artifact,
    Blob,
    Descriptor,
    Document,
    Facts,
    File,
    Found,
    Listed,
    Listing,
    NoReferrers,
    Operation,
    Page,
    Referred,
    Referrers,
    ReferrersPage,
)
from mxart.repos.publishing import Inspection, Judgement, Outcome, Publish, Publisher, Release, Uploading, Write
from mxart.store.base import Unjudged
from mxart.upstream.base import Ask


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    `authorization` is for an upstream's eyes: the Authorization field of the request, "" if there is none or its
    credentials are ours.  `name` is our user, "" for nobody in particular, `token` the number of the token of his that
    stands behind the request, and `grants` what this request may do here.
    """

    authorization: str = field(default="", repr=False)
    name: str = ""
    token: str = ""
    grants: Grants = field(default=ANYBODY, repr=False, compare=False)

    @classmethod
    def of(cls, headers: Headers) -> Caller:
        """Whoever sends several, or of a kind that no registry takes, shows nothing."""
        values = headers.get_all("authorization")
        if len(values) != 1:
            return NOBODY  # nearly everybody
        caller = cls(values[0])
        shown = caller.authorization
        fit = caller.scheme in ("basic", "bearer") and shown.isascii() and shown.isprintable()
        return caller if fit else NOBODY

    @property
    def scheme(self) -> str:
        """The kind of credentials, in lower case (RFC 9110 section 11.1); "" for none."""
        return self.authorization.partition(" ")[0].lower()

    def unshown(self) -> Caller:
        """The same caller, whose credentials are not for this upstream."""
        return replace(self, authorization="") if self.authorization else self


NOBODY = Caller()


if TYPE_CHECKING:
    from mxart.repos.remote import Remote  # which knows its Verifier

_Kept = TypeVar("_Kept", bound=Document | Blob | Artifact | Listing | Referrers)


class Referring(Protocol):
    """How a format reads referrers of an upstream: from its API, or from a document that stands in for that."""

    def ask(self, operation: Referrers, following: str | None) -> Ask:
        """The question to upstream's API, unfiltered: for the first page, or for the one that a ReferrersPage named."""
        ...

    def page(self, operation: Referrers, status: int, headers: Headers, data: bytes) -> ReferrersPage | NoReferrers:
        """Read upstream's answer. Raises UpstreamFailed for a list that is broken: that is not one that is missing."""
        ...

    def about(self, operation: Referrers) -> Document:
        """The manifest that is referred to."""
        ...

    @property
    def companions(self) -> str:
        """A GLOB pattern of tags that only say something about another manifest, as those of such documents do."""
        ...

    def stand_in(self, operation: Referrers) -> Document:
        """The document that tells of a manifest's referrers where there is no API."""
        ...

    def listed(self, operation: Referrers, media_type: str, data: bytes) -> tuple[Descriptor, ...]:
        """What such a document lists. Raises UpstreamFailed if it is no list."""
        ...

    def read(self, json: bytes) -> Descriptor:
        """A descriptor from its own `json`."""
        ...


class Format(Protocol):
    """What is particular to one kind of package. Pure: no I/O, no clock, no state."""

    @property
    def name(self) -> str: ...

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

    def adopt(self, operation: _Kept) -> _Kept:
        """The same operation in the names that this repository's upstream uses. Idempotent."""
        ...

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

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        """Judge a whole file of any size by what is in it, and return its checksum (see Facts).

        It reads the file, so it is called in a thread.  Raises UpstreamFailed, also for whatever a file that is no
        such thing at all makes a reader raise; nothing that fails here is stored.
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

    def choose(self, document: Document, answers: Sequence[bytes]) -> int:
        """Which of the checked answers to one question is the best one, if the format has such questions.

        See Document.chosen; there is at least one answer.
        """
        ...

    def fields(self, operation: File, digest: Digest | None, media_type: str) -> tuple[tuple[str, str], ...]:
        """The header fields that tell a client what it gets, in lower case. `digest` as in Found."""
        ...

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        """The question for upstream's list: its first page, or the one that a Page named."""
        ...

    def page(self, listing: Listing, headers: Headers, data: bytes) -> Page:
        """Read a page of upstream's list. Raises UpstreamFailed."""
        ...

    def render(self, listing: Listing, listed: Listed, target: str) -> tuple[Headers, bytes]:
        """A list as its client wants it; `target` is the request's own: path and query, escaped."""
        ...

    def guide(self, document: Document, versions: Sequence[str]) -> Document | None:
        """For a document that stands for the best version of a package (Document.chosen): which one says what counts.

        None: there is none to choose from.
        """
        ...

    def best(self, document: Document, versions: Sequence[str], guide: bytes) -> Document:
        """The document that such a one stands for, by what the guide says."""
        ...

    @property
    def referring(self) -> Referring | None:
        """Set if the format has referrers: if `parse` ever makes such an operation."""
        ...

    def render_referrers(self, operation: Referrers, referred: Referred, target: str) -> tuple[Headers, bytes]:
        """Referrers as their client wants them; `target` as for `render`."""
        ...

    def fallback(self, document: Document) -> Referrers | None:
        """The list of referrers that this name stands for where no such document is; None: it stands for none."""
        ...

    def accept(self, operation: Publish, data: bytes) -> tuple[str, Facts]:
        """Judge a small file that a client wrote: its immutable path, and its digest, size and media type.

        Raises BadRequest that says what would be right.
        """
        ...

    def inspect(self, package: str, facts: Facts, data: bytes) -> Inspection:
        """What a small file says about others, as far as it can be read: it may be an upstream's."""
        ...

    def release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        """Judge a file that a client wants to publish; `now` is when, in seconds since the epoch.

        It reads the file, so it is called in a thread.  Raises BadRequest that says what would be right.
        """
        ...

    def outcome(self, operation: Write, outcome: Outcome, target: str) -> Response:
        """What became of a write; `target` as for `render`."""
        ...

    def resume(self, at: Uploading, target: str) -> tuple[tuple[str, str], ...]:
        """The header fields that tell a client where to go on with an upload; `target` as for `render`."""
        ...

    def word(self, problem: Problem) -> Response:
        """An error the way its client shows it to its user."""
        ...


class Verifier(Protocol):
    """Whoever knows what upstream's files must be, by another's word than upstream's: a checksum database."""

    async def verify(self, operation: Document | Artifact, checksum: str) -> None:
        """Return if these bytes are the right ones, or if there is nobody to ask about them: a private package.

        `checksum` is what the format says of them.  Raises UpstreamFailed if they are not, and UpstreamUnavailable or
        UpstreamTimeout where that cannot be told now: then they are asked about again, later.
        """
        ...

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> Found | None:
        """What it says itself, where that is what was asked for; None: this is a document of upstream's.

        `remote` is whose request it is: its shelf, and whether anybody may be asked.  Raises as Repository.file does.
        """
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

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        """What refers to a manifest: filtered, in order, cut (referring.cut). Nothing refers to what nobody knows.

        Empty only if whoever would know has said so, never short for the sake of trouble: stale and marked, or a
        Problem.  NotFound is never raised but where a whole repository cannot tell.  Cancellation leaks nothing.
        """
        ...

    def publisher(self) -> Publisher | None:
        """Who takes what is written to this repository; None: nobody, it is for reading only."""
        ...
