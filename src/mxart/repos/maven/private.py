"""Groups that are a team's own: no upstream hears of them, or can put bytes of its own under their names. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mxart.patterns import PathPattern

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
