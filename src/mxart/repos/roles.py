"""What only some formats do, each a role of few methods. A format has those whose operations its `parse` makes.

All of them are pure, as the format is: no I/O, no clock, no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from mxart.digest import Digest
from mxart.message import Headers, Response
from mxart.repos.operations import (
    Alias,
    Artifact,
    Descriptor,
    Directory,
    Document,
    Entry,
    Facts,
    File,
    Index,
    Listed,
    Listing,
    NoReferrers,
    Page,
    Referred,
    Referrers,
    ReferrersPage,
)
from mxart.repos.publishing import (
    Heard,
    Hearing,
    Inspection,
    Judgement,
    Publish,
    Published,
    Release,
    Released,
    Remark,
    Removal,
    Spot,
    Stored,
    Uploading,
    Write,
)
from mxart.store.base import FileRecord, Unjudged
from mxart.store.changes import Change, View
from mxart.upstream.base import Ask

_Role = TypeVar("_Role")


def having(role: _Role | None) -> _Role:
    """The role that an operation in hand proves its format to have: nothing but that format's `parse` makes it."""
    assert role is not None, "a format that makes such an operation has the role for it"
    return role


class Paging(Protocol):
    """Lists of names (Listing): how an upstream is asked for them, and how a client is told."""

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        """The question for upstream's list: its first page, or the one that a Page named."""
        ...

    def page(self, listing: Listing, headers: Headers, data: bytes) -> Page:
        """Read a page of upstream's list. Raises UpstreamFailed."""
        ...

    def render(self, listing: Listing, listed: Listed, target: str) -> tuple[Headers, bytes]:
        """A list as its client wants it; `target` is the request's own: path and query, escaped."""
        ...


class Judging(Protocol):
    """Files whose name does not tell their digest (Artifact)."""

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        """Judge a whole file of any size by what is in it, and return its checksum (see Facts).

        It reads the file, so it is called in a thread.  Raises UpstreamFailed, also for whatever a file that is no
        such thing at all makes a reader raise; nothing that fails here is stored.
        """
        ...


class Gathering(Protocol):
    """Versions that are made of a large file and of small ones: a proxy keeps the small ones before the large one."""

    def beside(self, artifact: Artifact) -> tuple[Document, ...]:
        """The small files of the version. None of them need be there."""
        ...

    def agree(self, artifact: Artifact, unjudged: Unjudged, beside: Mapping[str, bytes]) -> None:
        """Raise UpstreamFailed if what is beside a file, by path, is that of another state of the version.

        It is called in a thread, when the file was judged.
        """
        ...


class Choosing(Protocol):
    """Documents that stand for the best one of several (Document.chosen)."""

    def choose(self, document: Document, answers: Sequence[bytes]) -> int:
        """Which of the checked answers of several repositories to one question is the best. There is at least one."""
        ...

    def listing(self, document: Document) -> Listing:
        """The list of the versions among which such a document chooses."""
        ...

    def guide(self, document: Document, versions: Sequence[str]) -> Document | None:
        """For a document that stands for the best version of a package: which one says what counts.

        None: there is none to choose from.
        """
        ...

    def best(self, document: Document, versions: Sequence[str], guide: bytes) -> Document:
        """The document that such a one stands for, by what the guide says."""
        ...


class Indexing(Protocol):
    """Documents that tell what there is (Index)."""

    def compose(self, index: Index, view: View, repository: str) -> tuple[bytes, float] | None:
        """The index of what a local repository holds, and when that last changed, in seconds since the epoch.

        None: there is nothing that it could tell of.  The same bytes for the same content.
        """
        ...

    def document(self, index: Index) -> Document:
        """Upstream's own index as a proxy fetches, checks and keeps it: mutable."""
        ...

    def merge(self, index: Index, answers: Sequence[bytes | None]) -> bytes | None:
        """One index of those of several repositories, in their order, each checked; None for one that has none.

        None: then there is none of all of them either.  There is at least one that is not None.
        """
        ...

    def index_fields(self, index: Index, data: bytes) -> tuple[tuple[str, str], ...]:
        """The header fields that tell a client what it gets, in lower case, without validators."""
        ...


class Aliasing(Protocol):
    """Names for what an index tells (Alias)."""

    def resolve(self, alias: Alias, data: bytes) -> File | None:
        """The file that an alias stands for by these bytes of its index; None: for none."""
        ...


class Summing(Protocol):
    """Checksums of files in files of their own (Checksum)."""

    def known(self, algorithm: str, digest: Digest, checksum: str) -> str:
        """A file's checksum in hexadecimal, from what is kept of it (FileRecord); "" if that does not tell."""
        ...


class Browsing(Protocol):
    """Directories (Directory)."""

    def render_directory(self, directory: Directory, entries: Sequence[Entry], target: str) -> tuple[Headers, bytes]:
        """What a client is shown, in the order of the entries; `target` as for `Paging.render`."""
        ...


class Referring(Protocol):
    """Referrers: of an upstream, from its API or from a document that stands in for that; and as clients read them."""

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

    def fallback(self, document: Document) -> Referrers | None:
        """The list of referrers that this name stands for where no such document is; None: it stands for none."""
        ...

    def listed(self, operation: Referrers, media_type: str, data: bytes) -> tuple[Descriptor, ...]:
        """What such a document lists. Raises UpstreamFailed if it is no list."""
        ...

    def read(self, json: bytes) -> Descriptor:
        """A descriptor from its own `json`."""
        ...

    def render(self, operation: Referrers, referred: Referred, target: str) -> tuple[Headers, bytes]:
        """Referrers as their client wants them; `target` as for `Paging.render`."""
        ...


class Pushing(Protocol):
    """Uploads, and small files under their digests that say what they need of others."""

    def accept(self, operation: Publish, data: bytes) -> tuple[str, Facts]:
        """Judge a small file that a client wrote: its immutable path, and its digest, size and media type.

        Raises BadRequest that says what would be right.
        """
        ...

    def inspect(self, package: str, facts: Facts, data: bytes) -> Inspection:
        """What a small file says about others, as far as it can be read: it may be an upstream's."""
        ...

    def outcome(self, operation: Write, outcome: Uploading | Stored | Published, target: str) -> Response:
        """What became of a write; `target` as for `Paging.render`."""
        ...

    def resume(self, at: Uploading, target: str) -> tuple[tuple[str, str], ...]:
        """The header fields that tell a client where to go on with an upload; `target` as for `Paging.render`."""
        ...


class Releasing(Protocol):
    """Files that are published once and for all, and judged as a whole before that."""

    def release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        """Judge a file that a client wants to publish; `now` is when, in seconds since the epoch.

        It reads the file, so it is called in a thread.  Raises BadRequest that says what would be right.
        """
        ...

    def released(self, operation: Release, outcome: Released) -> Response:
        """What became of it."""
        ...


class Assembling(Protocol):
    """Versions made of files that come one by one, each request by itself.

    Under which name a file goes, and what changes with it, follows from what is there: whatever is said here of a View
    is said again in the transaction that goes by it.  A format with this role judges files by its role `releasing`.
    """

    def admit(self, operation: Release | Remark, view: View, spot: Spot) -> None:
        """Raise a Problem where it is plain before the body comes that it is not taken. Asks one question at most."""
        ...

    def place(self, operation: Release, record: FileRecord, view: View, spot: Spot) -> Change:
        """What changes where a file that was judged comes; NOTHING where it is here already. Raises Conflict."""
        ...

    def hear(self, operation: Remark, data: bytes) -> Hearing:
        """Read what is said. Raises BadRequest; its `decide` raises NotFound and Conflict. May be long."""
        ...

    def heard(self, operation: Remark, outcome: Heard) -> Response:
        """What became of it."""
        ...

    def remove(self, operation: Removal, view: View, spot: Spot) -> tuple[str, Change]:
        """The package that loses something, and what goes, with all that follows from it. Raises NotFound."""
        ...

    def removed(self, operation: Removal) -> Response:
        """It is gone."""
        ...

    def suits(self, operation: Write, view: View, spot: Spot) -> bool:
        """See Publisher."""
        ...
