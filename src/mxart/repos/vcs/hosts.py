"""The hosts of modules as web servers: each an upstream of its own, made when it is first asked for a page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mxart.upstream.base import Upstream
from mxart.upstream.remote import Remote

_MAX_HOSTS = 256


class Hosts:
    """Those of one repository. `make` makes the upstream at a URL."""

    def __init__(self, make: Callable[[str], Remote]) -> None:
        self._make = make
        self._known: OrderedDict[str, Remote] = OrderedDict()

    def at(self, url: str) -> Upstream:
        """The one at https://host; one that was not asked for long is forgotten for it."""
        remote = self._known.pop(url, None) or self._make(url)
        self._known[url] = remote
        if len(self._known) > _MAX_HOSTS:
            # Nothing of it is left open: connections in use are closed with their replies, idle ones after a while.
            self._known.popitem(last=False)[1].sweep()
        return remote

    def sweep(self) -> None:
        """Close connections that nobody uses any more."""
        for remote in self._known.values():
            remote.sweep()

    async def aclose(self) -> None:
        """Close every idle connection."""
        for remote in self._known.values():
            await remote.aclose()
