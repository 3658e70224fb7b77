"""The neutral words in which formats and kinds talk: what is wanted, what upstream says of it, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar

from msgspec import Struct

from mxart.body import Source
from mxart.digest import Digest
from mxart.discreet import Discreet
from mxart.message import Headers, Response
from mxart.repos.publishing import Write


class Document(Discreet, frozen=True):
    """A small file that must be whole and checked before anybody sees a byte of it: a manifest, an index.

    `package` and `path` are names within the repository (see store.base.FileRecord); `subject` is the
    format's own word for what is asked for, used in errors.  A mutable document is revalidated after
    the repository's ttl; `tag` is set when its name is a moving name of a version.  `digest` is set when
    the name itself tells the digest.  `head` says that only its head is asked for.  `kept`, here and below: what is not
    kept already is not wanted, so nothing is fetched for it.  `small`: to fetch it costs no more than to ask whether it
    has changed.  `chosen`: each repository of a group may have its own, and the best of them is wanted (Choosing).
    `credential`, here and below, is what upstream is shown instead of our own credentials.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    mutable: bool
    digest: Digest | None = None
    tag: str = ""
    head: bool = False
    kept: bool = False
    small: bool = False
    chosen: bool = False
    credential: str = ""


class Blob(Discreet, frozen=True):
    """A file of any size, streamed while it arrives; its name tells its digest, so it never changes.

    `head` says that only its head is asked for: that must not start a download.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    digest: Digest
    head: bool = False
    credential: str = ""


class Artifact(Discreet, frozen=True):
    """A file of any size, streamed while it arrives, that never changes; its name does not tell its digest.

    A module's zip, a jar, a crate.  Nobody has the last of it before it was judged (Judging, Verifier).  `head` as
    for a Blob.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    head: bool = False
    kept: bool = False
    credential: str = ""


class Listing(Discreet, frozen=True):
    """A sorted list of names: the versions' tags of a package, or the packages of the repository.

    AnyRead are the names after `after` in ASCII order, at most `limit` of them (None: all).  `path` is
    where a proxy keeps upstream's complete list.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    of: Literal["tags", "packages"]
    after: str = ""
    limit: int | None = None
    kept: bool = False
    credential: str = ""


class Referrers(Discreet, frozen=True):
    """What refers to a manifest, signatures and SBOMs for instance (distribution-spec, "Listing Referrers").

    `digest` is the manifest that is referred to; it need not exist.  AnyRead are the descriptors of that
    `artifact_type` ("": of any) whose digest, as text, comes after `after`, in that order, at most `limit` of them
    (None: as many as fit into one answer).  `path` is where a proxy keeps upstream's complete list.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    digest: Digest
    artifact_type: str = ""
    after: str = ""
    limit: int | None = None
    credential: str = ""


class Index(Discreet, frozen=True):
    """A document that tells what there is, and so is computed: a list of versions with what belongs to them.

    A local repository composes it from what its catalog holds, a proxy has upstream's own, a group merges its members'
    (roles.Indexing).  It changes with every publication, so it is served whole or not at all, never a range of it.
    """

    hidden: ClassVar = frozenset({"credential"})

    package: str
    path: str
    subject: str
    head: bool = False
    credential: str = ""


class Alias(Struct, frozen=True):
    """A name for whatever file an index says that it stands for now (roles.Aliasing)."""

    package: str
    path: str
    subject: str
    index: Index
    head: bool = False


class Checksum(Struct, frozen=True):
    """The checksum of what `of` is served as, in hexadecimal (roles.Summing). `algorithm` is one of hashlib's."""

    path: str
    subject: str
    of: Document | Artifact | Index | Alias
    algorithm: str
    head: bool = False

    @property
    def package(self) -> str:
        """That of the file."""
        return self.of.package


class Directory(Struct, frozen=True):
    """The names right below a path, which has no slash at its end and is "" for the repository's root.

    A proxy tells what it keeps.  `through` are the groups that it is asked through, whose rules count, too.
    """

    package: str
    path: str
    subject: str
    head: bool = False
    through: tuple[str, ...] = ()


class Static(Struct, frozen=True):
    """An answer that needs no bytes from anywhere, such as the ping of OCI."""

    response: Response


File = Document | Blob | Artifact

Read = File | Listing | Referrers | Index | Directory
"""What a repository is asked for."""

Computed = Alias | Checksum
"""What follows from what a repository is asked for, whatever kind it is."""

Operation = Read | Computed | Static | Write

AnyRead = TypeVar("AnyRead", bound=Read)
"""One sort of what a repository is asked for."""


class Facts(Struct, frozen=True):
    """What upstream says, or we have measured, about a file. Validators are as sent, "" where absent.

    `checksum` is what the format's clients, or a Verifier, know these bytes by, in the format's own notation; "" if
    nothing.  It is kept with the file (FileRecord).
    """

    digest: Digest | None
    size: int | None
    media_type: str
    etag: str = ""
    last_modified: str = ""
    checksum: str = ""


class Page(Struct, frozen=True):
    """One page of upstream's list: its names, and the query that asks for the next one (None: it is the last)."""

    names: tuple[str, ...]
    following: str | None


class Found(Struct, frozen=True):
    """A file, ready to be answered with. Who holds it closes `content` if that is a source.

    `content` None: only the head was asked for.  `size` None: nobody can tell yet.  `digest` None, and `etag` "":
    it is still arriving, and its name does not tell.  `headers` are all that the representation is answered with,
    validators and Warning included; `last_modified` is an HTTP date or "".  `stale`: upstream could not be asked
    whether it still holds.  `ready` is the whole answer to a request without conditions or ranges, for a file in
    memory: made once, sent often.  `checksum` as in FileRecord.
    """

    digest: Digest | None
    size: int | None
    content: bytes | Source | None
    headers: Headers
    etag: str
    last_modified: str = ""
    stale: bool = False
    ready: Response | None = None
    checksum: str = ""

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self.content is not None and not isinstance(self.content, bytes):
            self.content.close()


class Listed(Struct, frozen=True):
    """Names in ASCII order, whether there are more after them, and the Warning field's value if they are stale."""

    names: Sequence[str]
    more: bool
    warning: str = ""


class Indexed(Struct, eq=False):
    """An index as it is now, in bytes. One that has not changed is the same object as before.

    `warning` is the Warning field's value if a part of it is stale, `modified` when it last changed, in seconds since
    the epoch (0: nobody knows).  `found` is what it is answered with, made once, sent often.
    """

    data: bytes
    warning: str = ""
    modified: float = 0.0
    found: Found | None = None


class Entry(Struct, frozen=True):
    """A name in a directory. `size` None: it is a directory itself; `modified` is in seconds since the epoch."""

    name: str
    size: int | None = None
    modified: float = 0.0


class Descriptor(Struct, frozen=True):
    """What an index says about one manifest (image-spec descriptor.md): for referrers.

    `json` is the whole object as an index shows it: these fields, annotations, and whatever we do not know.
    """

    digest: Digest
    size: int
    media_type: str
    artifact_type: str
    json: bytes


class Referred(Struct, frozen=True):
    """Descriptors in the order of their digests, whether there are more, and the Warning field's value if stale."""

    descriptors: Sequence[Descriptor]
    more: bool = False
    warning: str = ""


class ReferrersPage(Struct, frozen=True):
    """One page of upstream's referrers, and the query that asks for the next one (None: it is the last)."""

    descriptors: tuple[Descriptor, ...]
    following: str | None


class NoReferrers(Struct, frozen=True):
    """Upstream does not answer questions for referrers. `certain`: whatever they are about, as far as one can tell."""

    certain: bool
