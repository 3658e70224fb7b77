"""The kind `vcs`: private modules, straight from git.

Patterns say which modules those are, as GOPRIVATE does.  They are owned: a group asks nobody else for them, least of
all an upstream of everybody's, and no checksum database hears their names.  "Not found" says so, and which pattern it
was; and whatever else is in the way of an answer is told as it is, for a client that is told "not found" asks
elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from mxart.errors import Forbidden, NotFound
from mxart.message import Trace
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.go.format import Go
from mxart.repos.go.sums import Private, SumsDocument
from mxart.repos.operations import Artifact, Document, File, Found, Listed, Listing
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules
from mxart.repos.stock import Stock
from mxart.repos.vcs.upstream import GitModules


class Vcs(Proxy):
    """A proxy of what is made of commits, for the modules of some patterns."""

    def __init__(
        self,
        name: str,
        upstream: GitModules,
        modules: Private,
        stock: Stock,
        *,
        nursery: trio.Nursery,
        rules: Rules,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name, Go(), upstream, stock, nursery=nursery, origin=upstream.origin, rules=rules, clock=clock)
        self._modules = modules
        self._catalog = stock.catalog

    def owns(self, package: str) -> bool:
        """By its path alone: whether there is such a module is not asked."""
        return package in self._modules

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        if isinstance(operation, SumsDocument):
            raise self._no_sums(operation)
        self._refuse_others(operation.package)
        try:
            await self._pin(operation, trace, caller)
            return await super().file(operation, trace, caller)
        except NotFound as problem:
            raise self._told(problem, operation.package) from None

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        self._refuse_others(operation.package)
        try:
            return await super().listing(operation, trace, caller)
        except NotFound as problem:
            raise self._told(problem, operation.package) from None

    async def _pin(self, operation: File, trace: Trace, caller: Caller) -> None:
        """Before the first file of a version is made: settle which commit that is, for good."""
        if not isinstance(operation, Document | Artifact) or operation.kept:
            return
        info, *others = self.format.together(operation) or ("",)
        if operation.path not in others or self._catalog.file(self.name, operation.path) is not None:
            return
        if self._catalog.file(self.name, info) is None:
            pin = Document(operation.package, info, "info", mutable=False, small=True)
            (await super().file(pin, trace, caller)).close()

    def _refuse_others(self, module: str) -> None:
        if module and module not in self._modules:
            patterns = ", ".join(self._modules.patterns)
            raise NotFound(f"{module} is none of the modules of {self.name}: {patterns}", subject="name")

    def _no_sums(self, operation: SumsDocument) -> Forbidden | NotFound:
        module = operation.asked.module
        if module and module in self._modules:
            patterns = ",".join(self._modules.patterns)
            return Forbidden(
                f"{module} is private here, and its name is told to no checksum database but this server's own:"
                f" set GOSUMDB to that (`mxart setup go` prints it), or GONOSUMDB={patterns}"
                " (GOPRIVATE would lead the go command past this server, too)",
                subject="sumdb",
            )
        return NotFound(f"{self.name} passes no checksum database on", subject="sumdb")

    def _told(self, problem: NotFound, module: str) -> NotFound:
        """Who decided that nobody else is asked."""
        pattern = self._modules.pattern_of(module)
        detail = f"{module} is private, by {pattern}: only repository {self.name} is asked for it"
        return NotFound(problem.message, subject=problem.subject, detail=detail)
