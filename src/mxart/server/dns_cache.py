"""Answers of forwarders, kept in one worker's memory: fresh, then stale for as long as nobody answers. Pure.

Bounded in entries and in bytes; the one that was asked for least recently goes first.  Times are in seconds
of any clock that does not jump.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from mxart.proto.dns import Key
from mxart.proto.dns_kept import Kept

_ENTRIES = 10_000
_BYTES = 8 << 20
_OVERHEAD = 600  # of an entry's objects, about
_TOO_LARGE = 16 << 10
_STALE_SECONDS = 86400.0  # RFC 8767 section 5: a day to three
_FAILURE_SECONDS = 5.0  # RFC 9520 section 3.2: at least one, at most five minutes


class Found(Struct):
    """`age` is what to count down from the records' TTLs."""

    kept: Kept
    age: float
    fresh: bool
    retry: bool
    """Whether, though it is stale, it is time to ask again before it is used."""


class _Entry(Struct):
    kept: Kept
    since: float
    size: int
    retry_at: float = 0.0


class DnsCache:
    """One per worker."""

    def __init__(self, *, entries: int = _ENTRIES, size: int = _BYTES) -> None:
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._failures: OrderedDict[Key, float] = OrderedDict()
        self._most_entries = entries
        self._most_bytes = size
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Found | None:
        """What is kept about a question, None if that is nothing, or too old even as a stale answer."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = now - entry.since
        if age >= entry.kept.lifetime + _STALE_SECONDS:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return Found(entry.kept, age, age < entry.kept.lifetime, now >= entry.retry_at)

    def put(self, key: Key, kept: Kept, now: float) -> None:
        """Keep an answer, if it may be kept at all."""
        self._failures.pop(key, None)
        self._drop(key)
        size = len(kept.sections) + len(key.name) + 160 * len(kept.ttls) + _OVERHEAD
        if kept.lifetime <= 0 or size > min(_TOO_LARGE, self._most_bytes):
            return
        self._entries[key] = _Entry(kept, now, size)
        self._bytes += size
        while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
            self._drop(next(iter(self._entries)))

    def failed(self, key: Key, now: float) -> None:
        """No forwarder answered: for some seconds nobody asks again, and stale answers are given at once."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.retry_at = now + _FAILURE_SECONDS
            return
        self._failures.pop(key, None)
        self._failures[key] = now + _FAILURE_SECONDS
        while len(self._failures) > self._most_entries // 4:
            self._failures.popitem(last=False)

    def has_failed(self, key: Key, now: float) -> bool:
        """Whether it was tried just now, in vain."""
        until = self._failures.get(key)
        if until is not None and now >= until:
            del self._failures[key]
            return False
        return until is not None

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
