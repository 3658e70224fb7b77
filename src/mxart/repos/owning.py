"""A proxy of some names only: they are its upstream's, and nobody else's.

Patterns say which packages those are.  They are owned: a group asks nobody else for them, whether its upstream has them
or not, and nothing else is asked of that upstream.  What comes from a server of the team's own is so never looked for
at one of everybody's, where anybody could have put something under its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from mxart.errors import NotFound
from mxart.message import Trace
from mxart.repos.base import Format
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.go.sums import Private, SumsDocument
from mxart.repos.operations import File, Found, Listed, Listing
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules, Verifier
from mxart.repos.stock import Stock
from mxart.store.base import Origin
from mxart.upstream.base import Ask, Upstream


class Owning:
    """Which modules belong to a repository: patterns, as GOPRIVATE takes them."""

    def __init__(self, repository: str, patterns: Private) -> None:
        self._repository = repository
        self._patterns = patterns

    def __call__(self, module: str) -> bool:
        """Whether this one does."""
        return module in self._patterns

    def refuse_others(self, module: str) -> None:
        """Raise NotFound for what does not."""
        if module not in self._patterns:
            patterns = ", ".join(self._patterns.patterns)
            raise NotFound(f"{module} is none of the modules of {self._repository}: {patterns}", subject="name")

    def told(self, problem: NotFound, module: str) -> NotFound:
        """Who decided that nobody else is asked."""
        pattern = self._patterns.pattern_of(module)
        detail = f"{module} belongs here, by {pattern}: only repository {self._repository} is asked for it"
        return NotFound(problem.message, subject=problem.subject, detail=detail)


def owning(repository: str, patterns: Private | None) -> Owning | None:
    """None where there are no patterns: then nothing belongs to it but what is published."""
    return Owning(repository, patterns) if patterns is not None and patterns.patterns else None


class OwningProxy(Proxy):
    """See above. `modules` says which; everything else as for Proxy."""

    def __init__(
        self,
        modules: Owning,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        upstream: Upstream,
        stock: Stock,
        *,
        nursery: trio.Nursery,
        origin: Callable[[Ask], Origin],
        rules: Rules = Rules(),  # noqa: B008  # a frozen value
        clock: Callable[[], float] = time.time,
        verifier: Verifier | None = None,
    ) -> None:
        super().__init__(
            name,
            format,
            upstream,
            stock,
            nursery=nursery,
            origin=origin,
            rules=rules,
            clock=clock,
            verifier=verifier,
        )
        self._modules = modules

    def owns(self, package: str) -> bool:
        """By its name alone: whether upstream has it is not asked."""
        return self._modules(package)

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        if isinstance(operation, SumsDocument) and not operation.asked.module:
            return await super().file(operation, trace, caller)  # a checksum database's tree is about all modules
        self._modules.refuse_others(operation.package)
        try:
            return await super().file(operation, trace, caller)
        except NotFound as problem:
            raise self._modules.told(problem, operation.package) from None

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        self._modules.refuse_others(operation.package)
        try:
            return await super().listing(operation, trace, caller)
        except NotFound as problem:
            raise self._modules.told(problem, operation.package) from None
