"""What the rest of the program sees of bytes at rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO, Protocol, TypeVar

from msgspec import Struct

from mxart.body import Source
from mxart.digest import Digest
from mxart.errors import BadRequest, NotFound, Problem
from mxart.message import Headers, RequestBody, Tap

Judged = TypeVar("Judged")


class Blobs(Protocol):
    """Content-addressed files; what is under a digest has that digest. Methods without `async` take microseconds."""

    def open(self, digest: Digest) -> Source | None:
        """The complete file under a digest, None if it is not here."""
        ...

    async def read(self, digest: Digest, max_bytes: int) -> bytes | None:
        """A small file whole; None if it is not here or larger than `max_bytes`."""
        ...

    async def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        """Keep some bytes, durably when this returns.

        Raises ValueError if they do not have that digest, StorageFull.  Cancelled: kept whole or not at all.
        """
        ...

    def has(self, digest: Digest) -> bool: ...


class Sink(Protocol):
    """The writing end of a growing download, handed to its origin."""

    @property
    def offset(self) -> int:
        """How many bytes are there already: the origin delivers what comes after them."""
        ...

    @property
    def headers(self) -> Headers | None:
        """The head that the bytes already there came with; None before `begin` was ever called."""
        ...

    def begin(self, total: int | None, headers: Headers) -> None:
        """The head of the answer is there; wakes everybody who waits in `join`.

        Called again after a resume; raises UpstreamFailed if `total` contradicts what was said before.
        """
        ...

    async def write(self, chunk: bytes) -> None:
        """Append.

        Slows the origin down where the disk is full and readers hold the only copy. Raises UpstreamFailed
        past `total`.
        """
        ...

    async def draw(self, tap: Tap) -> None:
        """Append what comes out of a tap, for as long as it comes without a pause; nothing past `total`.

        May append nothing; the origin then goes on with `write`.  Cancelled: what was taken is there.
        """
        ...


Origin = Callable[[Sink], Awaitable[None]]
"""Delivers bytes into a sink until the end, resuming by itself; raises a Problem when it has to give up."""


class Joined(Struct, frozen=True):
    """A running or finished download that one reader follows. The reader closes `source`."""

    source: Source
    headers: Headers  # as given to Sink.begin; none for a blob that was here already
    started: bool  # this call began it; False: it was under way already
    digest: Digest | None = None  # None: not known before the end


class Unjudged(Struct, frozen=True):
    """A whole file that nobody has vouched for yet.

    `file` is for reading, from its first byte on, and can be sought in; its calls block.  It is closed when the
    judgement is over, and need not be a file of the file system's.
    """

    file: BinaryIO
    size: int
    digest: Digest  # sha256
    headers: Headers  # the head that it came with


class Naming(Protocol):
    """What its caller knows of a download whose name does not tell its digest.

    Called in whichever process writes, in a task of the server's.
    """

    def find(self) -> Digest | None:
        """Which blob has the name by now, None if none has. Takes microseconds; raises a Problem if nobody can tell."""
        ...

    async def judge(self, unjudged: Unjudged) -> None:
        """Return if the file is right. What blocks happens in threads, none of which outlives the call.

        Raises UpstreamUnavailable or UpstreamTimeout where that cannot be told now: the file is kept, to be judged
        again for whoever asks next.  After any other Problem it is thrown away.  In each case nobody gets the last of
        it.  Cancelled: it is kept.
        """
        ...

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        """Give the blob its name, durably: it is judged and synced, and among the blobs a moment later.

        Nobody begins this download again meanwhile.  Should the process die in that moment, `find` names a blob that
        is not there; the next one to ask completes it.  Raises a Problem: then it is not kept, and logged.
        """
        ...


class Transfers(Protocol):
    """Downloads under way, one per digest, or name, across all requests and workers."""

    async def join(self, digest: Digest, size: int | None, origin: Origin) -> Joined:
        """Follow the download of a blob, beginning it if nobody has; returns when its head is known.

        The download belongs to the server: it goes on when this reader leaves, resumes what an
        earlier process left behind, and is committed to the blobs once length and digest are right; until
        then readers get all but
        the last piece.  `size` is checked where the caller knows it.  If several callers give an origin, one is used.
        Raises the Problem that the origin raised before the head was known.  Cancellation leaves the download running.
        """
        ...

    async def join_named(self, key: str, origin: Origin, naming: Naming) -> Joined:
        """The same for a file whose name does not tell its digest; `key` is that name, unique in the store.

        Returns when the first byte may be read, so that whoever waits for a file that is judged wrong before that is
        told: raises that Problem, too.  Each call of the origin must ask upstream anew.  It may be called again, from
        the first byte on, when upstream turns out to have another file than the one that an earlier process has left
        half-done; whoever has been given a part of that one is cut.  Where the disk is full the rest of it, which has
        to be judged, is kept in memory: StorageFull if that is more than a few megabytes.
        """
        ...


class UploadUnknown(NotFound):
    """There is no such upload: it was committed, given up, has expired, or never was."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No upload {name[:64]!r} is under way here; begin a new one", subject="upload")


class UploadBusy(Problem):
    """Another request is at this upload; perhaps one whose client has gone, which was not noticed yet."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "Another request is at this upload; send one after the other", subject="upload", retry_after=1.0
        )


class DigestMismatch(BadRequest):
    """The bytes of an upload do not have the digest that they should; `found` is the one they have."""

    def __init__(self, wanted: Digest, found: Digest, size: int) -> None:
        super().__init__(f"The {size} bytes that came have the digest {found}, not {wanted}", subject="digest")
        self.found = found


class UploadState(Struct):
    """An upload as it stood when somebody looked."""

    id: str  # unguessable
    repository: str
    package: str
    owner: str  # the user who began it, "" if anonymous: the caller checks, the store does not
    algorithm: str  # of the hash that is made while receiving: "sha256", "sha512"
    offset: int  # bytes that are there
    created: float  # seconds since the epoch


class Upload(Protocol):
    """A file that a client sends, in one request or in many. Nobody else has it, in any worker, while it is open."""

    @property
    def state(self) -> UploadState:
        """Its offset moves with the calls below."""
        ...

    async def receive(self, body: RequestBody, limit: int | None) -> None:
        """Append a request's whole body, hashing as it comes.

        Raises TooLarge where the upload would have more than `limit` bytes (before the first one is taken, if the
        body tells its length), StorageFull, and what the body raises.  After each of them, and when
        cancelled, `state.offset` says how much of it is there, in order, and it can go on from there.
        """
        ...

    async def review(self, look: Callable[[Unjudged], Judged]) -> Judged:
        """What `look`, which is called in a thread and may block, says of everything that has come so far.

        Raises what it raises, and StorageFull.  Cancelled: the thread is waited for.
        """
        ...

    async def commit(self, digest: Digest) -> int:
        """Make it a blob, durably when this returns, and return its size; after that the upload is gone.

        Raises DigestMismatch, StorageFull: then the upload is kept (if its bytes are in doubt, without them:
        see `state.offset`).  Cancelled: done wholly or not at all.  A digest of another algorithm than the
        upload's costs reading it all again.
        """
        ...

    async def discard(self) -> None:
        """Give it up: its bytes go at once. Does nothing where it is gone already."""
        ...


class Uploads(Protocol):
    """The uploads under way in one store, for all repositories in it. They outlive the process and expire unused."""

    async def begin(self, repository: str, package: str, owner: str, algorithm: str = "sha256") -> UploadState:
        """A new, empty one.

        Raises StorageFull, and UpstreamUnavailable where absurdly many are under way.  Cancelled: there may be one that
        nobody knows, which expires.
        """
        ...

    def find(self, name: str) -> UploadState | None:
        """How an upload stands, by its id; None if there is none. It may be open somewhere. Takes microseconds."""
        ...

    def open(self, name: str) -> AbstractAsyncContextManager[Upload]:
        """Have it alone, by its id. Entering waits a moment for whoever has it; raises UploadUnknown, UploadBusy.

        Entering reads again what a killed worker had not hashed yet.  Leaving puts the hash aside for the next one.
        """
        ...


class Turns(Protocol):
    """One at a time, by name, over all requests and workers."""

    def take(self, name: str) -> AbstractAsyncContextManager[None]:
        """Entering waits until nobody else holds the name. Never take two. Cancelled while waiting: nothing is held."""
        ...


class FileRecord(Struct, frozen=True):
    """A file of a repository: a name for a blob, and how it was last confirmed. Times are seconds since the epoch."""

    repository: str
    package: str  # "library/alpine"
    path: str  # unique in the repository: "library/alpine/manifests/sha256:..."
    digest: Digest
    size: int
    media_type: str
    etag: str = ""  # upstream's validators, as sent
    last_modified: str = ""
    origin: str = ""  # URL of the mirror it came from; "" if it was published here
    created: float = 0.0  # when these bytes were first seen under this name
    validated: float = 0.0  # when upstream last confirmed it; meaningless for immutable files
    checksum: str = ""  # what its format's clients know these bytes by, in the format's notation; "" if nothing


class VersionRecord(Struct, frozen=True):
    """A version of a package (an OCI manifest, by digest), or a tag that points at one."""

    name: str  # the digest, or the tag
    digest: Digest
    created: float


class Catalog(Protocol):
    """The names of everything that is kept.

    Reads are synchronous and take microseconds; a write is durable when it returns.

    Cancelled during a write: it happened or it did not, never half.
    """

    def generation(self) -> int:
        """A number that changes whenever any worker has changed anything.

        What is remembered in memory is valid while it stays.
        """
        ...

    def file(self, repository: str, path: str) -> FileRecord | None: ...
    async def put_file(self, record: FileRecord) -> None:
        """Insert or replace."""
        ...

    async def forget_file(self, repository: str, path: str) -> None: ...
    async def put_tag(self, repository: str, package: str, tag: str, record: FileRecord) -> None:
        """In one transaction: the tag's own file record, and the tag pointing at its version."""
        ...

    def tags(self, repository: str, package: str, after: str, limit: int) -> list[VersionRecord]:
        """Tags in ASCII order, those after `after`."""
        ...

    def has_package(self, repository: str, package: str) -> bool: ...
    def packages(self, repository: str, after: str, limit: int) -> list[str]: ...

    def missing(self, repository: str, path: str, now: float) -> bool:
        """Whether upstream said lately, within the negative ttl, that it has no such file."""
        ...

    async def put_missing(self, repository: str, path: str, until: float) -> None: ...

    def used(self, repository: str, path: str, now: float) -> None:
        """Note a use; written in batches, a crash may lose the last minute of these."""
        ...
