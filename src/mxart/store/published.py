"""What hangs together once it is published: the words for it, and the catalog's role that keeps it together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import MxartError
from mxart.store.base import FileRecord


class Need(Struct, frozen=True):
    """What a published file refers to by digest.

    One of `paths`, names in the same repository, must be there; without any it may be missing, and is kept while
    it is there.  `size` is what the file says about it; None: nothing.
    """

    digest: Digest
    size: int | None
    paths: tuple[str, ...] = ()


class Referrer(Struct, frozen=True):
    """What a file says about another one of its package, its subject, which need not be there.

    `descriptor` is the entry, as JSON, under which it is listed among the subject's referrers.
    """

    subject: Digest
    artifact_type: str  # "" if there is none
    descriptor: bytes


class Condition(Struct, frozen=True):
    """What must be so for a publication to happen: of the digest that a path holds then, None if it holds nothing."""

    path: str
    holds: Callable[[Digest | None], bool]


class Publication(Struct, frozen=True):
    """A file under its immutable name, and all that becomes true with it.

    `tags` are pairs of a tag and the path of its own file record.  `nests`: it may need files that need files
    themselves, and so on.  `beside` are other files of its package, which it needs and which `ensure` has to see as
    well; they replace whatever has their names.
    """

    record: FileRecord
    tags: tuple[tuple[str, str], ...] = ()
    needs: tuple[Need, ...] = ()
    referrer: Referrer | None = None
    nests: bool = False
    condition: Condition | None = None
    beside: tuple[FileRecord, ...] = ()


class ReferrerRecord(Struct, frozen=True):
    """One of a subject's referrers."""

    digest: Digest
    size: int
    media_type: str
    artifact_type: str
    json: bytes  # the descriptor of its publication


class Holder(Struct, frozen=True):
    """A name under which a file is kept."""

    repository: str
    package: str
    path: str


class Withdrawn(Struct, frozen=True):
    """What went: the tags that pointed at it; and by how many files of its package it is needed still."""

    tags: tuple[str, ...]
    needed_by: int


class Refused(MxartError):
    """A publication is refused; nothing was changed."""


class Incomplete(Refused):
    """`lacks` are needs that are not there, each with None, or there in another size, each with that."""

    def __init__(self, lacks: tuple[tuple[Need, int | None], ...]) -> None:
        super().__init__(f"{len(lacks)} files that it refers to are missing or of another size")
        self.lacks = lacks


class Occupied(Refused):
    """Other bytes are published under these names (paths, or tags)."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"taken: {', '.join(names)}")
        self.names = names


class Unmet(Refused):
    """The publication's condition does not hold."""


class TooDeep(Refused):
    """What it needs needs others, and so on, for more than `MAX_DEPTH` levels, or it is more than `MAX_BELOW` files."""


class Vanished(Refused):
    """The bytes that were to be named are not in the store any more: put them there again."""


MAX_DEPTH = 16
MAX_BELOW = 100_000

Ensure = Callable[[], bool]
"""Whether the bytes are in the store; called in a thread, within the transaction that would name them."""


class Publications(Protocol):
    """What was published, and what hangs together. A role of the catalog: see there for cancellation and errors.

    A blob's row is made only in a transaction that sees, by `ensure`, that its file exists; whoever
    sweeps unlinks a file only in a transaction that sees no row of it.  So no row ever dangles.
    """

    async def publish(self, publication: Publication, ensure: Ensure, *, replace: bool = True) -> None:
        """In one transaction: the file, its tags, links and referrer; it counts as a use of the file.

        Raises Unmet; Incomplete; Vanished; TooDeep; Occupied if the path holds other bytes, or without `replace` if
        a tag points at others.  What holds the same bytes keeps its `created`.  Where the repository's quota does not
        allow it, raises TooLarge (it never can) or StorageFull (not now), and nothing was changed.
        """
        ...

    def demand_room(self, repository: str, digest: Digest | None, size: int) -> int | None:
        """Raise as `publish` does if so many bytes more are too much for the repository. Microseconds.

        Before a file is taken in, or as far as it has come; `digest`, if it is known: what is held already needs no
        room.  Returns how many bytes a file may have at most, None: any number.
        """
        ...

    async def rely(self, repository: str, path: str, now: float) -> bool:
        """Note a use of a file, durably when this returns; False if it is not there (any more)."""
        ...

    async def withdraw(
        self, repository: str, path: str, version: str = "", beside: tuple[str, ...] = ()
    ) -> Withdrawn | None:
        """Delete a file's name with all that hangs on it; None if it is not there.

        `version`: the name of the version that this file is; then the tags that point at it go too, with their own
        file records; many hundreds of these in several transactions, the file in the last one.  `beside`: other names
        that go with it; then its version is its digest.  The bytes stay until they are swept.
        """
        ...

    def referrers(
        self,
        repository: str,
        package: str,
        subject: str,
        artifact_type: str = "",
        after: str = "",
        limit: int = 1000,
        max_bytes: int = 1 << 20,
    ) -> list[ReferrerRecord]:
        """By digest, those after `after`; empty for what nobody knows. `artifact_type` "": of any.

        At most `limit`, and no more than have `max_bytes` of JSON together, but one if there is one.
        """
        ...

    def owned(self, repository: str, package: str, companions: str) -> bool:
        """Whether something is published under this name that is more than a remark on files of others.

        A remark is a file that refers to another one, or is known only by tags that match `companions`, a GLOB pattern
        of SQLite's; and what such a file needs.  Files that have no links are taken for what some other needs.
        """
        ...

    def begun(self, repository: str, package: str) -> bool:
        """Whether files are kept of this package, and none that has links."""
        ...

    def holders(self, digest: Digest, limit: int = 1000) -> list[Holder]:
        """Names under which these bytes are kept, in any repository."""
        ...

    def tag_names(self, repository: str, package: str, after: str, limit: int) -> list[str]:
        """Tags in ASCII order, those after `after`: names alone, ten times as fast as `Catalog.tags`."""
        ...
