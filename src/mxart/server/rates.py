"""How many requests a client may send: one rate for each client, kept over all workers and over a reload.

Theory of operation
-------------------
The generic cell rate algorithm (ITU-T I.371, annex A), a token bucket in one number: of each client only the
*theoretical arrival time* is kept, the moment at which its bucket is full again.  A request moves it on by the
interval between two requests of the rate, and is refused if that would lead further ahead of now than a burst.

The times lie in a table in shared memory, made before the workers are forked.  A key's keyed hash (nobody can
choose an address that shares a slot with another's) gives a row of a few slots and a tag to tell keys in it
apart.  A time that has passed says nothing any more, so its slot is free for anybody.  When every slot of a row is
taken by others, the one that would be free first is given up, and whoever had it starts anew: the table never
grows, and a flood of addresses makes the limit more lenient, never unjust.

A row is looked at and changed under a record lock of its own (fcntl(2)), which the system takes
back when a worker dies: no request is ever counted twice or not at all.  The lock is held for some microseconds.
"""

from __future__ import annotations

import fcntl
import ipaddress
import math
import mmap
import os
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from mxart.config import Limits

_ROWS = 8192
_SLOTS = 8  # in a row; one is a tag and a time, 8 bytes each
_BURST_SECONDS = 10.0  # of the rate, where the configuration names no burst
_SECOND = 1_000_000_000


class Rate(Struct, frozen=True):
    """A rate: nanoseconds between two requests, and how many may come at once. Pure."""

    interval: int
    burst: int

    @classmethod
    def of(cls, limits: Limits) -> Rate | None:
        """What the configuration wants; None: any rate is fine."""
        if limits.requests_per_second <= 0:
            return None
        interval = math.ceil(_SECOND / limits.requests_per_second)
        return cls(interval, limits.burst or max(1, math.ceil(limits.requests_per_second * _BURST_SECONDS)))

    def take(self, full_at: int, now: int) -> tuple[int, int]:
        """Spend one request of a bucket that is full again at `full_at`.

        When it is full again after that, and 0; or, if it is empty, `full_at` as it was and the nanoseconds to wait.
        """
        after = max(full_at, now) + self.interval
        wait = after - now - self.burst * self.interval
        return (after, 0) if wait <= 0 else (full_at, wait)


class RateTable:
    """The times of all clients. Make it before fork(2)."""

    def __init__(self, *, rows: int = _ROWS, key: bytes | None = None) -> None:
        self._rows = rows
        self._key = os.urandom(32) if key is None else key
        size = rows * _SLOTS * 16
        self._file = os.memfd_create("mxart-rates")
        os.ftruncate(self._file, size)
        self._words = memoryview(mmap.mmap(self._file, size)).cast("Q")

    def close(self) -> None:
        """Give the memory back. Only for whoever makes many tables."""
        os.close(self._file)
        self._words.release()

    def take(self, key: str, rate: Rate, now: int) -> int:
        """Spend one request of `key`'s: 0, or how many nanoseconds too early it comes. `now` is of a steady clock."""
        start, tag = self._place(key)
        fcntl.lockf(self._file, fcntl.LOCK_EX, _SLOTS, start)
        try:
            slot = self._find(2 * start, tag)
            known = self._words[slot + 1] if self._words[slot] == tag else 0
            full_at, wait = rate.take(known, now)
            self._words[slot] = tag
            self._words[slot + 1] = full_at
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _SLOTS, start)
        return wait

    def wait(self, key: str, rate: Rate, now: int) -> int:
        """How many nanoseconds too early a request of `key`'s would come now. Nothing is spent."""
        start, tag = self._place(key)
        fcntl.lockf(self._file, fcntl.LOCK_EX, _SLOTS, start)
        try:
            slot = self._find(2 * start, tag)
            known = self._words[slot + 1] if self._words[slot] == tag else 0
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _SLOTS, start)
        return rate.take(known, now)[1]

    def _place(self, key: str) -> tuple[int, int]:
        """The first slot of a key's row, and its tag."""
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16, key=self._key).digest()
        row = int.from_bytes(digest[:8], "little") % self._rows
        return row * _SLOTS, int.from_bytes(digest[8:], "little") or 1  # 0 is a slot that was never used

    def _find(self, start: int, tag: int) -> int:
        """Where the tag is in a row, or else the slot that is free, or will be first."""
        words = self._words
        best = start
        for slot in range(start, start + 2 * _SLOTS, 2):
            if words[slot] == tag:
                return slot
            if words[slot + 1] < words[best + 1]:
                best = slot
        return best


class Limiter:
    """A rate, and the table that it is kept in."""

    def __init__(self, table: RateTable, rate: Rate, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` gives nanoseconds, the same in all processes, and never goes back."""
        self._table = table
        self._rate = rate
        self._clock = clock

    def __str__(self) -> str:
        return f"{_SECOND / self._rate.interval:g} a second, and {self._rate.burst} at once"

    def wait(self, address: str) -> float:
        """Count a request from an IP address: 0.0 if it may be answered, else the seconds until one may."""
        return self._table.take(client_of(address), self._rate, self._clock()) / _SECOND


def limiter(limits: Limits, table: RateTable) -> Limiter | None:
    """What the configuration wants; None where every rate is fine."""
    rate = Rate.of(limits)
    return Limiter(table, rate) if rate is not None else None


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Who is behind an address: itself, or all of its /64, which is one customer's (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(ip) >> 64 << 64)}/64"
