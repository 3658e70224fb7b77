"""Branches and tags of a repository, as its server tells them (git-ls-remote(1)). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

HEADS = "refs/heads/"
TAGS = "refs/tags/"
_LINE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\t(HEAD|refs/(?:heads|tags)/[^\x00-\x20\x7f~^:?*\[\\]+)(\^\{\})?\Z")


class References(Struct, frozen=True):
    """Names, in full, and the commits that they mean: an annotated tag is what it is about.

    `asked` is when its server said so, in seconds since the epoch.
    """

    commits: Mapping[str, str] = field(default_factory=dict)
    asked: float = 0.0

    @classmethod
    def parse(cls, data: bytes, asked: float) -> References:
        """From what `git ls-remote` prints; other names than branches, tags and HEAD are passed over."""
        plain: dict[str, str] = {}
        peeled: dict[str, str] = {}
        for line in data.splitlines():
            match = _LINE.match(line)
            if match is not None:
                (peeled if match[3] else plain)[match[2].decode("utf-8", "replace")] = match[1].decode()
        return cls(plain | peeled, asked)

    @classmethod
    def decode(cls, data: bytes) -> References | None:
        """From what `encode` made; None if that is broken."""
        try:
            kept = _decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            return None
        return cls(kept.commits, kept.asked)

    def encode(self, url: str) -> bytes:
        """To be kept; `url` is for whoever looks at it."""
        return msgspec.json.encode(_Kept(url, self.asked, dict(self.commits)))

    @property
    def head(self) -> str:
        """The commit that is meant where none is named; "" if there is none."""
        return self.commits.get("HEAD", "")

    @property
    def mark(self) -> str:
        """The same for the same names and commits, and for no others."""
        text = "".join(f"{name} {commit}\n" for name, commit in sorted(self.commits.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def tags(self) -> dict[str, str]:
        """Tags by their short names."""
        return {name[len(TAGS) :]: commit for name, commit in self.commits.items() if name.startswith(TAGS)}

    def named(self, name: str) -> tuple[str, str] | None:
        """The full name and the commit of a tag or a branch, tags first; None if there is none."""
        for full in (TAGS + name, HEADS + name, *(("HEAD",) if name == "HEAD" else ())):
            if (commit := self.commits.get(full)) is not None:
                return full, commit
        return None

    def moved_from(self, before: References) -> dict[str, tuple[str, str]]:
        """The tags that mean another commit than before, with both: tags are not made to move."""
        old, new = before.tags(), self.tags()
        return {name: (old[name], new[name]) for name in sorted(old.keys() & new.keys()) if old[name] != new[name]}


class _Kept(msgspec.Struct):
    url: str
    asked: float
    commits: dict[str, str]


_decoder = msgspec.json.Decoder(_Kept)
