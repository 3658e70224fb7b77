"""What a go.mod says, as far as it matters here: the module's path, its Go, and which versions it takes back. Pure.

See go.dev/ref/mod, "go.mod files".  It is read leniently, as the go command reads those of others: directives that
are not known are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from mxart.repos.go.versions import is_version, order

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|[\[\](),]|[^\s\[\](),"`]+')
_GO = re.compile(r"(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})(?:[.rb].*)?\Z")


class GoMod(Struct, frozen=True):
    """`module` "" where there is none; `go` as two numbers, (0, 0) where there are none."""

    module: str
    go: tuple[int, int] = (0, 0)
    retracted: tuple[tuple[str, str], ...] = ()  # from the first version to the last one, both retracted

    def retracts(self, version: str) -> bool:
        """Whether this version was taken back."""
        return any(order(low) <= order(version) <= order(high) for low, high in self.retracted)


def read(data: bytes) -> GoMod:
    """What it says. Raises ValueError if it is no text."""
    module, go = "", (0, 0)
    retracted: list[tuple[str, str]] = []
    for verb, words in _directives(data.decode("utf-8")):
        if verb == "module" and len(words) == 1 and not module:
            module = words[0]
        elif verb == "go" and words and (match := _GO.match(words[0])) is not None:
            go = (int(match["major"]), int(match["minor"]))
        elif verb == "retract" and (bounds := _bounds(words)) is not None:
            retracted.append(bounds)
    return GoMod(module, go, tuple(retracted))


def _bounds(words: list[str]) -> tuple[str, str] | None:
    """Of `v1.0.0`, or `[v1.0.0, v1.9.9]`."""
    if len(words) == 5 and (words[0], words[2], words[4]) == ("[", ",", "]"):
        low, high = words[1], words[3]
    elif len(words) == 1:
        low = high = words[0]
    else:
        return None
    return (low, high) if is_version(low) and is_version(high) else None


def _directives(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each with its words; those of a block one by one, with the block's verb."""
    block = ""
    for line in text.splitlines():
        words = [_plain(word) for word in _TOKEN.findall(line.partition("//")[0])]
        if not words:
            continue
        if block:
            if words == [")"]:
                block = ""
            else:
                yield block, words
        elif words[1:] == ["("]:
            block = words[0]
        else:
            yield words[0], words[1:]


def _plain(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] in '"`' and word[-1] == word[0] else word
