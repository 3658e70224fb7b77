"""The signed tree of a checksum database as a repository knows it: it grows, and never becomes another one.

Kept in the catalog are the newest tree that was ever proven to continue the one before (the head), and of each tile the
most that was ever proven; a tile only grows, too, so a narrower one is its beginning.  Nothing else is believed.  A
signed tree that is not on this line shows that the database tells different people different things: that is a fork,
and an alarm.  It is told in the log with both signatures, which are the evidence, nothing of it is kept, and the
database is not asked again for a while.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Sequence
from functools import partial

import trio
from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import NotFound, Problem, UpstreamFailed
from mxart.message import Trace
from mxart.repos.flights import Flights, free_turn
from mxart.repos.go.notes import BadNote, VerifierKey
from mxart.repos.go.trees import DATA, HASH, WIDTH, Inconsistent, Node, Plan, Tile, Tree, peaks, root
from mxart.repos.remote import Remote, flight_of
from mxart.repos.sources import Sources
from mxart.store.base import FileRecord

_log = logging.getLogger("mxart.sumdb")
_MAX_NOTE = 64 << 10
_MAX_TILE = WIDTH * HASH
_HELD = 60.0  # seconds that a database which forked is not asked
_ATTEMPTS = 8
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"


class Head(Struct, frozen=True):
    """A tree, and the note by which it is signed."""

    tree: Tree
    note: bytes


class Timeline:
    """Of one database, in one repository. `remote` is the repository's, for what is kept; `sources` are asked."""

    def __init__(self, key: VerifierKey, remote: Remote, sources: Sources) -> None:
        self._key = key
        self._remote = remote
        self._sources = sources
        self._place = f"sumdb/{key.name}"
        self._read: tuple[Digest, Head] | None = None  # the head as it was last read from the catalog
        self._forked: tuple[float, UpstreamFailed] | None = None
        self._tiles: Flights[bytes] = Flights(remote.nursery, free_turn)
        self._coming: dict[str, bytes] = {}  # proven, and on its way into the catalog

    async def head(self) -> Head | None:
        """The newest tree that is known; None where none is yet."""
        return (await self._kept_head())[0]

    def refuse_forked(self) -> None:
        """Raise again what a fork was told with, if that was a moment ago."""
        if self._forked is not None:
            since, problem = self._forked
            if 0 <= self._remote.clock() - since < _HELD:
                raise copy.copy(problem)
            self._forked = None

    async def admit(self, note: bytes, trace: Trace) -> Head:
        """See that a signed tree is on this line, which goes on to it if it is newer. Returns the newest one.

        Raises UpstreamFailed: it is signed by another, or its tiles are wrong, or it is a fork.
        """
        new = self._signed(note)
        for _ in range(_ATTEMPTS):
            head, seen = await self._kept_head()
            if head is not None:
                await self._compare(head, new, trace)
                if new.tree.size <= head.tree.size:
                    return head
            if await self._advance(new, seen):
                return new
        raise UpstreamFailed(f"the tree of {self._key.name} moved on {_ATTEMPTS} times while it was looked at")

    async def prove(self, head: Head, nodes: Sequence[Node], tiles: Sequence[Tile], trace: Trace) -> Proven:
        """Some nodes and tiles of the tree, which the caller knows to have them. What comes from afar is then kept.

        Raises UpstreamFailed for tiles that prove nothing.
        """
        plan = Plan(head.tree, nodes, tiles)
        proven = await self._either(plan, trace)
        await self._keep(proven)
        return proven

    async def records(self, tile: Tile, trace: Trace) -> bytes:
        """A tile of records as its database sends it; nothing is proven of it."""
        return await self._fetch(tile, trace)

    def _wrong(self, error: Inconsistent) -> UpstreamFailed:
        return UpstreamFailed(f"the checksum database {self._key.name} proves nothing: {error}", subject="sumdb")

    def _signed(self, note: bytes) -> Head:
        try:
            return Head(Tree.parse(self._key.verified(note)), note)
        except BadNote as error:
            why = f"the tree that {self._key.name} shows is not to be believed: {error}"
        except ValueError as error:
            why = f"{self._key.name}: {error}"
        raise UpstreamFailed(why, subject="sumdb")

    # two trees

    async def _compare(self, head: Head, new: Head, trace: Trace) -> None:
        """Raises UpstreamFailed unless the smaller is the beginning of the larger."""
        older, newer = (new, head) if new.tree.size <= head.tree.size else (head, new)
        if older.tree.size == newer.tree.size:
            if older.tree.hash != newer.tree.hash:
                raise self._alarm(head, new)
            return
        plan = Plan(newer.tree, peaks(older.tree.size))
        proven = await self._either(plan, trace)
        if root(proven.hashes) != older.tree.hash:
            raise self._alarm(head, new)
        await self._keep(proven)

    def _alarm(self, head: Head, new: Head) -> UpstreamFailed:
        _log.error(
            "%s: SECURITY: the checksum database %s has forked: two trees, both signed by it, contradict each other."
            " Nothing of the new one is believed.\nknown since before:\n%s\nshown now:\n%s",
            self._remote.name,
            self._key.name,
            head.note.decode("utf-8", "replace"),
            new.note.decode("utf-8", "replace"),
        )
        problem = UpstreamFailed(
            f"SECURITY: the checksum database {self._key.name} contradicts itself: its tree of {new.tree.size} records"
            f" does not fit that of {head.tree.size} records which it signed before; nothing new of it is believed",
            subject="sumdb",
        )
        self._forked = (self._remote.clock(), copy.copy(problem))
        return problem

    # the head

    async def _kept_head(self) -> tuple[Head | None, Digest | None]:
        remote = self._remote
        path = f"{self._place}/head"
        record = remote.stock.catalog.file(remote.name, path)
        if record is None:
            return None, None
        if self._read is None or self._read[0] != record.digest:
            data = await remote.stock.blobs.read(record.digest, _MAX_NOTE)
            if data is None:
                return None, record.digest
            try:
                self._read = (record.digest, self._signed(data))
            except UpstreamFailed as problem:  # the key was changed in the configuration
                _log.warning("%s: the tree that was kept is forgotten: %s", remote.name, problem.message)
                return None, record.digest
        remote.stock.catalog.used(remote.name, path, remote.clock())
        return self._read[1], record.digest

    async def _advance(self, new: Head, seen: Digest | None) -> bool:
        """Make it the newest, unless another worker has moved on meanwhile: False."""
        remote = self._remote
        path = f"{self._place}/head"
        # Whoever has this turn waits for nothing but the disk, so it may be taken by one who has another.
        async with remote.turn(path):
            record = remote.stock.catalog.file(remote.name, path)
            if (record.digest if record is not None else None) != seen:
                return False
            with remote.tolerant(path):
                await self._put(path, new.note, TEXT)
        return True

    # tiles

    async def _either(self, plan: Plan, trace: Trace) -> Proven:
        """By what is kept; where that does not fit, by what the database has now: it forked, or the key was changed.

        Raises UpstreamFailed.
        """
        with contextlib.suppress(Inconsistent):
            return await self._proven(plan, trace, fresh=False)
        try:
            return await self._proven(plan, trace, fresh=True)
        except Inconsistent as error:
            raise self._wrong(error) from None

    async def _proven(self, plan: Plan, trace: Trace, *, fresh: bool) -> Proven:
        """`fresh`: nothing that is kept is used, and nothing is kept of what comes. Raises Inconsistent."""
        data: dict[Tile, bytes] = {}
        came: set[Tile] = set()
        problems: list[Problem] = []

        async def get(tile: Tile) -> None:
            kept = None if fresh else await self.kept(tile)
            if kept is not None:
                data[tile] = kept
                return
            try:
                data[tile] = await self._fetch(tile, trace)
                came.add(tile)
            except Problem as problem:
                problems.append(problem)

        async with trio.open_nursery() as nursery:
            for tile in plan.tiles:
                nursery.start_soon(get, tile)
        if problems:
            raise problems[0]
        return Proven(plan.prove(data), data, frozenset(came))

    async def _keep(self, proven: Proven) -> None:
        """Nobody waits for it: see module behind."""
        remote = self._remote
        for tile in proven.came:
            path, data = self._kept_path(tile), proven.tiles[tile]
            if len(self._coming.get(path, b"")) >= len(data):
                continue
            self._coming[path] = data
            if remote.stock.behind.begin(remote.name, path):
                remote.nursery.start_soon(self._keep_behind, path, data)
            else:
                await self._keep_tile(path, data)

    async def _keep_behind(self, path: str, data: bytes) -> None:
        try:
            await self._keep_tile(path, data)
        finally:
            self._remote.stock.behind.end(self._remote.name, path)

    async def _keep_tile(self, path: str, data: bytes) -> None:
        """What goes wrong is logged: it is fetched again."""
        remote = self._remote
        try:
            with remote.tolerant(path):
                await self._put(path, data, BYTES)
        except Problem as problem:
            _log.warning("%s: %s is not kept: %s", remote.name, path, problem.message)
        finally:
            if self._coming.get(path) is data:
                del self._coming[path]

    def _kept_path(self, tile: Tile) -> str:
        return f"{self._place}/kept/{tile.full.path}"

    async def kept(self, tile: Tile) -> bytes | None:
        """A tile of hashes if so much of it was proven before."""
        remote = self._remote
        path = self._kept_path(tile)
        coming = self._coming.get(path)
        if coming is not None and len(coming) >= tile.width * HASH:
            return coming[: tile.width * HASH]
        record = remote.stock.catalog.file(remote.name, path)
        if record is None or record.size < tile.width * HASH:
            return None
        data = await remote.stock.blobs.read(record.digest, _MAX_TILE)
        if data is None:
            return None
        remote.stock.catalog.used(remote.name, path, remote.clock())
        return data[: tile.width * HASH]

    async def _fetch(self, tile: Tile, trace: Trace) -> bytes:
        """As much of it as is wanted: a database may have nothing but the whole one once that is full."""
        data, _ = await self._tiles.join(flight_of(tile.path, trace), partial(self._fetch_now, tile, trace))
        return data

    async def _fetch_now(self, tile: Tile, trace: Trace) -> bytes:
        limit = _MAX_TILE if tile.level != DATA else WIDTH * 4096
        try:
            return await self._sources.fetch(tile.path, limit, trace)
        except NotFound:
            if tile.width == WIDTH:
                raise self._lacking(tile) from None
        try:
            data = await self._sources.fetch(tile.full.path, limit, trace)
        except NotFound:
            raise self._lacking(tile) from None
        return data[: tile.width * HASH] if tile.level != DATA else data

    def _lacking(self, tile: Tile) -> UpstreamFailed:
        return UpstreamFailed(f"the checksum database {self._key.name} lacks {tile.path}, which it must have")

    async def _put(self, path: str, data: bytes, media_type: str) -> None:
        remote = self._remote
        digest = await remote.stock.blobs.put(data)
        now = remote.clock()
        await remote.stock.catalog.put_file(
            FileRecord(remote.name, self._place, path, digest, len(data), media_type, created=now, validated=now)
        )


class Proven(Struct, frozen=True):
    """Hashes of nodes, the tiles that it took, and which of them came from afar."""

    hashes: list[bytes]
    tiles: dict[Tile, bytes]
    came: frozenset[Tile]
