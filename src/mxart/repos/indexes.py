"""Indexes in memory: each with what it was made from, and good for as long as that is the same."""

from __future__ import annotations

from collections import OrderedDict

from mxart.repos.operations import Indexed

_MAX_BYTES = 16 << 20
_ENTRY_COST = 1024


class Indexes:
    """Those of one repository, the least recently used out first."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max = max_bytes
        self._held = 0
        self._entries: OrderedDict[str, tuple[object, Indexed]] = OrderedDict()

    def get(self, path: str, source: object) -> Indexed | None:
        """What was made from the same source before. Microseconds."""
        entry = self._entries.get(path)
        if entry is None or entry[0] != source:
            return None
        self._entries.move_to_end(path)
        return entry[1]

    def put(self, path: str, source: object, made: Indexed) -> Indexed:
        """Remember, and forget what no longer fits. Returns what was before where only the source has moved."""
        old = self._entries.pop(path, None)
        if old is not None:
            self._held -= _cost(old[1])
            if (old[1].data, old[1].warning, old[1].modified) == (made.data, made.warning, made.modified):
                made = old[1]
        self._entries[path] = (source, made)
        self._held += _cost(made)
        while self._held > self._max and len(self._entries) > 1:
            _, (_, oldest) = self._entries.popitem(last=False)
            self._held -= _cost(oldest)
        return made


def _cost(made: Indexed) -> int:
    return 2 * len(made.data) + _ENTRY_COST
