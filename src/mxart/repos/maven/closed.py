"""What an upstream is not asked for: a team's own groups, and versions that it does not hold. Pure.

So it hears of no private name, can put no bytes of its own under one, and is in nobody's way who publishes there.
"""

from __future__ import annotations

from collections.abc import Iterable

from mxart.patterns import PathPattern
from mxart.repos.maven.coordinates import FilePath, MetadataPath
from mxart.repos.maven.requests import read
from mxart.repos.maven.versions import is_base_snapshot
from mxart.repos.maven.writes import Policy
from mxart.repos.operations import Read

_BELOW = ".*"


class Groups:
    """Patterns of groups: `com.example` is that group, `com.example.*` that and all below it."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Each may hold several, separated by commas. Raises ValueError for one that is none."""
        self.patterns = tuple(item.strip() for text in patterns for item in text.split(",") if item.strip())
        self._paths = tuple(path for pattern in self.patterns for path in _paths(pattern))
        self._known: dict[str, bool] = {}

    def hold(self, package: str) -> bool:
        """Whether a package, the path of an artifact or of a group, is private."""
        known = self._known.get(package)
        if known is None:
            if len(self._known) >= 10_000:
                self._known.clear()
            known = self._known[package] = any(path.matches(package) for path in self._paths)
        return known


class Closed:
    """What a proxy is closed to: these groups, and what its policy excludes. See repos.proxy.Proxy."""

    def __init__(self, groups: Groups, policy: Policy = "mixed") -> None:
        self._groups = groups
        self._policy = policy

    def __call__(self, operation: Read) -> str:
        """Why upstream is not asked for this; "" if it may be."""
        if self._groups.patterns and self._groups.hold(operation.package):
            return f"{operation.package} is private here: no upstream is asked for it"
        if self._policy == "mixed":
            return ""
        place = read(operation.path)
        version = place.version if isinstance(place, FilePath | MetadataPath) else ""
        if not version or is_base_snapshot(version) == (self._policy == "snapshots"):
            return ""
        return f"its upstream is asked for {self._policy} only, and {version} is none"


def _paths(pattern: str) -> tuple[PathPattern, ...]:
    stem = pattern.removesuffix(_BELOW)
    path = stem.replace(".", "/")
    try:
        if "/" in stem or "**" in stem or not path.strip("*/"):
            raise ValueError
        if stem != pattern:
            return (PathPattern.parse(f"{path}/**"),)
        return (PathPattern.parse(path), PathPattern.parse(f"{path}/*"))
    except ValueError:
        message = f'{pattern!r} is no pattern of groups: write "com.example" or, with all below it, "com.example.*"'
        raise ValueError(message) from None
