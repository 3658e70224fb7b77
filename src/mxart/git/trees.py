"""Commits and folders of a repository, as git prints them (git-log(1), git-ls-tree(1)). Pure."""

from __future__ import annotations

import re

from msgspec import Struct

from mxart.errors import UpstreamFailed

_ENTRY = re.compile(
    rb"(?P<mode>[0-7]{6}) (?P<kind>blob|tree|commit) (?P<object>[0-9a-f]{40,64}) +(?P<size>[0-9]+|-)\t(?P<path>.+)\Z",
    re.DOTALL,
)
_COMMIT = re.compile(rb"(?P<name>[0-9a-f]{40,64}) (?P<seconds>-?[0-9]{1,15})\Z")


class Commit(Struct, frozen=True):
    """A commit by its whole name, and when it was made, in seconds since the epoch."""

    name: str
    seconds: int


class Entry(Struct, frozen=True):
    """A file, a link, a folder or a submodule. `path` is from the root; bytes that are no UTF-8 are surrogates."""

    path: str
    mode: str
    object: str
    size: int = 0

    @property
    def is_file(self) -> bool:
        """Whether it is a file, and no link or submodule."""
        return self.mode in ("100644", "100755", "100664")

    @property
    def is_blob(self) -> bool:
        """Whether it has content of its own: a link has, too."""
        return self.mode[:2] in ("10", "12")


def parse_commit(data: bytes) -> Commit:
    """Raises UpstreamFailed."""
    match = _COMMIT.match(data.strip())
    if match is None:
        raise UpstreamFailed(f"git says of a commit {data[:80]!r}")
    return Commit(match["name"].decode(), max(0, int(match["seconds"])))


def parse_tree(data: bytes) -> list[Entry]:
    """Raises UpstreamFailed."""
    found: list[Entry] = []
    for line in data.split(b"\0"):
        if not line:
            continue
        match = _ENTRY.match(line)
        if match is None:
            raise UpstreamFailed(f"git says of a folder {line[:80]!r}")
        size = 0 if match["size"] == b"-" else int(match["size"])
        path = match["path"].decode("utf-8", "surrogateescape")
        found.append(Entry(path, match["mode"].decode(), match["object"].decode(), size))
    return found
