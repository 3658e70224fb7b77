"""Patterns of paths: names within a repository, cut at their slashes. Pure.

`*` stands for any characters within a segment, `**` for any number of segments, none included, so
`example.com/secret/**` is about `example.com/secret` too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

_SEGMENT = re.compile(r"[^/\x00-\x20\x7f]+\Z")
# What a segment says, least first; an end that is reached says more than "**", which could go on.
_DEEP, _END, _PARTLY, _WHOLE = 0, 1, 2, 3

Specificity = tuple[tuple[int, int], ...]


class PathPattern(Struct, frozen=True):
    """A pattern of paths."""

    text: str

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """Raises ValueError with what would be right."""
        segments = text.split("/")
        if not all(_SEGMENT.match(segment) for segment in segments):
            raise ValueError(
                f'{text!r} is not a path pattern: write "team/app", "team/*" or "team/**", without a slash at its ends'
            )
        if any("**" in segment and segment != "**" for segment in segments):
            raise ValueError(f'{text!r}: "**" is a segment by itself, as in "team/**"; "*" is for a part of one')
        return cls(text)

    def matches(self, path: str) -> bool:
        """Whether it is about this path. "" is the repository as a whole: only what matches everything matches it."""
        return _glob(self.text.split("/"), path.split("/") if path else (), "**", _fits)

    @property
    def specificity(self) -> Specificity:
        """Comparable with that of other patterns; more says more. A segment counts before all that follow it."""
        return (*(_weight(segment) for segment in self.text.split("/")), (_END, 0))


EVERYWHERE = PathPattern("**")


def _weight(segment: str) -> tuple[int, int]:
    if segment == "**":
        return _DEEP, 0
    if "*" in segment:
        return _PARTLY, len(segment.replace("*", ""))
    return _WHOLE, 0


def _glob(pattern: Sequence[str], items: Sequence[str], star: str, fits: Callable[[str, str], bool]) -> bool:
    """Whether items are as a pattern says, in which `star` is for any number of them.

    Only the last star that was met is ever gone back to, so the time is at most the product of the two lengths.
    """
    at = index = mark = 0
    last = -1  # the star that may still take more, up to `mark`
    while index < len(items):
        if at < len(pattern) and pattern[at] == star:
            last, mark, at = at, index, at + 1
        elif at < len(pattern) and fits(pattern[at], items[index]):
            at, index = at + 1, index + 1
        elif last >= 0:
            mark += 1
            at, index = last + 1, mark
        else:
            return False
    return all(item == star for item in pattern[at:])


def _fits(segment: str, part: str) -> bool:
    if "*" not in segment:
        return segment == part
    return _glob(segment, part, "*", str.__eq__)
