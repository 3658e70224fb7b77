"""What upstream denies us: a question is not asked again at once, and what is kept of a package may be in doubt.

A package that was public, and is kept, may turn private.  Upstream says so when a tag is asked for again; the
digests that the tag led to never expire.  So from a denial on the whole package is in doubt: nothing of it is served
without a word of upstream's, until upstream grants us something of it again.  Doubt outlives the process and is seen by
all workers: it lies in the catalog, as a name of a repository that does not exist.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

from mxart.errors import UpstreamDenied
from mxart.repos.operations import File, Listing, Referrers
from mxart.repos.remote import Remote

_HELD = 30.0  # seconds until the same question is asked again; never longer than the negative ttl
_MAX_HELD = 4096
_MAX_REMEMBERED = 10_000
_DOUBT = 10 * 365 * 86400.0  # for good: there are no more doubts than packages that are kept


class Denials:
    """Of one upstream, to us."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._shelf = f"{remote.name}~denied"
        self._hold = min(_HELD, remote.rules.negative_ttl)
        self._clock: Callable[[], float] = remote.clock
        self._held: OrderedDict[str, tuple[float, UpstreamDenied]] = OrderedDict()
        # Asked at every request; the answers hold until the catalog changes.
        self._doubts: dict[str, bool] = {}
        self._generation: int | None = None

    def held(self, path: str) -> UpstreamDenied | None:
        """How upstream refused this a moment ago, if it did."""
        entry = self._held.get(path)
        if entry is None:
            return None
        since, problem = entry
        if not 0 <= self._clock() - since < self._hold:
            del self._held[path]
            return None
        return problem

    def doubted(self, package: str) -> bool:
        """Whether what is kept of a package may no longer be shown to everybody."""
        catalog = self._remote.stock.catalog
        generation = catalog.generation()
        if generation != self._generation or len(self._doubts) >= _MAX_REMEMBERED:
            self._doubts.clear()
            self._generation = generation
        doubted = self._doubts.get(package)
        if doubted is None:
            doubted = self._doubts[package] = catalog.missing(self._shelf, package, self._clock())
        return doubted

    async def note(self, operation: File | Listing | Referrers, problem: UpstreamDenied) -> None:
        """Upstream denies us this. Durable when it returns, where it casts doubt on what is kept of the package.

        A list denied casts none: there are registries that let everybody pull, and only users list.
        """
        package, path = operation.package, operation.path
        self._held.pop(path, None)
        # A copy has no traceback, whose frames hold the caller and all that was done for him.
        self._held[path] = (self._clock(), copy.copy(problem))
        if len(self._held) > _MAX_HELD:
            self._held.popitem(last=False)
        if isinstance(operation, Listing | Referrers):
            return
        catalog = self._remote.stock.catalog
        if not self.doubted(package) and catalog.has_package(self._remote.name, package):
            with self._remote.tolerant(path):
                await catalog.put_missing(self._shelf, package, self._clock() + _DOUBT)

    async def dispel(self, package: str) -> None:
        """Upstream has granted us something of a package."""
        with self._remote.tolerant(package):
            await self._remote.stock.catalog.put_missing(self._shelf, package, 0.0)
