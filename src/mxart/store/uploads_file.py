"""What threads do with the bytes of an upload: onto the disk, into the hash, the hash put aside now and then."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mxart.store.files import WriteAt
from mxart.store.hash_state import ResumableHash, new_hash
from mxart.store.uploads_state import forget_checkpoint, write_checkpoint

_CHECKPOINT = 64 * 1024 * 1024  # bytes between two checkpoints, which a kill may cost to read again
_PIECE = 1024 * 1024  # bytes read at once


class UploadFile:
    """The bytes of an upload and their hash. Owns both descriptors. Used by one thread at a time; its calls block.

    `end` is the size of the file, `hashed` up to where the hash is.  They differ only until `catch_up` is through.
    """

    def __init__(
        self, name: str, data: int, state: int, end: int, hashed: tuple[int, ResumableHash], write_at: WriteAt
    ) -> None:
        self.data = data
        self.end = end
        self.hashed, self._hash = hashed
        self._name = name
        self._state = state
        self._kept = self.hashed  # of which the checkpoint tells
        self._write_at = write_at

    def hexdigest(self) -> str:
        """Of all bytes."""
        if self.hashed != self.end:
            raise RuntimeError("the hash is behind the bytes")
        return self._hash.hexdigest()

    def append(self, chunks: Sequence[bytes | memoryview]) -> OSError | None:
        """Append chunks. What cannot be written is not hashed either. Returns what was in the way."""
        written, error = self._write_at(self.data, chunks, self.end)
        self.end += written
        for chunk in chunks:
            self._hash.update(chunk if written >= len(chunk) else memoryview(chunk)[:written])
            written -= min(written, len(chunk))
        self.hashed = self.end
        if self.end - self._kept >= _CHECKPOINT:
            self.checkpoint()
        return error

    def catch_up(self, most: int) -> bool:
        """Take up to `most` bytes into the hash that are in the file; whether there are more. Raises OSError."""
        self._hash_file(self._hash, self.hashed, goal := min(self.end, self.hashed + most))
        self.hashed = goal
        if self.hashed - self._kept >= _CHECKPOINT:
            self.checkpoint()
        return self.hashed < self.end

    def hash_again(self, other: ResumableHash, start: int, most: int) -> int:
        """Take up to `most` bytes from `start` into another hash; returns how far that is. Raises OSError."""
        self._hash_file(other, start, goal := min(self.end, start + most))
        return goal

    def _hash_file(self, into: ResumableHash, start: int, end: int) -> None:
        buffer = memoryview(bytearray(min(_PIECE, end - start)))
        while start < end:
            count = os.preadv(self.data, [buffer[: end - start]], start)
            if count == 0:
                raise OSError("the upload has become shorter")
            into.update(buffer[:count])
            start += count

    def checkpoint(self) -> None:
        """Put the hash aside. Where that fails, the checkpoint before it holds, and more is read again one day."""
        if self._kept != self.hashed:
            try:
                write_checkpoint(self._state, self._name, self.hashed, self._hash)
            except OSError:
                return
            self._kept = self.hashed

    def start_again(self, algorithm: str) -> None:
        """Throw the bytes away. Raises OSError: then they had better be removed, file and all."""
        forget_checkpoint(self._state)  # first: it must never be found beside other bytes
        os.ftruncate(self.data, 0)
        self.end = self.hashed = self._kept = 0
        self._hash = new_hash(algorithm)

    def close(self) -> None:
        """Put the hash aside and let go of the file; of the lock, too. Without waiting."""
        self.checkpoint()
        os.close(self.data)
        os.close(self._state)
