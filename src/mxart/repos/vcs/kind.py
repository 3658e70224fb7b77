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
from mxart.repos.operations import Artifact, Document, File, Found
from mxart.repos.owning import Owning, OwningProxy
from mxart.repos.remote import Rules
from mxart.repos.stock import Stock
from mxart.repos.vcs.upstream import GitModules


class Vcs(OwningProxy):
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
        super().__init__(
            Owning(name, modules),
            name,
            Go(),
            upstream,
            stock,
            nursery=nursery,
            origin=upstream.origin,
            rules=rules,
            clock=clock,
        )
        self._patterns = modules
        self._catalog = stock.catalog

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        if isinstance(operation, SumsDocument):
            raise self._no_sums(operation)
        await self._pin(operation, trace, caller)
        return await super().file(operation, trace, caller)

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

    def _no_sums(self, operation: SumsDocument) -> Forbidden | NotFound:
        module = operation.asked.module
        if module and module in self._patterns:
            patterns = ",".join(self._patterns.patterns)
            return Forbidden(
                f"{module} is private here, and its name is told to no checksum database but this server's own:"
                f" set GOSUMDB to that (`mxart setup go` prints it), or GONOSUMDB={patterns}"
                " (GOPRIVATE would lead the go command past this server, too)",
                subject="sumdb",
            )
        return NotFound(f"{self.name} passes no checksum database on", subject="sumdb")
