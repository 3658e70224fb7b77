"""Removing files from a store that no row names.

Within the transaction that sees no row, the file is only renamed to a temporary name, which takes
microseconds; it is removed afterwards, however long that takes for a large one.  Whoever is killed in
between leaves a temporary file, which housekeeping removes.  A file that came under the name meanwhile
(a push of the same bytes, which knows of no transaction yet) is newer than what was looked at, and is put back.
Whoever has it open reads on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from mxart.digest import Digest
from mxart.store.files import remove
from mxart.store.paths import StorePaths
from mxart.store.space.ledger import Ledger

BATCH = 50


class Loose(Struct, frozen=True):
    """A file in a store that no row named when it was looked at."""

    digest: Digest
    size: int


class Shelves:
    """The files of one store."""

    def __init__(
        self,
        name: str,
        stores: Mapping[str, StorePaths],
        rename: Callable[[str, str], None] = os.rename,
    ) -> None:
        self.name = name
        self._stores = stores
        self._paths = stores[name]
        self._rename = rename  # a test has others come in between

    def folders(self) -> Iterator[str]:
        """The first digits of digests, "sha256:ab", one for each folder that files lie in. Raises OSError."""
        for algorithm in _names(str(self._paths.blobs)):
            for first in _names(str(self._paths.blobs / algorithm)):
                if len(first) == 2:
                    yield f"{algorithm}:{first}"

    def digests(self, folder: str) -> list[Digest]:
        """The files in such a folder. What is no file of ours is left out. Raises OSError."""
        algorithm, _, first = folder.partition(":")
        found = []
        for name in _names(str(self._paths.blobs / algorithm / first)):
            with contextlib.suppress(ValueError):
                found.append(Digest.parse(f"{algorithm}:{name}"))
        return found

    def loose(self, digest: Digest, before: float) -> Loose | None:
        """The file, if it is there and has come before a time."""
        try:
            found = os.stat(self._paths.blob(digest))
        except FileNotFoundError:
            return None
        return Loose(digest, found.st_size) if found.st_mtime < before else None

    def is_missed(self, ledger: Ledger, digest: Digest) -> bool:
        """Whether a repository of another store should have it there, and has not: somebody gave it another store, and
        has not moved the files yet.
        """
        others = (self._stores.get(store) for store in ledger.elsewhere(self.name, str(digest)))
        return any(other is not None and not os.path.exists(other.blob(digest)) for other in others)

    def is_young(self, digest: Digest, before: float) -> bool:
        """Whether the file is there and has not come before a time."""
        try:
            return os.stat(self._paths.blob(digest)).st_mtime >= before
        except FileNotFoundError:
            return False

    def sweep(self, ledger: Ledger, files: list[Loose], before: float) -> list[Loose]:
        """Remove those of them that still have no row, and came before a time; returns which. One transaction.

        Raises OSError, sqlite3.Error.
        """
        moved: list[tuple[Loose, str]] = []
        with ledger.writing():
            for file in files:
                if ledger.is_named(self.name, str(file.digest)) or self.is_missed(ledger, file.digest):
                    continue
                scratch = self._paths.scratch()
                if self._take_away(file.digest, scratch, before):
                    moved.append((file, scratch))
        for _, scratch in moved:
            remove(scratch)
        return [file for file, _ in moved]

    def _take_away(self, digest: Digest, scratch: str, before: float) -> bool:
        path = self._paths.blob(digest)
        try:
            if os.stat(path).st_mtime >= before:
                return False
            self._rename(path, scratch)
        except FileNotFoundError:
            return False
        try:
            if os.stat(scratch).st_mtime < before:
                return True
        except FileNotFoundError:  # housekeeping took it for a leftover, which only an old file is taken for
            return True
        with contextlib.suppress(FileExistsError):  # the same bytes came a third time: these do as well
            os.link(scratch, path)
        remove(scratch)
        return False


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
