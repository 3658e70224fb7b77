"""Publishing, in neutral words: what a client may want to write, what became of it, and who takes it.

A format parses a `Write` and renders its `Outcome`; a `Publisher` does the work and never sees a path's
meaning.  Large files come in uploads, which survive the connection and the process; small ones (a manifest, a
module's description) whole, with everything that becomes true with them.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Protocol

from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.message import Headers, RequestBody, Trace
from mxart.repos.callers import Caller
from mxart.store.changes import Change, View
from mxart.store.published import Need, Referrer


class Begin(Struct, frozen=True):
    """Begin an upload of a package.

    With `digest` and its `path` the whole file follows in this request's body.  With `mount` and its `path`
    nothing need be sent if the caller may read these bytes somewhere; `source` is where he says they are, "" if he does
    not.  `algorithm` is that of the digest that will be named at the end, "" if he does not say.
    """

    package: str
    subject: str
    algorithm: str = ""
    digest: Digest | None = None
    mount: Digest | None = None
    path: str = ""
    source: str = ""


class Append(Struct, frozen=True):
    """Append this request's body to an upload. `start` is where it believes that to be; None: wherever that is."""

    package: str
    subject: str
    upload: str
    start: int | None = None


class Finish(Struct, frozen=True):
    """Append this request's body, which may be empty, and publish the upload under `path` if it has that digest."""

    package: str
    subject: str
    upload: str
    path: str
    digest: Digest
    start: int | None = None


class Progress(Struct, frozen=True):
    """How far an upload has come."""

    package: str
    subject: str
    upload: str


class Cancel(Struct, frozen=True):
    """Throw an upload away."""

    package: str
    subject: str
    upload: str


class Publish(Struct, frozen=True):
    """Publish a small file, this request's body.

    `digest` is what the client says it has, None if he does not; `tags` are to point at it, each with the path of
    its own file record.  `conditions` are the request's preconditions (RFC 9110 section 13.1), on what `target`
    holds now.
    """

    package: str
    subject: str
    media_type: str  # as the client sent it, "" if he did not
    digest: Digest | None = None
    tags: tuple[tuple[str, str], ...] = ()
    target: str = ""
    conditions: Headers = Headers()


class Release(Struct, frozen=True):
    """Publish a file of any size, this request's body, that its format judges as a whole: see roles.Releasing.

    It never changes once it is published.  It has at most `most` bytes.  `package` and `path` "": only the file itself
    tells them; `version`, if it is told, has to be that of the file.  `sums` are what the client says it has, pairs of
    an algorithm and hexadecimal text in lower case.
    """

    package: str
    path: str
    subject: str
    most: int
    version: str = ""
    sums: tuple[tuple[str, str], ...] = ()


class Remark(Struct, frozen=True):
    """Say something of what is published: a checksum of it, a list of versions.

    Nothing of this request's body, which has at most `most` bytes, is kept but what its format makes of it (see
    roles.Assembling).  `package` "": only the body tells whose it is.
    """

    package: str
    path: str
    subject: str
    most: int


class Removal(Struct, frozen=True):
    """Delete what lies at `path`: a file, or everything below. What that is, and of which package, is known there."""

    path: str
    subject: str
    package: str = ""


class Delete(Struct, frozen=True):
    """Delete a name. `version` is set where it is the name of a version: whatever tags it has go too.

    `beside` are other names that go with it.
    """

    package: str
    path: str
    subject: str
    version: str = ""
    beside: tuple[str, ...] = ()


Write = Begin | Append | Finish | Progress | Cancel | Publish | Release | Remark | Delete | Removal


class Uploading(Struct, frozen=True):
    """An upload goes on: its first `offset` bytes are here."""

    upload: str
    offset: int


class Stored(Struct, frozen=True):
    """A file is published under its digest."""

    digest: Digest
    mounted: bool = False


class Published(Struct, frozen=True):
    """A small file is published, and these tags point at it. `subject`: what it is a referrer of."""

    digest: Digest
    tags: tuple[str, ...]
    subject: Digest | None = None


class Released(Struct, frozen=True):
    """A file is published, and everybody knows it by this checksum. `new`: it was not there before.

    `path` is its name here, which may be another one than it came with; "" where it is the same.
    """

    checksum: str
    new: bool
    digest: Digest | None = None
    path: str = ""


class Heard(Struct, frozen=True):
    """A remark was right. `new`: something follows from it."""

    new: bool = False


class Gone(Struct, frozen=True):
    """It is deleted, or the upload cancelled. `warning` is for the client's user, "" if there is nothing to say."""

    warning: str = ""


Outcome = Uploading | Stored | Published | Released | Heard | Gone


class Derived(Struct, frozen=True):
    """A small file that follows from another one, and is published with it."""

    path: str
    media_type: str
    data: bytes


class Judgement(Struct, frozen=True):
    """What a format says of a file that is right. `tag` is the version's name, with the path of its own record.

    `checksum` is the same for files that the format holds to be the same, whatever their bytes.
    """

    package: str
    path: str
    checksum: str
    media_type: str
    tag: tuple[str, str]
    derived: tuple[Derived, ...]


class Spot(Struct, frozen=True):
    """Where something is published, and when, in seconds since the epoch.

    `held` is set where it stays out of sight until all of it is there: the name under which the catalog has it
    meanwhile.
    """

    repository: str
    now: float
    held: str = ""


class Hearing(Struct, frozen=True):
    """What a remark comes to.

    `packages`: whoever makes it has to be allowed to publish one of these, if there are any.  `decide` is given those
    of them that he may publish; of others he is not heard.
    """

    packages: tuple[str, ...]
    decide: Callable[[View, Spot, Container[str]], Change]


class Inspection(Struct, frozen=True):
    """What a small file says about others. `nests`: it may need files that need others themselves."""

    needs: tuple[Need, ...] = ()
    referrer: Referrer | None = None
    nests: bool = False


class WrongOffset(Problem):
    """A piece of an upload does not begin where the last one ended: 416. `at` says where that is."""

    status = 416

    def __init__(self, message: str, at: Uploading, *, subject: str) -> None:
        super().__init__(message, subject=subject)
        self.at = at


class Registrar(Protocol):
    """Whoever remembers for ever what was published: a checksum database of our own."""

    async def enter(self, repository: str, judgement: Judgement) -> None:
        """Remember a version, durably when this returns; it is published only then.

        Raises Conflict if it was something else before, whether that is still here or not.
        """
        ...

    async def leaving(self, repository: str, path: str, trace: Trace) -> str:
        """See that a version is remembered before it is deleted, and say what that means; "" if it is not here."""
        ...


class Publisher(Protocol):
    """A repository that takes what clients write. Shared by all requests of a worker."""

    @property
    def name(self) -> str:
        """The repository that it ends up in: the one that the caller's rights are asked about."""
        ...

    def suits(self, operation: Write, caller: Caller) -> bool:
        """Whether, of several repositories that might take it, this is one for it. Microseconds.

        False says nothing about why: `write` does.
        """
        ...

    async def write(self, operation: Write, body: RequestBody, trace: Trace, caller: Caller) -> Outcome:
        """Do it, all or nothing, durably when this returns. The same bytes again succeed.

        That the caller may publish or delete has been seen to; that he may overwrite is demanded here, where a tag
        moves.  Raises NotFound for an unknown upload, another user's too; WrongOffset; BadRequest for a wrong digest
        or a file that is not what it should be, naming what is missing; TooLarge; StorageFull; Disconnected.
        Cancelled: what came of an upload stays, everything else happened or did not.
        """
        ...
