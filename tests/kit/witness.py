"""A client of checksum databases that is the tests' own: it remembers every tree that it was shown.

It asks for the hashes of all records and goes by RFC 6962's own words (section 2.1), so that it shares nothing with how
the program, or the go command, reads tiles.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable

from kit.http import Got
from kit.modules import escaped
from mxart.repos.go.notes import VerifierKey


class Forked(AssertionError):
    """What was shown is not on the line of what was shown before."""


class Witness:
    """`get` asks for a path below the database's URL."""

    def __init__(self, key: str, get: Callable[[str], Awaitable[Got]]) -> None:
        self.key = VerifierKey.parse(key)
        self.get = get
        self.seen: dict[int, bytes] = {}  # root by size
        self.numbers: dict[str, int] = {}

    async def lookup(self, module: str, version: str) -> str:
        """The lines of a version, which is where it is said to be in a tree that continues all others."""
        got = await self.get(f"lookup/{escaped(module)}@{escaped(version)}")
        assert got.status == 200, got
        number, _, rest = got.body.partition(b"\n")
        text, _, note = rest.partition(b"\n\n")
        leaves = await self._see(note)
        if leaves[int(number)] != hashlib.sha256(b"\0" + text + b"\n").digest():
            raise Forked(f"record {int(number)} is another one")
        if self.numbers.setdefault(f"{module}@{version}", int(number)) != int(number):
            raise Forked(f"{module}@{version} has moved")
        return f"{text.decode()}\n"

    async def latest(self) -> int:
        """The size of the newest tree, which continues all others. Nobody looks anything up meanwhile."""
        got = await self.get("latest")
        assert got.status == 200, got
        before = max(self.seen, default=0)
        size = len(await self._see(got.body))
        if size < before:
            raise Forked(f"the tree had {before} records, and now it has {size}")
        return size

    async def _see(self, note: bytes) -> list[bytes]:
        """The hashes of the records of a signed tree."""
        _, size, root, *_ = self.key.verified(note).split("\n")
        leaves = await self._leaves(int(size))
        if self.seen.setdefault(int(size), base64.b64decode(root)) != base64.b64decode(root):
            raise Forked(f"there are two trees of {size} records")
        for old, hash_ in self.seen.items():
            if old <= len(leaves) and _hash(leaves[:old]) != hash_:
                raise Forked(f"the tree of {size} records does not begin with that of {old}")
        return leaves

    async def _leaves(self, size: int) -> list[bytes]:
        leaves: list[bytes] = []
        for number in range(-(-size // 256)):
            width = min(256, size - number * 256)
            got = await self.get(f"tile/8/0/{number:03d}" + (f".p/{width}" if width < 256 else ""))
            assert (got.status, len(got.body)) == (200, 32 * width), got
            leaves += [got.body[at : at + 32] for at in range(0, len(got.body), 32)]
        return leaves


def _hash(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + _hash(leaves[:split]) + _hash(leaves[split:])).digest()
