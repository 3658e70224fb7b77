"""What the writer of a growing file tells the other processes.

A file beside the partial one, appended to and never rewritten, one JSON record a line, each by one
write(2).  Followers hold it open, so they learn the end of the story even after it has been removed,
and look only at its size until that changes.  The first record names the partial file's inode: notes
that belong to an earlier file of the same name are not believed.  A line that is not finished, or
that a power failure turned to zeros, is not there yet: notes are never needed, only useful.
"""

from __future__ import annotations

import errno
import os

import msgspec

from mxart.digest import Digest
from mxart.message import Headers
from mxart.store.files import remove


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record. Later ones add to earlier ones."""

    inode: int = 0
    total: int | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    verified: bool = False  # it is right; it is about to become a blob
    digest: str = ""  # ... of this digest
    broken: str | None = None  # it never will be


_decoder = msgspec.json.Decoder(Note)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class Notes:
    """The notes on one growing file; written by its writer, read by everybody else. Raises OSError where noted."""

    __slots__ = ("_fd", "_inode", "_path", "_pending", "_size", "broken", "digest", "headers", "total", "verified")

    def __init__(self, path: str, inode: int) -> None:
        self._path = path
        self._inode = inode
        self._fd: int | None = None
        self._size = 0
        self._pending = b""
        self._forget()

    def _forget(self) -> None:
        self.total: int | None = None
        self.headers: Headers | None = None
        self.verified = False
        self.digest: Digest | None = None
        self.broken: str | None = None

    def take(self, note: Note) -> None:
        """Know it here already; to be told later, by `append`."""
        if note.headers is not None:
            self.total, self.headers = note.total, Headers.lowered(note.headers)
        self.verified = self.verified or note.verified
        self.digest = self.digest or _digest(note.digest)
        self.broken = self.broken or note.broken

    def append(self, *notes: Note) -> None:
        """Tell everybody. Raises OSError: the disk may be full."""
        line = b"".join(msgspec.json.encode(note) + b"\n" for note in notes)
        if self._fd is None:
            remove(self._path)  # of an earlier file; whoever still reads it is not disturbed
            self._fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            line = msgspec.json.encode(Note(inode=self._inode)) + b"\n" + line
        elif self._pending:
            line = b"\n" + line  # whoever wrote before died within a line
            self._pending = b""
        if os.write(self._fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a second write(2) would say
        for note in notes:
            self.take(note)

    def read(self) -> None:
        """Take in what has been told since the last time. Never raises: what cannot be read is not there."""
        try:
            if self._fd is None:
                self._fd = os.open(self._path, _FLAGS)
            size = os.fstat(self._fd).st_size
            if size == self._size:
                return
            new = os.pread(self._fd, size - self._size, self._size)
        except OSError:
            return
        first = self._size == 0
        self._size += len(new)
        lines = (self._pending + new).split(b"\n")
        self._pending = lines.pop()
        records = [note for line in lines if (note := _decode(line)) is not None]
        if first and (not records or records[0].inode != self._inode):
            self.close()  # of another file with this name, or not begun: look again later
            return
        for record in records:
            self.take(record)

    def close(self) -> None:
        """Let go of the file; what was read stays."""
        fd, self._fd = self._fd, None
        self._size, self._pending = 0, b""
        if fd is not None:
            os.close(fd)


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text) if text else None
    except ValueError:
        return None


def _decode(line: bytes) -> Note | None:
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None
