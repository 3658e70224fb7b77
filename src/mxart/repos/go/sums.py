"""What a checksum database says of modules, and how it is asked: the paths, the answers to look-ups, what is private.

(golang.org/design/25530-sumdb, "Checksum Database"; `go help module-private`)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field

from mxart.errors import BadRequest, NotFound
from mxart.repos.go.notes import VerifierKey
from mxart.repos.go.paths import escape, shown, unescape_path, unescape_version
from mxart.repos.go.trees import Tile
from mxart.repos.go.versions import is_canonical
from mxart.repos.operations import Document

# A look-up is two or three lines and a signed tree.
MAX_LOOKUP = 64 << 10

_KNOWN = {"sum.golang.org": "", "sum.golang.google.cn": "https://sum.golang.google.cn"}  # as cmd/go knows them
_SUM = re.compile(r"h1:[A-Za-z0-9+/]{43}=\Z")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")

SUM_GOLANG_ORG = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


class Record(Struct, frozen=True):
    """The answer to a look-up: a record of the tree by its number, and the signed tree that it is said to be in."""

    number: int
    text: bytes
    note: bytes

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Raises ValueError that says what the answer is not."""
        first, _, rest = data.partition(b"\n")
        text, empty, note = rest.partition(b"\n\n")
        if not re.fullmatch(rb"0|[1-9][0-9]{0,17}", first) or not empty:
            raise ValueError("it is no record of a checksum database: a number, lines as in go.sum, and a signed tree")
        try:
            wrong = _CONTROL.search(text.decode()) is not None
        except UnicodeDecodeError:
            wrong = True
        if wrong or not text:
            raise ValueError("it is no record of a checksum database: its text has bytes that belong into none")
        return cls(int(first), text + b"\n", note)

    def sums(self, module: str, version: str) -> Sums:
        """What it says of this version. Raises ValueError where that is nothing."""
        return Sums.parse(self.text.decode(), module, version)


class Database(Struct, frozen=True):
    """Whose word is taken, and its URL where that was given: then no proxy is asked to pass it on."""

    key: VerifierKey
    url: str = ""

    @classmethod
    def parse(cls, text: str) -> Database | None:
        """From what GOSUMDB may be, "" for what it is unless it is set; None: it is off. Raises ValueError."""
        key, _, url = text.strip().partition(" ")
        if key == "off" and not url:
            return None
        if not key or key in _KNOWN:
            return cls(VerifierKey.parse(SUM_GOLANG_ORG), url.strip() or _KNOWN.get(key, ""))
        url = url.strip()
        if url and not re.fullmatch(r"https?://[^\s?#@]+", url):
            raise ValueError(f"{url!r} is no URL of a checksum database: NAME+HASH+KEY https://HOST/PATH")
        return cls(VerifierKey.parse(key), url)


class Asked(Struct, frozen=True):
    """What a request to `sumdb/<database>/…` wants to know. `path` is all of it, without percent escapes."""

    database: str
    kind: Literal["supported", "latest", "lookup", "tile"]
    path: str
    module: str = ""
    version: str = ""
    tile: Tile = Tile(0, 0)

    @property
    def package(self) -> str:
        """What permissions go by: the module, where there is one."""
        return self.module or f"sumdb/{self.database}"

    @property
    def is_lasting(self) -> bool:
        """Whether the answer is the same for ever."""
        return self.kind in ("lookup", "tile")


class SumsDocument(Document, frozen=True):
    """A document that a Verifier answers with, for it knows what is in it."""

    asked: Asked = field(default=Asked("", "supported", ""))


def read(path: str) -> Asked:
    """What is asked for by a path that begins with "sumdb/". Raises BadRequest, NotFound."""
    database, found, name = _divided(path.removeprefix("sumdb/"))
    if name in ("supported", "latest"):
        return Asked(database, "supported" if name == "supported" else "latest", path)
    if name.startswith("lookup/"):
        module, _, version = name.removeprefix("lookup/").partition("@")
        try:
            module, version = unescape_path(module), unescape_version(version)
            if not is_canonical(module, version):
                raise ValueError(f"{shown(version)} is no whole version of {module}")
            return Asked(database, "lookup", path, module, version)
        except ValueError as error:
            raise BadRequest(f"a look-up is asked for as lookup/MODULE@VERSION: {error}", subject="sumdb") from None
    if name.startswith("tile/"):
        try:
            return Asked(database, "tile", path, tile=Tile.parse(name))
        except ValueError as error:
            raise BadRequest(str(error), subject="sumdb") from None
    what = "a checksum database has supported, latest, lookup/MODULE@VERSION and tiles" if found else "this names none"
    raise NotFound(f"{shown(path)}: {what}", subject="sumdb")


def _divided(text: str) -> tuple[str, str, str]:
    """A database's name, which may have slashes, and what is asked of it."""
    for mark in ("/lookup/", "/tile/"):
        database, found, rest = text.partition(mark)
        if found and database:
            return database, found, mark[1:] + rest
    database, found, rest = text.rpartition("/")
    return database, found if database else "", rest


def lookup_path(module: str, version: str) -> str:
    """How a version is looked up, below a database's own URL."""
    return f"lookup/{escape(module)}@{escape(version)}"


class Sums(Struct, frozen=True):
    """The checksums of a version, as "h1:…": of its zip, and of its go.mod."""

    zip: str
    mod: str

    @classmethod
    def parse(cls, text: str, module: str, version: str) -> Sums:
        """From lines as in go.sum. Raises ValueError where they say nothing of this version."""
        found: dict[str, str] = {}
        for line in text.split("\n"):
            fields = line.split(" ")
            if len(fields) == 3 and fields[0] == module and _SUM.match(fields[2]):
                found[fields[1]] = fields[2]
        try:
            return cls(found[version], found[f"{version}/go.mod"])
        except KeyError:
            raise ValueError(f"the record says nothing of {module}@{version}") from None


def sums_text(module: str, version: str, sums: Sums) -> bytes:
    """The record of a version: its lines of go.sum."""
    return f"{module} {version} {sums.zip}\n{module} {version}/go.mod {sums.mod}\n".encode()


class Private:
    """Which modules no checksum database may hear of: patterns as in GOPRIVATE.

    A pattern is a glob for the first elements of a module's path, as many as it has itself (`go help module-private`).
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Each may hold several, separated by commas. Raises ValueError for one that is no glob."""
        self.patterns = tuple(
            glob for text in patterns for item in text.split(",") if (glob := item.strip().removesuffix("/"))
        )
        self._compiled = tuple((glob.count("/") + 1, re.compile(_regex(glob))) for glob in self.patterns)

    def __contains__(self, module: str) -> bool:
        """Whether this module is private. `module` is unescaped: "github.com/MyOrg/x", never "github.com/!my!org/x"."""
        return bool(self.pattern_of(module))

    def pattern_of(self, module: str) -> str:
        """The first pattern that says so; "" if none does."""
        elements = module.split("/")
        for pattern, (count, regex) in zip(self.patterns, self._compiled, strict=True):
            if len(elements) >= count and regex.fullmatch("/".join(elements[:count])):
                return pattern
        return ""


def _regex(glob: str) -> str:
    """Go's path.Match as a regular expression. Raises ValueError."""
    pieces: list[str] = []
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            pieces.append("[^/]*")
        elif char == "?":
            pieces.append("[^/]")
        elif char == "[":
            piece, at = _class(glob, at)
            pieces.append(piece)
        elif char == "\\":
            if at == len(glob):
                raise _no_glob(glob)
            pieces.append(re.escape(glob[at]))
            at += 1
        else:
            pieces.append(re.escape(char))
    return "(?s:" + "".join(pieces) + ")"


def _class(glob: str, at: int) -> tuple[str, int]:
    """A class of characters from after its bracket, and where it ends."""
    negated = glob.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and glob.startswith("]", at)):
        low, at = _char(glob, at)
        high = low
        if glob.startswith("-", at):
            high, at = _char(glob, at + 1)
        if low <= high:  # path.Match takes a range that is upside down, and finds nothing in it
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    inside = "".join(ranges)
    if not inside:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _char(glob: str, at: int) -> tuple[str, int]:
    if at < len(glob) and glob[at] == "\\":
        at += 1
    elif at >= len(glob) or glob[at] in "-]":
        raise _no_glob(glob)
    if at + 1 >= len(glob):  # the class must still be closed
        raise _no_glob(glob)
    return glob[at], at + 1


def _no_glob(glob: str) -> ValueError:
    return ValueError(f"{glob!r} is no pattern as GOPRIVATE takes it: example.com/*, or an element with [a-z], ?, \\*")
