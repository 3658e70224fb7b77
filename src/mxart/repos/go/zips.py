"""What a module's zip must be, and its hash (go.dev/ref/mod, "Module zip files"; golang.org/x/mod/zip, dirhash). Pure.

The hash, h1, is over the names and contents of the files, so how they are packed does not matter to it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from mxart.errors import UpstreamFailed
from mxart.repos.go.archives import BadArchive, Entry, entries, pieces
from mxart.repos.go.paths import check_file_path, fold, shown
from mxart.repos.go.requests import read
from mxart.repos.operations import Artifact
from mxart.store.base import Unjudged

MAX_ZIP = 500 << 20
"""Bytes of a module's zip, and of what is in it."""
MAX_SMALL = 16 << 20
"""Bytes of a go.mod, and of a LICENSE."""
MAX_NAME = 4096
"""Bytes of a file's name, the module's own included: whoever unpacks it has no use for longer ones (PATH_MAX)."""
_MAX_PARTS = 2_000_000  # of all names together, as often as they are told: what takes seconds to look at
_MAX_NODES = 500_000  # files and folders, each once: what takes some hundred megabytes to remember


class BadModule(ValueError):
    """A zip is not that of this module and version; the text says why."""


class Judge:
    """See roles.Judging."""

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        wanted = read(artifact.path)
        try:
            return check_zip(unjudged.file, unjudged.size, wanted.module, wanted.version)
        except BadModule as error:
            message = f"upstream's zip of {wanted.module}@{wanted.version} is refused: {error}"
            raise UpstreamFailed(message, subject="zip") from None


def check_zip(file: BinaryIO, size: int, path: str, version: str) -> str:
    """Judge the zip of a module's version, reading all of it once; its hash, `h1:…`.

    Blocks, for as long as unpacking takes.  Raises BadModule, OSError.
    """
    if size > MAX_ZIP:
        raise BadModule(f"it has {size} bytes; the zip of a module has at most {MAX_ZIP}")
    try:
        found = entries(file, size)
        _check(found, f"{path}@{version}/")
        return _summed((entry.name, _hashed(pieces(file, entry))) for entry in found)
    except BadArchive as error:
        raise BadModule(str(error)) from None


def mod_hash(data: bytes) -> str:
    """The hash of a go.mod by itself, as go.sum and the checksum database have it under `/go.mod`."""
    return _summed([("go.mod", hashlib.sha256(data).hexdigest())])


def _hashed(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _summed(lines: Iterable[tuple[str, str]]) -> str:
    # In the order of the names' bytes: that of code points, since they are UTF-8.
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))
    return "h1:" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _check(found: Sequence[Entry], prefix: str) -> None:
    names = _Names()
    total = 0
    for entry in found:
        if not entry.name.startswith(prefix):
            raise BadModule(f"it holds {shown(entry.name)}: everything in it has to begin with {prefix}")
        if len(entry.name.encode()) > MAX_NAME:
            raise BadModule(f"{shown(entry.name)} is longer than the {MAX_NAME} bytes that a name may have")
        if not entry.is_regular:
            raise BadModule(f"{shown(entry.name)} is a symbolic link, or no file at all")
        name = entry.name.removeprefix(prefix)
        folder = name.endswith("/") or not name
        if folder and (entry.size or entry.compressed > 2):  # nothing, deflated, has two bytes
            raise BadModule(f"{shown(entry.name)} is a folder with content")
        name = name.removesuffix("/")
        if not name:
            continue
        _check_name(name, folder=folder)
        names.add(name, folder=folder)
        total += entry.size
        if total > MAX_ZIP:
            raise BadModule(f"unpacked it has more than the {MAX_ZIP} bytes that a module may have")
        if name in ("go.mod", "LICENSE") and entry.size > MAX_SMALL:
            raise BadModule(f"{name} has {entry.size} bytes; at most {MAX_SMALL} are allowed")


def _check_name(name: str, *, folder: bool) -> None:
    try:
        check_file_path(name)
    except ValueError as error:
        raise BadModule(str(error)) from None
    if not folder and name.rpartition("/")[2].lower() == "go.mod" and name != "go.mod":
        raise BadModule(f"it holds {shown(name)}: there is one go.mod, at the root, in lower case")


class _Names:
    """The tree of names so far, as a file system sees it that does not tell upper from lower case.

    One node for each element, so that deep names cost no more than they are long.
    """

    def __init__(self) -> None:
        self._parts = 0
        self._nodes: dict[tuple[int, str], tuple[int, str, bool]] = {}  # below a node: its number, name, is it a folder

    def add(self, name: str, *, folder: bool) -> None:
        parent = 0
        self._parts += name.count("/") + 1
        if self._parts > _MAX_PARTS or len(self._nodes) > _MAX_NODES:
            raise BadModule(f"it holds more than {_MAX_NODES} files and folders, or names of too many elements")
        for part, is_folder in _parts(name, folder=folder):
            key = (parent, fold(part))
            known = self._nodes.get(key)
            if known is None:
                known = self._nodes[key] = (len(self._nodes) + 1, part, is_folder)
            elif known[1] != part:
                raise BadModule(f"{shown(name)}: {shown(part)} and {shown(known[1])} differ in case only")
            elif known[2] != is_folder:
                raise BadModule(f"{shown(name)}: {shown(part)} is both a file and a folder")
            elif not is_folder:
                raise BadModule(f"{shown(name)} is there twice")
            parent = known[0]


def _parts(name: str, *, folder: bool) -> Iterator[tuple[str, bool]]:
    parts = name.split("/")
    for part in parts[:-1]:
        yield part, True
    yield parts[-1], folder
