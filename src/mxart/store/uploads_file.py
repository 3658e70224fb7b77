"""What threads do with the bytes of an upload: onto the disk, into the hash, the hash put aside now and then.

Theory of operation
-------------------
A thread receives and writes, for a stretch of time, and another one hashes (module uploads_hashing).  Nobody reads
along, as with downloads, but somebody waits for the end: the commit syncs, and that is to be short however large the
file.  So the kernel is told to write out what has come, 8 MiB at a time, and when it is more than 32 MiB behind, the
thread waits for it.  This costs no time: at the end it would have been waited for all the same.

A piece is 256 KiB, so that it is still in a processor's cache when it is written and hashed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic

from msgspec import Struct

from mxart.message import Tap
from mxart.store.files import WriteAt, finish_writeback, start_writeback
from mxart.store.hash_state import ResumableHash, new_hash
from mxart.store.recording import fill
from mxart.store.uploads_hashing import PIECE, HashingAside
from mxart.store.uploads_state import forget_checkpoint, write_checkpoint

_CHECKPOINT = 64 * 1024 * 1024  # bytes between two checkpoints, which a kill may cost to read again
_STRETCH = 0.05  # seconds
_WRITEBACK = 8 * 1024 * 1024  # bytes
_BEHIND = 32 * 1024 * 1024


class Drawn(Struct, frozen=True):
    """How a stretch ended."""

    taken: int  # bytes from the tap; if they could not be written they are lost
    more: bool = False  # another stretch may follow at once
    error: OSError | None = None  # what was in the way


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
        self._started = end  # writing out is begun up to here,
        self._written_out = end  # and done up to here
        self._aside = HashingAside()
        self.doubtful = False  # the disk has lost some of the bytes: `start_again` is all that is left

    def hexdigest(self) -> str:
        """Of all bytes."""
        if self.hashed != self.end:
            raise RuntimeError("the hash is behind the bytes")
        return self._hash.hexdigest()

    def append(self, chunks: Sequence[bytes | memoryview]) -> OSError | None:
        """Append chunks. What cannot be written is not hashed either. Returns what was in the way."""
        if not chunks:
            return None
        if self.hashed != self.end:
            raise RuntimeError("the hash is behind the bytes")
        written, error = self._write_at(self.data, chunks, self.end)
        self.end += written
        for chunk in chunks:
            self._hash.update(chunk if written >= len(chunk) else memoryview(chunk)[:written])
            written -= min(written, len(chunk))
        self._hash_is_there()
        return error or self._write_out()

    def _hash_is_there(self) -> None:
        """All bytes are hashed."""
        self.hashed = self.end
        if self.end - self._kept >= _CHECKPOINT:
            self.checkpoint()

    def _write_out(self) -> OSError | None:
        """Have what has come written out, if it is much, and do not run far ahead of that."""
        if self.end - self._started < _WRITEBACK:
            return None
        start_writeback(self.data, self._started, self.end)
        self._started = self.end
        if self._started - self._written_out > _BEHIND:
            return self.settle(_BEHIND - _WRITEBACK)
        return None

    def settle(self, most: int = _WRITEBACK) -> OSError | None:
        """Wait until no more than the last `most` bytes still have to be written out. Returns what was in the way."""
        goal = self.end - most
        if goal <= self._written_out:
            return None
        try:
            finish_writeback(self.data, self._written_out, goal)
        except OSError as error:
            self.doubtful = True
            return error
        self._written_out = goal
        self._started = max(self._started, goal)
        return None

    def draw(self, chunks: Sequence[bytes], tap: Tap, end: int) -> Drawn:
        """Append chunks, and then what comes out of a tap, for a stretch, and not past the offset `end`."""
        until = monotonic() + _STRETCH
        error = self.append(chunks)
        taken = 0
        try:
            while error is None and self.end < end:
                piece = fill(tap, self._aside.buffer()[: end - self.end], until)
                if not piece:
                    return Drawn(taken)
                taken += len(piece)
                written, error = self._write_at(self.data, (piece,), self.end)
                self.end += written
                self._aside.hash(self._hash, written)
                error = error or self._write_out()
                if monotonic() >= until:
                    break
        finally:
            self._aside.finish()
            self._hash_is_there()
        return Drawn(taken, error is None and self.end < end, error)

    def sync(self) -> None:
        """Everything is durable when this returns. Raises OSError."""
        try:
            os.fsync(self.data)
        except OSError:
            self.doubtful = True  # the next one may succeed all the same, and say nothing of the bytes that were lost
            raise

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
        buffer = memoryview(bytearray(min(PIECE, end - start)))
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
        self.doubtful = False
        forget_checkpoint(self._state)  # first: it must never be found beside other bytes
        os.ftruncate(self.data, 0)
        self.end = self.hashed = self._kept = self._started = self._written_out = 0
        self._hash = new_hash(algorithm)

    def close(self) -> None:
        """Let go of the file; of the lock, too. Without waiting."""
        os.close(self.data)
        os.close(self._state)
