"""Lists of referrers: complete ones are filtered, put in order and cut here, the same for every kind. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mxart.repos.operations import Descriptor, Referred, Referrers

# Clients read an index up to 4 MiB (distribution-spec, "Pushing Manifests"; oras stops there), and some of them follow
# no link to a next page: so a page is as large as it may be. The rest is for what stands around the descriptors.
MAX_PAGE = (4 << 20) - 4096


def cut(descriptors: Iterable[Descriptor], operation: Referrers, warning: str = "") -> Referred:
    """The part of a complete list that was asked for; a digest that is there twice is taken once, as it came first."""
    wanted: dict[str, Descriptor] = {}
    for item in descriptors:
        if not operation.artifact_type or item.artifact_type == operation.artifact_type:
            wanted.setdefault(str(item.digest), item)
    page: list[Descriptor] = []
    size = 0
    for digest in sorted(wanted):
        if digest <= operation.after:
            continue
        item = wanted[digest]
        size += len(item.json) + 1
        if len(page) == operation.limit or (page and size > MAX_PAGE):
            return Referred(page, more=True, warning=warning)
        page.append(item)
    return Referred(page, warning=warning)
