"""Transparency logs as checksum databases keep them: a Merkle tree (RFC 6962 section 2.1) in tiles.

The node (level, n) is the hash over the 2**level records from n * 2**level on.  A tree of any size is made of
complete ones, its peaks, largest first.  A tile of level L holds up to 256 neighbours of the nodes of level 8 * L; what
is between two levels of tiles is computed (golang.org/design/25530-sumdb, research.swtch.com/tlog).

Nothing in a tile is believed before the tiles have been hashed up to a signed root: `Plan` says which tiles of a tree
it takes to know some of its nodes, in which order, and `Plan.prove` hashes them.  That a record is in the tree, and
that an older tree is its beginning, are then comparisons with proven nodes: what RFC 6962 proves in sections 2.1.1 and
2.1.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

HEIGHT: Final = 8  # of tiles: the only one that the go command asks for
WIDTH: Final = 1 << HEIGHT
HASH: Final = 32  # bytes of a hash
DATA: Final = -1  # the level of tiles of records

_EMPTY = hashlib.sha256().digest()
_FIRST = "go.sum database tree"
_PATH = re.compile(r"tile/8/(data|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")
_MAX = 1 << 62

Node = tuple[int, int]


class Inconsistent(ValueError):
    """Tiles that do not hash to the root they should: at least one of them is wrong, nobody can tell which."""


class Tree(Struct, frozen=True):
    """A tree by the number of its records and its root's hash: what is signed."""

    size: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> Tree:
        """From the text of a note; lines that a later format adds are passed over. Raises ValueError."""
        lines = text.split("\n")
        if lines[0] != _FIRST or len(lines) < 4 or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
            raise ValueError("the note does not tell of a tree")
        try:
            hash_ = base64.b64decode(lines[2], validate=True)
        except (binascii.Error, ValueError):
            hash_ = b""
        size = int(lines[1])
        if len(hash_) != HASH or size > _MAX:
            raise ValueError("the note does not tell of a tree")
        return cls(size, hash_)

    def __str__(self) -> str:
        return f"{_FIRST}\n{self.size}\n{base64.b64encode(self.hash).decode()}\n"


def record_hash(text: bytes) -> bytes:
    """The leaf of a record."""
    return hashlib.sha256(b"\x00" + text).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above two."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[Node]:
    """The complete trees that a tree of so many records is made of, from the left and largest."""
    found: list[Node] = []
    begin = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            found.append((level, begin >> level))
            begin += 1 << level
    return found


def root(hashes: Sequence[bytes]) -> bytes:
    """The root of a tree whose peaks have these hashes."""
    if not hashes:
        return _EMPTY
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found


class Tile(Struct, frozen=True):
    """The tile `number` of a level, or its first `width` hashes; of level DATA, its records."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """As clients ask for it: "tile/8/0/x001/234", "tile/8/1/000.p/7"."""
        digits = f"{self.number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        level = "data" if self.level == DATA else str(self.level)
        partial = f".p/{self.width}" if self.width != WIDTH else ""
        return f"tile/{HEIGHT}/{level}/{number}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Raises ValueError for what is no path of a tile, or not the one way to write it."""
        match = _PATH.match(path)
        if match is None or len(path) > 64:
            raise ValueError(
                "a tile is asked for as tile/8/LEVEL/000 or tile/8/LEVEL/x001/000, or with .p/WIDTH behind"
            )
        level = DATA if match[1] == "data" else int(match[1])
        tile = cls(level, int((match[2] + match[3]).replace("x", "").replace("/", "")), int(match[4] or WIDTH))
        if tile.path != path or tile.level >= 64 // HEIGHT or match[4] == str(WIDTH) or tile.width > WIDTH:
            raise ValueError(f"{path} is not how a tile is asked for")
        return tile

    @property
    def full(self) -> Tile:
        """The same with all its hashes."""
        return Tile(self.level, self.number)

    def within(self, size: int) -> Tile | None:
        """As much of this tile as a tree of that size has; None if it has nothing of it."""
        width = min(WIDTH, (size >> HEIGHT * max(0, self.level)) - self.number * WIDTH)
        return Tile(self.level, self.number, width) if width > 0 else None


def _tile_of(node: Node) -> Tile:
    """The tile that holds a node or the nodes below it, to its full width."""
    level, n = node
    return Tile(level // HEIGHT, n << level % HEIGHT >> HEIGHT)


def _hash_within(tile: Tile, data: bytes, node: Node) -> bytes:
    """The node's hash out of the tile that `_tile_of` says, or a cut of it that is wide enough."""
    level, n = node
    above = level % HEIGHT
    begin = (n << above) - tile.number * WIDTH
    return _complete(data[begin * HASH : (begin + (1 << above)) * HASH])


def _complete(data: bytes) -> bytes:
    """The hash above 2**k neighbours."""
    hashes = [data[at : at + HASH] for at in range(0, len(data), HASH)]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


class Plan:
    """How some nodes of a tree come to be known. `tiles` are those that it takes, each after the one above it.

    Raises ValueError for nodes that the tree does not have.
    """

    def __init__(self, tree: Tree, nodes: Sequence[Node], tiles: Sequence[Tile] = ()) -> None:
        """`tiles` are to be proven as a whole, beside the nodes."""
        self.tree = tree
        self._nodes = tuple(nodes)
        self._peaks = peaks(tree.size)
        self._above: dict[Tile, Tile] = {}  # the tile that proves a tile which no peak does
        self._at: dict[tuple[int, int], Tile] = {}  # by level and number
        for peak in self._peaks:
            self._add(_tile_of(peak))
        for level, n in self._nodes:
            if n + 1 << level > tree.size:
                raise ValueError(f"a tree of {tree.size} records has no node {n} at level {level}")
            self._lead(_tile_of((level, n)))
        for tile in tiles:
            self._lead(tile)
        self.tiles: tuple[Tile, ...] = tuple(self._at.values())

    def _add(self, tile: Tile) -> Tile:
        found = tile.within(self.tree.size)
        assert found is not None
        return self._at.setdefault((found.level, found.number), found)

    def _lead(self, tile: Tile) -> None:
        """Add the way from the first tile above that is wanted anyway down to this one.

        There is one: a tile that the tree fills has a node in the tile above, and one that it does not has a peak.
        """
        if tile.within(self.tree.size) is None:
            raise ValueError(f"a tree of {self.tree.size} records has no {tile.path}")
        way: list[Tile] = []
        while (tile.level, tile.number) not in self._at:
            way.append(tile)
            tile = Tile(tile.level + 1, tile.number >> HEIGHT)
        for below in reversed(way):
            above = self._at[below.level + 1, below.number >> HEIGHT]
            self._above[self._add(below)] = above

    def prove(self, data: Mapping[Tile, bytes]) -> list[bytes]:
        """The hashes of the nodes, from the bytes of all `tiles`, which are then proven as well.

        Raises Inconsistent.
        """
        for tile in self.tiles:
            if len(data[tile]) != tile.width * HASH:
                raise Inconsistent(f"{tile.path} has {len(data[tile])} bytes instead of {tile.width * HASH}")
        if root([self._hash(data, peak) for peak in self._peaks]) != self.tree.hash:
            raise Inconsistent(f"the tiles do not hash to the signed root of the tree of {self.tree.size} records")
        for tile, above in self._above.items():
            if _hash_within(above, data[above], (above.level * HEIGHT, tile.number)) != _complete(data[tile]):
                raise Inconsistent(f"{tile.path} does not hash to what the tile above it says")
        return [self._hash(data, node) for node in self._nodes]

    def _hash(self, data: Mapping[Tile, bytes], node: Node) -> bytes:
        of = _tile_of(node)
        tile = self._at[of.level, of.number]
        return _hash_within(tile, data[tile], node)


def records_of(tile_data: bytes) -> list[bytes]:
    """The texts in a tile of records: each ends in a newline and is followed by an empty line. Raises ValueError."""
    if not tile_data.endswith(b"\n\n"):
        raise ValueError("the tile of records ends within a record")
    return [text + b"\n" for text in tile_data[:-2].split(b"\n\n")]
