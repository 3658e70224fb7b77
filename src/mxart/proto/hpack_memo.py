"""HPACK, remembered: the same block against the same table always means the same.

A header block is a pure function of its bytes and of the dynamic table (RFC 7541 section 2.2).  A
client that asks for the same thing again sends, once the table is warm, the very same few bytes,
and gets the very same answer.  So what a block came to is kept for as long as the table does not
change, and only if the block itself left the table as it was. hpack still does every block that is
not remembered; nothing is guessed.

Memory: at most `_ENTRIES` blocks, each with its meaning at most `_LARGEST` bytes, in each direction
of a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.table import HeaderTable

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ENTRIES = 32
_LARGEST = 2048  # bytes of a block and of what it says: a few bytes may stand for many

# What differs from one answer to the next would push the useful entries out of the table, and every insertion makes the
# memo worthless; a set-cookie must never be guessable from the table (RFC 7541 section 7.1.3).
_NEVER_INDEXED = frozenset(
    (
        b"age",
        b"content-length",
        b"content-range",
        b"date",
        b"docker-content-digest",
        b"etag",
        b"last-modified",
        b"link",
        b"location",
        b"set-cookie",
    )
)


_SET_MAXSIZE: Callable[[HeaderTable, int], None] = vars(HeaderTable)["maxsize"].fset


class _Table(HeaderTable):
    """A table that counts what changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        before = len(self.dynamic_entries)
        super().add(name, value)
        if before or self.dynamic_entries:  # an entry too large for an empty table changes nothing
            self.changes += 1

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        # Any setting may evict.  A change that was not told to the peer yet stays to be told, whatever follows it.
        self.changes += 1
        untold = self.resized
        _SET_MAXSIZE(self, newmax)
        self.resized = self.resized or untold


class _Memo(Generic[K, V]):
    """A few results, each good for one state of the table."""

    def __init__(self) -> None:
        self._known: dict[K, V] = {}
        self._state = 0

    def get(self, key: K, state: int) -> V | None:
        if state != self._state:
            self._known.clear()
            self._state = state
        return self._known.get(key)

    def put(self, key: K, value: V) -> None:
        if len(self._known) >= _ENTRIES:
            self._known.clear()
        self._known[key] = value


class BlockReader(Generic[T]):
    """Header blocks of the peer, decoded by hpack and then given a meaning by a pure function."""

    def __init__(self, decoder: Decoder, meaning: Callable[[list[tuple[bytes, bytes]]], T]) -> None:
        self._decoder = decoder
        self._meaning = meaning
        self._table = _Table()
        decoder.header_table = self._table
        self._memo: _Memo[bytes, T] = _Memo()

    def read(self, block: bytes) -> T:
        """What the block means. Raises hpack's errors, after which the connection cannot go on."""
        table = self._table
        state = table.changes
        found = self._memo.get(block, state)
        if found is not None and self._decoder.max_allowed_table_size >= table.maxsize:
            return found
        fields: list[tuple[bytes, bytes]] = [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        meaning = self._meaning(fields)
        if table.changes == state and len(block) + sum(len(name) + len(value) for name, value in fields) <= _LARGEST:
            self._memo.put(block, meaning)
        return meaning


class BlockWriter(Generic[K]):
    """Header blocks of our own, encoded by hpack."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._table = _Table()
        encoder.header_table = self._table
        self._memo: _Memo[K, bytes] = _Memo()

    def write(self, key: K, fields: Callable[[], list[tuple[bytes, bytes]]]) -> bytes:
        """The block for the fields that `key` stands for; `fields` makes them, and is only called when needed."""
        table = self._table
        state = table.changes
        resized = table.resized  # then the block must begin by saying so
        found = None if resized else self._memo.get(key, state)
        if found is not None:
            return found
        block = self._encoder.encode([_marked(field) for field in fields()], huffman=False)
        if not resized and len(block) <= _LARGEST and table.changes == state:
            self._memo.put(key, block)
        return block


def _marked(field: tuple[bytes, bytes]) -> HeaderTuple:
    name, value = field
    if name in _NEVER_INDEXED or len(value) > 256:
        return NeverIndexedHeaderTuple(name, value)
    return HeaderTuple(name, value)
