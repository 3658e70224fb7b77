"""Content digests: `sha256:<hex>`, as the OCI image specification writes them (descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from msgspec import Struct

_LENGTHS = {"sha256": 64, "sha512": 128}
_SHAPE = re.compile(r"(sha256|sha512):([0-9a-f]+)\Z")


class Hash(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class Digest(Struct, frozen=True):
    """An algorithm that this program can compute, and its value in lower-case hexadecimal."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises ValueError with what would be right."""
        match = _SHAPE.match(text)
        if match is None or len(match[2]) != _LENGTHS[match[1]]:
            raise ValueError(f"{text!r} is not a digest: sha256:<64 hex digits> or sha512:<128 hex digits>")
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of some bytes."""
        return cls(algorithm, hashlib.new(algorithm, data, usedforsecurity=False).hexdigest())

    def hasher(self) -> Hash:
        """A fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)
