"""What the bytes of a download must be: known beforehand by their digest, or judged when all of them are there.

Everything in which the two differ is here.  Whatever has the digest that was asked for is right, so it does not
matter from which mirror it came, or whether upstream's file changed on the way.  Bytes that are only known by a name
must all be of one and the same file: what is there already is gone on with only if upstream confirms, by a strong
validator (RFC 9110 section 8.8.1), that it still has that file.
"""

from __future__ import annotations

from typing import Protocol

from mxart.digest import Digest, Hash
from mxart.errors import UpstreamFailed
from mxart.message import Headers
from mxart.store.base import Naming, Unjudged
from mxart.store.paths import StorePaths

_EMPTY = Digest.of(b"")


class Promise(Protocol):
    """See ByDigest and ByName."""

    named: bool
    label: str  # for messages
    subject: str  # of Problems
    path: str  # of the partial file
    notes: str  # of what is told of it

    algorithm: str  # of the digest that the blob will have

    @property
    def may_be_empty(self) -> bool:
        """Whether nothing at all may be right. Of what cannot be judged yet, no head is told before it is."""
        ...

    def hasher(self) -> Hash:
        """A fresh hash of that algorithm."""
        ...

    def settled(self) -> Digest | None:
        """Which blob it is, if that is known by now."""
        ...

    def same(self, known: Headers | None, new: Headers) -> bool:
        """Whether what came with one head may be gone on with by what comes with another."""
        ...

    async def judge(self, unjudged: Unjudged) -> None:
        """Return if all of it is right; see Naming.judge for what it raises."""
        ...

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        """See Naming.record."""
        ...


class ByDigest:
    """A blob whose digest was asked for."""

    named = False
    subject = "blob"

    def __init__(self, digest: Digest, paths: StorePaths) -> None:
        self.label = str(digest)
        self.path = paths.partial(digest)
        self.notes = paths.notes_of(self.path)
        self.algorithm = digest.algorithm
        self._digest = digest

    @property
    def may_be_empty(self) -> bool:
        # There would be no last piece to withhold: an empty answer would be complete with its head.
        return self._digest == Digest.of(b"", self.algorithm)

    def hasher(self) -> Hash:
        return self._digest.hasher()

    def settled(self) -> Digest:
        return self._digest

    def same(self, known: Headers | None, new: Headers) -> bool:
        return True

    async def judge(self, unjudged: Unjudged) -> None:
        if unjudged.digest != self._digest:
            raise UpstreamFailed(f"{self.label}: what upstream sent has the digest {unjudged.digest}", subject="blob")

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        """Whoever waits for a digest knows its names."""


class ByName:
    """A file whose name does not tell its digest. Problems have no subject: whoever asked knows what it is."""

    named = True
    subject = ""
    algorithm = "sha256"
    may_be_empty = True

    def __init__(self, key: str, naming: Naming, paths: StorePaths) -> None:
        self.label = key.replace("\0", " ").strip()
        self.path = paths.partial_named(key)
        self.notes = paths.notes_of(self.path)
        self._naming = naming

    def hasher(self) -> Hash:
        return _EMPTY.hasher()

    def settled(self) -> Digest | None:
        return self._naming.find()

    def same(self, known: Headers | None, new: Headers) -> bool:
        return known is not None and bool(tag := strong(known)) and tag == strong(new)

    async def judge(self, unjudged: Unjudged) -> None:
        await self._naming.judge(unjudged)

    async def record(self, digest: Digest, size: int, headers: Headers) -> None:
        await self._naming.record(digest, size, headers)


def strong(headers: Headers) -> str:
    """The entity tag of a head, if it has a strong one (RFC 9110 section 8.8.3), else ""."""
    tag = headers.get("etag") or ""
    return tag if len(tag) > 2 and tag.startswith('"') else ""
