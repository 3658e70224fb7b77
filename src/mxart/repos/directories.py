"""Directories of what a repository keeps, as one caller may see them: what lies in or above a package that he may read.

A file, or a directory within a package, is judged as that package is.  A directory above packages is seen if one of
those below is; there may be thousands, so others have their turn in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from mxart.access.base import ANYBODY, Grants
from mxart.errors import NotFound
from mxart.repos.operations import Directory, Entry
from mxart.repos.seen import judged
from mxart.repos.stock import Stock
from mxart.store.changes import Child

_STEP = 200


async def entries(stock: Stock, repository: str, operation: Directory, grants: Grants) -> list[Entry]:
    """What lies right below a path, as far as it may be seen. Raises NotFound where nothing does, but for the root."""
    names = (repository, *operation.through)

    def sees(package: str) -> bool:
        return all(grants.sees(name, package) for name in names)

    view = stock.changes.view()
    seen: list[Entry] = []
    last: Child | None = None
    while found := view.children(repository, operation.path, last, _STEP):
        seen += [
            _entry(child)
            for child in found
            if grants is ANYBODY or await _seen(stock, repository, operation, child, sees)
        ]
        last = found[-1]
        await trio.lowlevel.checkpoint()
    if last is None and operation.path:
        raise NotFound(f"{repository} keeps nothing below {operation.path}", subject=operation.subject)
    return sorted(seen, key=lambda entry: entry.name)


async def _seen(stock: Stock, repository: str, operation: Directory, child: Child, sees: Callable[[str], bool]) -> bool:
    path = f"{operation.path}/{child.name}" if operation.path else child.name
    if child.record is not None:
        return sees(child.package)
    if f"{path}/".startswith(f"{child.package}/") and sees(child.package):
        return True
    return bool(await judged(_packages(stock, repository, f"{path}/"), sees, 1))


def _packages(stock: Stock, repository: str, start: str) -> Iterator[str]:
    """The names that begin so."""
    after = start
    while names := stock.catalog.packages(repository, after, _STEP):
        for name in names:
            if not name.startswith(start):
                return
            yield name
        after = names[-1]


def _entry(child: Child) -> Entry:
    record = child.record
    return Entry(child.name) if record is None else Entry(child.name, record.size, record.created)
