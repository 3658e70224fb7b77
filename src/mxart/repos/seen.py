"""Lists of packages as one caller may see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio
from msgspec.structs import replace

from mxart.access.base import ANYBODY
from mxart.message import Trace
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.operations import Listed, Listing

_AT_ONCE = 200  # names that are judged before others have their turn: some milliseconds


async def judged(names: Iterable[str], sees: Callable[[str], bool], most: int | None = None) -> list[str]:
    """The names that may be seen, the first `most` of them. There may be a hundred thousand, and each is a decision."""
    seen: list[str] = []
    for count, name in enumerate(names, 1):
        if sees(name):
            seen.append(name)
            if len(seen) == most:
                break
        if count % _AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return seen


async def packages_seen(repository: Repository, operation: Listing, trace: Trace, caller: Caller) -> Listed:
    """The packages of a repository that the caller may see: as many as he asked for, however many lie between them.

    Raises what Repository.listing raises. Cancellation leaks nothing.
    """
    grants = caller.grants
    if grants is ANYBODY:
        return await repository.listing(operation, trace, caller)
    seen: list[str] = []
    after, limit, warning = operation.after, operation.limit, ""
    while True:
        listed = await repository.listing(replace(operation, after=after), trace, caller)
        seen += await judged(listed.names, lambda name: grants.sees(repository.name, name))
        warning = warning or listed.warning
        if limit is not None and len(seen) > limit:
            return Listed(seen[:limit], more=True, warning=warning)
        if not listed.more or not listed.names or len(seen) == limit:
            return Listed(seen, more=listed.more, warning=warning)
        after = listed.names[-1]
