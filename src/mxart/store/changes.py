"""Changes that depend on what is there already: the words for them, and the catalog's role that makes them.

Where a file's name, or what goes with it, follows from what a repository holds, nobody may decide that from an earlier
read: another process may have written since.  So whoever wants a change says how it is decided, and is asked inside the
transaction that makes it, which no other writer is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from msgspec import Struct

from mxart.store.base import FileRecord, VersionRecord


class Note(Struct, frozen=True):
    """Something that was said of a path in a repository and that no file tells. `value` "": no more.

    It outlasts the files: that a number was given away is true after what it was given to is deleted.
    """

    repository: str
    path: str
    key: str
    value: str


class Change(Struct, frozen=True):
    """What becomes true together: first goes what is `gone`, pairs of a repository and a path, then all else is put.

    What is put replaces what has its name.  `tags` are pairs of a tag and its own file record; a tag goes with that.
    """

    gone: tuple[tuple[str, str], ...] = ()
    files: tuple[FileRecord, ...] = ()
    tags: tuple[tuple[str, FileRecord], ...] = ()
    notes: tuple[Note, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.gone or self.files or self.tags or self.notes)


NOTHING = Change()


HELD = "+"
"""In the name of what a repository keeps out of sight; no repository of a configuration is called so."""


def held_name(repository: str, user: str) -> str:
    """Under which name the catalog has what a user has sent to a repository and what is not all there yet."""
    return f"{repository}{HELD}{user}"


class Child(Struct, frozen=True):
    """A name right below a folder. `record` None: it is a folder, too; `package` is that of a file in it."""

    name: str
    package: str
    record: FileRecord | None


class View(Protocol):
    """What the catalog holds at one moment. Each question takes microseconds, `below` some for each file."""

    def file(self, repository: str, path: str) -> FileRecord | None: ...

    def below(self, repository: str, folder: str) -> list[FileRecord]:
        """The files whose path begins with `folder` and a slash, by path; the tags' own records are not among them."""
        ...

    def tag(self, repository: str, package: str, name: str) -> VersionRecord | None: ...

    def tags(self, repository: str, package: str) -> list[VersionRecord]:
        """All tags of a package, in ASCII order."""
        ...

    def children(
        self, repository: str, folder: str, after: Child | None = None, limit: int | None = None
    ) -> list[Child]:
        """What lies right below a folder ("": the root); the tags' own records are not among it.

        In the order of their paths, where a folder's has a slash at its end; those after one of them, at most `limit`.
        Takes some microseconds for each.
        """
        ...

    def has_package(self, repository: str, package: str) -> bool: ...

    def notes(self, repository: str, path: str) -> dict[str, str]:
        """What was said of a path: values by key."""
        ...


Decide = Callable[[View], Change]
"""What is to change. Called in a thread, within the transaction and perhaps before it, too; short, and without effect
of its own.  A Problem that it raises refuses the change."""


Seen = TypeVar("Seen")


class Changes(Protocol):
    """A role of the catalog: see there for cancellation and errors."""

    def view(self) -> View:
        """What is there now, for reading on the event loop; each question is answered as of its own moment."""
        ...

    def look(self, read: Callable[[View], Seen]) -> Seen:
        """What somebody makes of what is there at one moment, on the event loop: `read` is called at once, and short.

        Whoever asks several questions and concludes from the answers needs that: they fit together.
        """
        ...

    async def change(self, decide: Decide, ensure: Callable[[], bool]) -> Change:
        """Make the change that is decided on, in one transaction, and return it; durable when this returns.

        `ensure` is as for Publications.publish, and asked only where files are put.  What holds the same bytes keeps
        its `created`.  Raises what `decide` does; Vanished; TooLarge or StorageFull where the quota of a repository
        does not allow it.  Then nothing was changed.
        """
        ...
