"""How tags and commits of a repository are versions of the modules in it (go.dev/ref/mod, "vcs"). Pure.

A module in a folder has that folder before its tags: `sub/dir/v1.2.3`.  Of a module at `…/v2` the versions v2 are
meant, and its go.mod may lie at the root or in a folder `v2`; the tags have no such folder.  What is not tagged has a
pseudo-version after the newest version that its commit descends from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from msgspec import Struct

from mxart.repos.go.imports import is_below
from mxart.repos.go.paths import GOPKG, split_major
from mxart.repos.go.versions import canonical, fits, is_pseudo, is_release, is_version, major, order

INCOMPATIBLE = "+incompatible"
_BASE = re.compile(r"(?P<numbers>v[0-9]+\.[0-9]+\.)(?P<patch>[0-9]+)-(?P<pre>.*)\Z", re.DOTALL)
_TAIL = re.compile(r"(?P<base>.+)[-.][0-9]{14}-[A-Za-z0-9]+(?P<build>\+.*)?\Z", re.DOTALL)
SHORT = 12
"""Digits of a commit's name in a pseudo-version."""


class Place(Struct, frozen=True):
    """Where in its repository a module lies: in `folder`, "" for the root.

    `major` is how its path ends: "/v2", ".v2", "".
    """

    module: str
    root: str
    folder: str
    major: str

    @classmethod
    def of(cls, module: str, root: str, below: str = "") -> Place:
        """`root` is the path that the repository stands for, or its folder `below`. Raises ValueError."""
        parts = split_major(module)
        if parts is None or not is_below(module, root):
            raise ValueError(f"the repository of {root} cannot hold {module}")
        rest = ""
        if module != root:
            if not is_below(parts[0], root):
                raise ValueError(f"the repository of {root} cannot hold {module}")
            rest = parts[0][len(root) :].strip("/")
        # Below the root first, then the folder that the root stands for: that is the order of the go command.
        return cls(module, root, "/".join(part for part in (rest, below) if part), parts[1])

    @property
    def prefix(self) -> str:
        """What tags begin with."""
        return f"{self.folder}/" if self.folder else ""

    @property
    def second(self) -> str:
        """The folder of its major version, where its go.mod may lie instead; "" if it has none."""
        if not self.major or self.major.startswith(".") or self.root == self.module:
            return ""
        return f"{self.prefix}{self.major[1:]}"

    @property
    def may_lack_mod(self) -> bool:
        """Whether it is a module without a go.mod, too: at the root, and not from v2 on, but at gopkg.in."""
        return not self.folder and (not self.major or self.major.startswith("."))

    def tag(self, version: str) -> str:
        """What a version is tagged as."""
        return self.prefix + version.removesuffix(INCOMPATIBLE)

    def version(self, tag: str) -> tuple[str, bool]:
        """The version that a tag stands for, and whether it is that to the letter; "" if it is none of this module.

        One with build metadata, `v1.2.3+more`, says which version a commit comes after, and is none itself.
        """
        if not tag.startswith(self.prefix) or is_pseudo(tag):
            return "", False
        told = tag[len(self.prefix) :]
        version = canonical(told).removesuffix(INCOMPATIBLE)
        if not version or not told.startswith(version):
            return "", False
        return version, version == told

    def fits(self, version: str) -> bool:
        """Whether its path may have this version without +incompatible."""
        return fits(self.module, version.removesuffix(INCOMPATIBLE))


class Tagged(Struct, frozen=True):
    """The versions that are tagged, each sort in order.

    Those of `foreign` are of another major version: they are `+incompatible` ones where no go.mod is.
    """

    own: tuple[str, ...]
    foreign: tuple[str, ...] = ()


def tagged(place: Place, tags: Iterable[str]) -> Tagged:
    """What is tagged as a version of this module."""
    if place.module.startswith(GOPKG) and place.major.endswith("-unstable"):
        return Tagged(())  # the tags are those of the stable one
    own: set[str] = set()
    foreign: set[str] = set()
    for tag in tags:
        version, exact = place.version(tag)
        if not exact or is_pseudo(version):
            continue
        if place.fits(version):
            own.add(version)
        elif place.may_lack_mod and not place.major and major(version) not in ("v0", "v1"):
            foreign.add(version)
    return Tagged(tuple(sorted(own, key=order)), tuple(sorted(foreign, key=order)))


def newest_of_majors(versions: Iterable[str]) -> dict[str, str]:
    """The last one of each major version: it tells whether that has go.mods."""
    return {major(version): version for version in sorted(versions, key=order)}


def guide(own: Iterable[str]) -> str:
    """The version whose go.mod says which ones are retracted; "" if there is none."""
    known = sorted(own, key=order)
    return next((version for version in reversed(known) if is_release(version)), known[-1] if known else "")


def pseudo(major_version: str, base: str, seconds: int, commit: str) -> str:
    """The version of a commit that comes after `base`, "" for none (module.PseudoVersion)."""
    tail = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(seconds))}-{commit[:SHORT]}"
    if not base:
        return f"{major_version or 'v0'}.0.0-{tail}"
    base, plus, build = base.partition("+")
    build = plus + build
    if "-" in base:
        return f"{base}.0.{tail}{build}"
    numbers, _, patch = base.rpartition(".")
    return f"{numbers}.{int(patch) + 1}-0.{tail}{build}"


def base_of(version: str) -> str:
    """The version that a pseudo-version comes after, "" for none. Raises ValueError (module.PseudoVersionBase)."""
    match = _TAIL.match(version) if is_pseudo(version) else None
    if match is None:
        raise ValueError(f"{version} is no version of a commit")
    base, build = match["base"], match["build"] or ""
    parts = _BASE.match(base)
    if parts is None:  # v1.0.0-<time>-<commit>
        if build:
            raise ValueError(f"{version} comes after no version, so it has no {build}")
        return ""
    if parts["pre"] == "0":
        patch = int(parts["patch"])
        if not patch:
            raise ValueError(f"{version} comes before every version that it could come after")
        return f"{parts['numbers']}{patch - 1}{build}"
    return base.removesuffix(".0") + build


def same(one: str, other: str) -> bool:
    """Whether two versions mean the same, but for build metadata."""
    if not is_version(one) or not is_version(other):
        return False
    return canonical(one).removesuffix(INCOMPATIBLE) == canonical(other).removesuffix(INCOMPATIBLE)


def is_major(declared: str, place: Place) -> bool:
    """Whether a go.mod that declares this path is that of such a module.

    Only its major version counts: a fork may stand in for another module.
    """
    parts = split_major(declared) if declared else None
    if parts is None:
        return False
    theirs = parts[1].lstrip("/.").removesuffix("-unstable")
    ours = place.major[1:]
    if not place.major:
        # To take whatever gopkg.in has for it was a mistake once, and checksums depend on it (golang/go#34254).
        return theirs in ("", "v0", "v1") or declared.startswith(GOPKG)
    return bool(parts[1]) and parts[1][1:] == ours
