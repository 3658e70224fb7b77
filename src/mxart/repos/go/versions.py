"""Versions as Go has them: semantic versions with a `v`, pseudo-versions, `+incompatible` (golang.org/x/mod). Pure.

`v1` and `v1.2` are versions, but not canonical ones.  A pseudo-version stands for a commit:
`v0.0.0-20240102030405-0123456789ab`, `v1.2.4-0.<time>-<rev>` (after v1.2.3), `v1.2.3-rc.1.0.<time>-<rev>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from mxart.repos.go.paths import split_major

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"v(?P<major>{_NUMBER})"
    rf"(?:\.(?P<minor>{_NUMBER})"
    rf"(?:\.(?P<patch>{_NUMBER})"
    rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?P<build>\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?\Z"
)
_PSEUDO = re.compile(
    r"v[0-9]+\.(?:0\.0-|[0-9]+\.[0-9]+-(?:[^+]*\.)?0\.)(?P<time>[0-9]{14})-(?P<rev>[A-Za-z0-9]+)(?:\+.*)?\Z"
)
# Nobody's version is longer; whoever sends one has us compare no megabytes.
MAX_VERSION = 255

_Part = tuple[int, int, str]
Order = tuple[_Part, _Part, _Part, int, tuple[_Part, ...], str]


def _parse(version: str) -> re.Match[str] | None:
    return _SEMVER.match(version) if len(version) <= MAX_VERSION else None


def is_version(version: str) -> bool:
    """Whether this is a semantic version (semver.IsValid)."""
    return _parse(version) is not None


def canonical(version: str) -> str:
    """The version with all its numbers and without build metadata but `+incompatible`; "" if it is none."""
    match = _parse(version)
    if match is None:
        return ""
    pre = f"-{match['pre']}" if match["pre"] else ""
    build = "+incompatible" if match["build"] == "+incompatible" else ""
    return f"v{match['major']}.{match['minor'] or 0}.{match['patch'] or 0}{pre}{build}"


def major(version: str) -> str:
    """`v2` of `v2.3.4`; "" if it is no version."""
    match = _parse(version)
    return f"v{match['major']}" if match is not None else ""


def is_release(version: str) -> bool:
    """Whether this is a version and no pre-release."""
    match = _parse(version)
    return match is not None and not match["pre"]


@lru_cache(maxsize=16384)  # lists are asked for over and over, and sorted each time
def order(version: str) -> Order:
    """A key to sort versions by (semver.Compare, and the text where that says equal). Raises ValueError."""
    match = _parse(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    pre = tuple(map(_part, match["pre"].split("."))) if match["pre"] else ()
    numbers = (_part(match["major"]), _part(match["minor"] or "0"), _part(match["patch"] or "0"))
    return (*numbers, int(not pre), pre, version)


def _part(text: str) -> _Part:
    # Without leading zeros the longer number is the larger one; numbers come before words (semver.org, 11).
    return (0, len(text), text) if text.isdigit() else (1, 0, text)


def is_pseudo(version: str) -> bool:
    """Whether a version stands for a commit (module.IsPseudoVersion)."""
    return version.count("-") >= 2 and is_version(version) and _PSEUDO.match(version) is not None


def pseudo_time(version: str) -> str:
    """When the commit of a pseudo-version was made, as yyyymmddhhmmss in UTC; "" for any other version."""
    match = _PSEUDO.match(version) if is_pseudo(version) else None
    return match["time"] if match is not None else ""


def pseudo_revision(version: str) -> str:
    """The commit of a pseudo-version, as far as it is written there; "" for any other version."""
    match = _PSEUDO.match(version) if is_pseudo(version) else None
    return match["rev"] if match is not None else ""


def fits(path: str, version: str) -> bool:
    """Whether a module's path may have this version: v2 and above are told by the path (module.CheckPathMajor).

    But for versions of repositories without go.mod: those are `+incompatible`.
    """
    parts = split_major(path)
    if parts is None or not is_version(version):
        return False
    suffix = parts[1].removesuffix("-unstable") if parts[1].startswith(".") else parts[1]
    if suffix == ".v1" and version.startswith("v0.0.0-"):
        return True  # an old way to write pseudo-versions of gopkg.in
    if suffix:
        return major(version) == suffix[1:]
    return major(version) in ("v0", "v1") or version.endswith("+incompatible")


def is_canonical(path: str, version: str) -> bool:
    """Whether a version names one content of this module for ever."""
    return canonical(version) == version and bool(version) and fits(path, version)


def latest(versions: Iterable[str]) -> str:
    """What `latest` means: the highest release, else the highest pre-release, else the newest commit; "" of none.

    What is no version does not count.
    """
    return max((version for version in versions if is_version(version)), key=_rank, default="")


def _rank(version: str) -> tuple[int, str, Order]:
    if is_release(version):
        return 2, "", order(version)
    if is_pseudo(version):
        return 0, pseudo_time(version), order(version)
    return 1, "", order(version)
