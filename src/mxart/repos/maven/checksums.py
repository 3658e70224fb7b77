"""Checksums as Maven repositories have them: hexadecimal text in a file beside, `app-1.0.jar.sha1`. Pure.

Ours are computed from the bytes that are served; an upstream's are only read to compare with.
"""

from __future__ import annotations

import hashlib
import re
from typing import BinaryIO

from msgspec import Struct

from mxart.repos.maven.coordinates import ALGORITHMS, Algorithm

MAX_TEXT = 4096
"""Bytes of a checksum file: some hold a file's path, or are signed."""
LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_PIECE = 1 << 20
_KEPT: tuple[Algorithm, ...] = ("md5", "sha1", "sha512")  # SHA-256 is what the store knows the file by
_SUM = {
    algorithm: re.compile(rf"(?<![0-9a-fA-F])[0-9a-fA-F]{{{n}}}(?![0-9a-fA-F])") for algorithm, n in LENGTHS.items()
}
_HEX = re.compile(r"[0-9a-fA-F]+")
_BYTES = re.compile(r"(?:[0-9a-fA-F]{2,8}[ \t]+)+[0-9a-fA-F]{2,8}\Z")


class Sums(Struct, frozen=True):
    """The checksums of some bytes, in lower case."""

    md5: str
    sha1: str
    sha256: str
    sha512: str

    def get(self, algorithm: Algorithm) -> str:
        """The checksum by an algorithm."""
        match algorithm:
            case "md5":
                return self.md5
            case "sha1":
                return self.sha1
            case "sha256":
                return self.sha256
            case "sha512":
                return self.sha512


def of(data: bytes) -> Sums:
    """The checksums of some bytes."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return Sums(md5, sha1, hashlib.sha256(data).hexdigest(), hashlib.sha512(data).hexdigest())


def of_file(file: BinaryIO, size: int) -> str:
    """What is kept of a file's checksums (see `kept`), in one pass over its first `size` bytes. Raises OSError.

    It reads the file, so it is called in a thread.
    """
    md5 = hashlib.md5(usedforsecurity=False)
    sha1 = hashlib.sha1(usedforsecurity=False)
    sha512 = hashlib.sha512()
    file.seek(0)
    buffer = memoryview(bytearray(min(_PIECE, max(size, 1))))
    left = size
    while left:
        count = file.readinto(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]  # of a real file
        if not count:
            raise OSError("the file is shorter than it was")
        for one in (md5, sha1, sha512):
            one.update(buffer[:count])
        left -= count
    return _text((md5.hexdigest(), sha1.hexdigest(), sha512.hexdigest()))


def kept(sums: Sums) -> str:
    """All but SHA-256 as one text: what a file's record keeps beside its digest."""
    return _text(tuple(sums.get(algorithm) for algorithm in _KEPT))


def _text(hexes: tuple[str, ...]) -> str:
    return " ".join(f"{algorithm}:{text}" for algorithm, text in zip(_KEPT, hexes, strict=True))


def recall(text: str, sha256: str) -> Sums | None:
    """The checksums that `kept` wrote, of a file of that digest; None if they are not all there."""
    found = dict(part.partition(":")[::2] for part in text.split(" "))
    if any(len(found.get(algorithm, "")) != LENGTHS[algorithm] for algorithm in _KEPT):
        return None
    return Sums(found["md5"], found["sha1"], sha256, found["sha512"])


def fields(sums: Sums) -> tuple[tuple[str, str], ...]:
    """The header fields that save clients a request: resolver, Gradle and Coursier read them, on HEAD too."""
    return tuple((f"x-checksum-{algorithm}", sums.get(algorithm)) for algorithm in ALGORITHMS)


def read(data: bytes, algorithm: Algorithm) -> str:
    """The checksum that a file of somebody else's tells, in lower case; "" if it tells none, or several.

    They are written in many ways: `<hex>`, `<hex>  name`, `MD5 (name) = <hex>`, `name: 0123 4567 ...`, behind a BOM.
    """
    if len(data) > MAX_TEXT:
        return ""
    lines = [line.strip() for line in data.decode("utf-8", "replace").lstrip("\ufeff").splitlines() if line.strip()]
    if not lines:
        return ""
    found = set(map(str.lower, _SUM[algorithm].findall(" ".join(lines))))
    if not found:
        # Cut into groups, over one line or several, perhaps behind a name.
        text = " ".join(lines).rpartition(": ")[2].rpartition("= ")[2]
        joined = "".join(text.split()) if _BYTES.match(text) else ""
        found = {joined.lower()} if len(joined) == LENGTHS[algorithm] else set()
    return found.pop() if len(found) == 1 else ""


def is_hex(text: str, algorithm: Algorithm) -> bool:
    """Whether text is a checksum by this algorithm, as a header field has it."""
    return len(text) == LENGTHS[algorithm] and _HEX.fullmatch(text) is not None
