"""The partial file's names: who is told of it, and whether it becomes a blob, stays to be resumed, or goes."""

from __future__ import annotations

import logging
import os

from mxart.digest import Digest
from mxart.store.download import Download
from mxart.store.files import place, remove
from mxart.store.locks import same_file, unlock
from mxart.store.notes import Note
from mxart.store.paths import StorePaths

log = logging.getLogger(__name__)


class Keeping:
    """What the writer of a download keeps on disk, and tells the other processes.

    `stored` says whether what has been written so far may stay there: false once the disk was full, or where the
    partial file has lost its name.
    """

    __slots__ = ("_download", "_paths", "_untold", "stored")

    def __init__(self, download: Download, paths: StorePaths, *, stored: bool) -> None:
        self._download = download
        self._paths = paths
        self._untold: list[Note] = []
        self.stored = stored

    @property
    def untold(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._untold)

    def note(self, note: Note) -> None:
        """Something for the next `tell`."""
        self._untold.append(note)

    def tell(self, *more: Note) -> None:
        """Notes for other processes. They do without where the disk is full: but for the head, then they are told
        by `forsake`.
        """
        notes, self._untold = (*self._untold, *more), []
        try:
            if self.stored:
                self._download.notes.append(*notes)
        except OSError as error:
            log.warning("%s: notes cannot be written: %s", self._download.digest, error)
            if any(note.headers is not None for note in notes):
                self.forsake()

    def forsake(self) -> None:
        """Nothing of this will be stored: take the partial file's name away, which tells the other processes too."""
        if self.stored:
            self.stored = False
            remove(self._paths.notes(self._download.digest))
            remove(self._download.path)

    def commit(self, digest: Digest) -> None:
        """Make it a blob: synced first, named afterwards. Blocks. Raises OSError."""
        disk = self._download.file.disk
        assert disk is not None
        os.fsync(disk)
        if not same_file(disk, self._download.path):
            raise OSError("its partial file was removed by somebody else")
        place(self._download.path, self._paths.blob(digest))
        remove(self._paths.notes(self._download.digest))

    def leave(self, keep: bool) -> None:
        """The writer is done; `keep`: what there is may be resumed."""
        if not keep:
            self.forsake()
        elif self._untold:
            self.tell()
        self._download.notes.close()
        if self._download.file.disk is not None:
            unlock(self._download.file.disk)
