"""Lists of packages as one caller may see them."""

from __future__ import annotations

from dataclasses import replace

from mxart.access.base import ANYBODY
from mxart.message import Trace
from mxart.repos.base import Caller, Repository
from mxart.repos.operations import Listed, Listing


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
        seen += [name for name in listed.names if grants.sees(repository.name, name)]
        warning = warning or listed.warning
        if limit is not None and len(seen) > limit:
            return Listed(seen[:limit], more=True, warning=warning)
        if not listed.more or not listed.names or len(seen) == limit:
            return Listed(seen, more=listed.more, warning=warning)
        after = listed.names[-1]
