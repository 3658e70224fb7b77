"""A checksum database of the tests' own. It stands in for sum.golang.org; the tree is hashed by RFC 6962's recursion.

Nothing of how the program reads tiles is used here, so that both cannot be wrong in the same way.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kit.modules import Module, escaped
from mxart.repos.go.notes import SignerKey
from mxart.repos.go.trees import Tree

_TILE = re.compile(r"tile/8/(data|\d+)/((?:x\d{3}/)*\d{3})(?:\.p/(\d+))?")


class Log:
    """Records, and the hashes over them."""

    def __init__(self, records: list[bytes] | None = None) -> None:
        self.records = list(records or ())
        self._hash = lru_cache(maxsize=None)(self._compute)

    def add(self, text: bytes) -> int:
        self.records.append(text)
        return len(self.records) - 1

    def hash(self, begin: int, end: int) -> bytes:
        """The Merkle tree hash of some records (RFC 6962 section 2.1); they never change."""
        return self._hash(begin, end)

    def _compute(self, begin: int, end: int) -> bytes:
        if begin == end:
            return hashlib.sha256(b"").digest()
        if end - begin == 1:
            return hashlib.sha256(b"\0" + self.records[begin]).digest()
        split = 1
        while split * 2 < end - begin:
            split *= 2
        return hashlib.sha256(b"\1" + self.hash(begin, begin + split) + self.hash(begin + split, end)).digest()

    def tree(self, size: int | None = None) -> Tree:
        size = len(self.records) if size is None else size
        return Tree(size, self.hash(0, size))

    def tile(self, level: int, number: int, width: int) -> bytes | None:
        """None for one that the log does not have yet."""
        span = 256**level
        begin = number * 256 * span
        if begin + width * span > len(self.records):
            return None
        return b"".join(self.hash(begin + n * span, begin + (n + 1) * span) for n in range(width))


@dataclass(frozen=True)
class Said:
    """What the database answers to a path."""

    status: int
    body: bytes
    media_type: str = "text/plain; charset=utf-8"


class Database:
    """The protocol of checksum databases over a Log; `asked` are the paths that were."""

    def __init__(self, name: str = "sums.example.test", signer: SignerKey | None = None) -> None:
        self.signer = signer or SignerKey.generate(name)
        self.log = Log()
        self.asked: list[str] = []
        self.size: int | None = None  # of the tree that is signed; None: of all of it
        self._numbers: dict[tuple[str, str], int] = {}

    @property
    def key(self) -> str:
        return str(self.signer.verifier)

    def add(self, module: str, version: str, zip_sum: str, mod_sum: str) -> int:
        text = f"{module} {version} {zip_sum}\n{module} {version}/go.mod {mod_sum}\n".encode()
        number = self._numbers[module, version] = self.log.add(text)
        return number

    def knows(self, *modules: Module) -> None:
        """What their bytes are."""
        for module in modules:
            prefix = f"{module.path}@{module.version}/"
            files = {prefix + name: data for name, data in module.files.items()}
            self.add(module.path, module.version, _h1(files), _h1({"go.mod": module.mod}))

    def fill(self, count: int) -> None:
        """Modules that nobody asks for: a tree has more than one record."""
        for n in range(count):
            at = len(self.log.records)
            self.add(f"example.org/filler{at}", f"v0.0.{n}", sum_of(f"zip {at}"), sum_of(f"mod {at}"))

    def note(self) -> bytes:
        return self.signer.sign(str(self.log.tree(self.size)))

    def lookup(self, module: str, version: str) -> bytes:
        number = self._numbers[module, version]
        return f"{number}\n".encode() + self.log.records[number] + b"\n" + self.note()

    def answer(self, path: str) -> Said:
        """To a path without a leading slash."""
        self.asked.append(path)
        if path == "latest":
            return Said(200, self.note())
        if path.startswith("lookup/"):
            module, _, version = path.removeprefix("lookup/").partition("@")
            key = (_unescaped(module), _unescaped(version))
            if key not in self._numbers:
                return Said(404, f"not found: {key[0]}@{key[1]}: unknown revision\n".encode())
            return Said(200, self.lookup(*key))
        if match := _TILE.fullmatch(path):
            number = int(match[2].replace("x", "").replace("/", ""))
            return self._tile(match[1], number, int(match[3] or 256))
        return Said(404, b"404 page not found\n")

    def _tile(self, level: str, number: int, width: int) -> Said:
        if level == "data":
            texts = self.log.records[number * 256 : number * 256 + width]
            if len(texts) < width:
                return Said(404, b"not found\n")
            return Said(200, b"".join(text + b"\n" for text in texts))
        data = self.log.tile(int(level), number, width)
        return Said(404, b"not found\n") if data is None else Said(200, data, "application/octet-stream")

    def lay_out(self, root: Path) -> None:
        """Everything it says of its present tree, as files."""
        paths = ["latest", *(f"lookup/{escaped(module)}@{escaped(version)}" for module, version in self._numbers)]
        size = len(self.log.records)
        for level in range(3):
            count = size >> 8 * level
            for number in range(-(-count // 256)):
                width = min(256, count - number * 256)
                paths.append(f"tile/8/{level}/{number:03d}" + (f".p/{width}" if width < 256 else ""))
        for path in paths:
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.answer(path).body)
        (root / "supported").write_bytes(b"")


def _h1(files: Mapping[str, bytes]) -> str:
    """A checksum as go.sum has it (golang.org/x/mod/sumdb/dirhash)."""
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


def sum_of(text: str) -> str:
    """Something that looks like a checksum."""
    return "h1:" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _unescaped(text: str) -> str:
    return re.sub("!([a-z])", lambda match: match[1].upper(), text)
