"""Indexes in memory: each with what it was made from, and good for as long as that is the same."""

from __future__ import annotations

from collections import OrderedDict

from mxart.repos.operations import Indexed

_MAX_BYTES = 4 << 20
_ENTRY_COST = 1024


class Indexes:
    """Those of one repository, the least recently used out first."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max = max_bytes
        self._held = 0
        self._entries: OrderedDict[str, tuple[object, Indexed | None]] = OrderedDict()

    def get(self, path: str, source: object) -> tuple[Indexed | None] | None:
        """What was made from the same source before, perhaps nothing; None: that is not remembered. Microseconds."""
        entry = self._entries.get(path)
        if entry is None or entry[0] != source:
            return None
        self._entries.move_to_end(path)
        return entry[1:]

    def put(self, path: str, source: object, made: Indexed | None) -> Indexed | None:
        """Remember, and forget what no longer fits. Returns what was before where only the source has moved."""
        source_before, before = self._entries.pop(path, (None, None))
        if source_before is not None:
            self._held -= _cost(before)
        if made is not None and before is not None and _same(made, before):
            made = before
        self._entries[path] = (source, made)
        self._held += _cost(made)
        while self._held > self._max and len(self._entries) > 1:
            _, (_, oldest) = self._entries.popitem(last=False)
            self._held -= _cost(oldest)
        return made


def _same(one: Indexed, other: Indexed) -> bool:
    return (one.data, one.warning, one.modified) == (other.data, other.warning, other.modified)


def _cost(made: Indexed | None) -> int:
    return _ENTRY_COST + (2 * len(made.data) if made is not None else 0)
