"""Hashes what is received and written, in a thread beside the one that does that.

To hash takes about as long as to receive and to write together, and all three let go of the interpreter's lock: two
threads push a large file through nearly twice as fast as one, and on a machine with much else to do they get the
processor's time of two.  (A download has its readers for the second core: module recording.)  Pieces go through in
order, three buffers in turns, so neither thread runs far ahead of the other.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from mxart.store.hash_state import ResumableHash

PIECE = 256 * 1024  # bytes of a buffer
_BUFFERS = 3


class HashingAside:
    """The buffers of one upload, and the thread while there is one: from the first full piece on, until `finish`.

    Used by one thread at a time.  After `hash` nobody touches the hash until `finish` returns.
    """

    def __init__(self) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._work: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._made = 0
        self._current: memoryview | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def buffer(self) -> memoryview:
        """One to fill; waits until there is one. The same again if it was not hashed."""
        if self._current is None:
            try:
                self._current = self._free.get(block=self._made == _BUFFERS)
            except Empty:
                self._current = memoryview(bytearray(PIECE))
                self._made += 1
        return self._current

    def hash(self, into: ResumableHash, count: int) -> None:
        """Take the first `count` bytes of the buffer into a hash; what is small, at once."""
        buffer, self._current = self.buffer(), None
        if self._thread is None:
            if count < PIECE:
                into.update(buffer[:count])
                self._free.put(buffer)
                return
            self._thread = threading.Thread(target=self._run, args=(into,), name="upload's hash", daemon=True)
            self._thread.start()
        self._work.put((buffer, count))

    def finish(self) -> None:
        """Wait until all is hashed. Raises what went wrong with that."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self, into: ResumableHash) -> None:
        while (work := self._work.get()) is not None:
            buffer, count = work
            try:
                into.update(buffer[:count])
            except BaseException as error:  # noqa: BLE001  # raised where somebody hears it, by `finish`
                self._failure = error
            self._free.put(buffer)
