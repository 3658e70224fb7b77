"""Versions in Maven's order (maven.apache.org/pom.html, "Version Order Specification"; ComparableVersion of 4). Pure.

Theory of operation.  A version is cut at dots, dashes, and where digits and letters meet.  A dash, or such a meeting,
opens a list within the list, which lasts to the end; so lists nest, and every one but the innermost ends with another.
What is compared with nothing, because the other version has ended, is compared with "as released": 1 < 1.1, but
1-alpha < 1, and 1 = 1.0 = 1-ga.  Maven compares two such trees piece by piece.  Here a tree becomes nested tuples, in
which "as released" has its place among the others, so that to compare tuples is all; that this is a total order needs
no proof then.  A word that is not the first of its list is a list of one; Maven compares it as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

SNAPSHOT = "SNAPSHOT"
BUILDS = (
    r".*/(?P<version>(?P<begin>(?:[^/]*-)?)SNAPSHOT)/[^/]*?-(?P=begin)"
    r"(?P<time>[0-9]{8}\.[0-9]{6})-(?P<number>[0-9]{1,9})"
    r"(?P<kind>[-.][^/]*?)(?:\.asc|\.sigstore(?:\.json)?|\.minisig)?\Z"
)
"""The paths of files that belong to builds, as retention counts them (store.space.builds)."""
TOLD = "told build"
"""The key of a note on a snapshot version's directory: the highest build number that a client's list told of, or that
the server gave: those are complete."""
_TIMESTAMPED = re.compile(r"(?P<begin>(?:.*-)?)(?P<time>[0-9]{8}\.[0-9]{6})-(?P<build>[1-9][0-9]{0,8})\Z", re.DOTALL)
_TOKEN = re.compile(r"[.-]|[0-9]+|[^.0-9-]+")

# What a word says about how ripe a version is; the others come after these, by their letters.
_RIPENESS = {"alpha": 0, "beta": 1, "milestone": 2, "rc": 3, "cr": 3, "snapshot": 4, "ga": 5, "final": 5, "release": 5}
_RIPENESS["sp"] = 6
_RELEASED, _OTHER, _LIST, _NUMBER = 5, 7, 8, 9
_LOW, _HIGH = 0, 7  # lists of words that are less than as released, and more
_SHORT = {"a": "alpha", "b": "beta", "m": "milestone"}  # if digits follow

# Rank, then how often "as released" came before (see _key), then the word, or a list; and digits: length and text.
_Piece = tuple[int, int, "str | Order", int, str]
Order = tuple["_Piece", ...]
_END: _Piece = (_RELEASED, 0, "", 0, "")
MAX_VERSION = 256
"""Characters that count, as in Maven, which refuses longer ones."""
_ABOVE = MAX_VERSION + 2


def is_base_snapshot(version: str) -> bool:
    """Whether this is what a directory of a version that moves is called."""
    return version == SNAPSHOT or version.endswith(f"-{SNAPSHOT}")


def is_snapshot(version: str) -> bool:
    """Whether a version is one that moves: `1.0-SNAPSHOT`, or a build of one."""
    return is_base_snapshot(version) or _TIMESTAMPED.match(version) is not None


def build_of(version: str) -> tuple[str, str, int] | None:
    """`1.0-SNAPSHOT`, time and number of a build like `1.0-20240102.030405-6`; None for any other version."""
    match = _TIMESTAMPED.match(version)
    return (f"{match['begin']}{SNAPSHOT}", match["time"], int(match["build"])) if match is not None else None


def ascending(versions: Iterable[str]) -> list[str]:
    """In Maven's order; versions that it takes for the same, 1 and 1.0, by their text."""
    return sorted(versions, key=lambda version: (order(version), version))


@lru_cache(maxsize=16384)  # lists are asked for over and over, and sorted each time
def order(version: str) -> Order:
    """A key to sort versions by. Any text is a version; of an endless one only the begin counts."""
    return _key(_tree(version[:MAX_VERSION].lower()))


# Numbers as text without leading zeros; words; words that digits follow; and lists.
_Node = str | tuple[str, str] | list["_Node"]


def _tree(version: str) -> list[_Node]:
    """The version as nested lists. A number is a `str`; a word is a pair with "" behind, or the digits that follow."""
    root: list[_Node] = []
    lists = [root]
    pieces = _TOKEN.findall(version)

    def deeper() -> None:
        if lists[-1]:
            opened: list[_Node] = []
            lists[-1].append(opened)
            lists.append(opened)

    at, fresh = 0, True  # fresh: a separator has just been, or nothing yet
    while at < len(pieces):
        piece = pieces[at]
        at += 1
        if piece in ".-":
            if fresh:
                lists[-1].append("")
            if piece == "-":
                deeper()
            fresh = True
            continue
        if piece[0] in "0123456789":
            lists[-1].append(piece.lstrip("0"))
            if at < len(pieces) and pieces[at] not in ".-":
                deeper()
                fresh = True
            else:
                fresh = False
            continue
        # A word, and whether digits follow: alpha1 and alpha-1 are the same.
        digits = at + 1 if at < len(pieces) and pieces[at] == "-" else at
        if digits < len(pieces) and pieces[digits][0] in "0123456789":
            deeper()
            lists[-1].append((_SHORT.get(piece, piece), pieces[digits].lstrip("0") or "0"))
            at = digits + 1
            if at < len(pieces) and pieces[at] not in ".-":
                deeper()
                fresh = True
                continue
        else:
            if at == len(pieces):
                deeper()  # 1.x is 1-x, at the end
            lists[-1].append((piece, ""))
        fresh = False
    for one in reversed(lists):
        _normalize(one)
    return root


def _normalize(nodes: list[_Node]) -> None:
    """Take out zeros that say nothing: at the end, and before words."""
    for at in range(len(nodes) - 1, -1, -1):
        node = nodes[at]
        if node in ("", []) and (at == len(nodes) - 1 or _is_word(nodes[at + 1])):
            del nodes[at]
    if len(nodes) == 1 and isinstance(nodes[0], list):
        nodes[:] = nodes[0]


def _is_word(node: _Node) -> bool:
    """Whether it is a word, or a list that begins with one."""
    if isinstance(node, list):
        return bool(node) and isinstance(node[0], tuple)
    return isinstance(node, tuple)


def _key(nodes: list[_Node]) -> Order:
    """A list as it compares where everything that has ended goes on as released, for ever.

    So a run of pieces that mean "as released" is told by what it is followed by: something less makes the whole the
    less the sooner it comes, something more the more; at the end of a list there is nothing but such pieces.
    """
    found: list[_Piece] = []
    run = 0
    for at, node in enumerate(nodes):
        piece = _piece(node, first=not at)
        if piece == _END:
            run += 1
            continue
        if run:
            found.append((_RELEASED, run - MAX_VERSION - 1 if piece < _END else MAX_VERSION + 1 - run, "", 0, ""))
            run = 0
        found.append(piece)
    return (*found, _END)


def _piece(node: _Node, *, first: bool) -> _Piece:
    if isinstance(node, str):
        return _NUMBER, 0, "", len(node), node
    if first and isinstance(node, tuple):
        return _word(*node)
    nodes: list[_Node] = node if isinstance(node, list) else [node]
    key = _key(nodes)
    if key == (_END,):
        return _END
    if isinstance(nodes[0], str):
        return _LIST, 0, key, 0, ""
    return _LOW if key < (_END,) else _HIGH, 0, key, 0, ""


def _word(word: str, digits: str) -> _Piece:
    """A word, perhaps with digits behind: these make it more, but for `ga0`, which is still as released."""
    rank = _RIPENESS.get(word, _OTHER)
    text = word if rank == _OTHER else ""
    if not digits or (rank == _RELEASED and digits == "0"):
        return rank, 0, text, 0, ""
    digits = digits.lstrip("0")
    return rank, _ABOVE if rank == _RELEASED else 0, text, len(digits) + 1, digits
