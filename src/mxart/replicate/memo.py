"""What a replication remembers of uploads that it has begun, so that the next one goes on with them.

One small file for each upload, its name a hash of target, repository and digest: where the upload is (its Location,
which may be as good as a password: 0600).  flock(2) on it says that somebody is at it; whoever comes second uploads for
himself and remembers nothing.  Nothing needs to be in step: the offset is always asked of the target.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mxart.errors import MxartError
from mxart.store.locks import same_file, try_lock

_KEPT_SECONDS = 7 * 86400.0  # registries forget an upload sooner


class Note(msgspec.Struct):
    """What is in a file."""

    target: str
    digest: str
    location: str


class Kept:
    """What is remembered of one upload. `location` is "" for nothing."""

    def __init__(self, fd: int | None, target: str, digest: str) -> None:
        self._fd = fd
        self._note = Note(target, digest, "")
        if fd is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                note = msgspec.json.decode(os.pread(fd, 65536, 0), type=Note)
                if (note.target, note.digest) == (target, digest):
                    self._note = note

    @property
    def location(self) -> str:
        return self._note.location

    def keep(self, location: str) -> None:
        """Remember where the upload is now. Raises OSError."""
        self._note.location = location
        if self._fd is not None:
            data = msgspec.json.encode(self._note)
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))

    def forget(self) -> None:
        """It is done, or of no more use. Raises OSError."""
        self._note.location = ""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)


class Memo:
    """A folder of such files; made at first use. `folder` None: nothing is remembered."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, target: str, digest: str) -> Iterator[Kept]:
        """What is known of an upload, ours alone inside the block. Raises MxartError if the folder is of no use."""

        if self._folder is None:
            yield Kept(None, target, digest)
            return
        path = self._folder / hashlib.sha256(f"{target} {digest}".encode()).hexdigest()[:40]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MxartError(f"{path}: {error.strerror}; replications remember there what they have begun") from None
        try:
            if try_lock(fd) and same_file(fd, str(path)):
                kept = Kept(fd, target, digest)
                try:
                    yield kept
                finally:
                    if not kept.location:
                        path.unlink(missing_ok=True)
            else:
                yield Kept(None, target, digest)
        finally:
            os.close(fd)

    def sweep(self) -> None:
        """Remove what is too old to be of use, and what earlier runs left empty. Cheap; never raises."""
        if self._folder is None or not self._folder.is_dir():
            return
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder):
                if time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
                    os.unlink(entry.path)
