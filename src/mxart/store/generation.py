"""A number that every worker process can read in a fraction of a microsecond, and that changes when any of them writes.

It lies in anonymous shared memory, made before the workers are forked.  Each process counts in a slot of
its own, so no update is ever lost to another; the number is the sum of the slots.  A process that takes over
a slot goes on counting where the last one stopped.
"""

from __future__ import annotations

import mmap

_SLOT = 8  # bytes; an aligned store of that size is never seen by halves


class Generation:
    """The counter. Make it before fork(2), then give each worker a slot of its own by `slot`."""

    __slots__ = ("_memory", "_mine", "_slots")

    def __init__(self, slots: int = 1, *, shared: mmap.mmap | None = None, index: int = 0) -> None:
        self._memory = mmap.mmap(-1, slots * _SLOT) if shared is None else shared
        self._slots = memoryview(self._memory).cast("Q")
        if not 0 <= index < len(self._slots):
            raise ValueError(f"slot {index} of {len(self._slots)}")
        self._mine = index

    def slot(self, index: int) -> Generation:
        """The same counter, counting in another slot. One process a slot at a time."""
        return Generation(shared=self._memory, index=index)

    def bump(self) -> None:
        """Something has changed. Call it after the change can be seen. One thread at a time."""
        self._slots[self._mine] += 1

    def value(self) -> int:
        """The number."""
        return sum(self._slots)
