"""The walk: from a tag or digest to everything that belongs to it, and the order in which it is sent.

An index leads to its manifests, each of these to its config and layers, and every manifest to what refers to it
(signatures, SBOMs), which may be referred to as well.  Signatures under cosign's older tags (`sha256-<hex>.sig`) are
looked for, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio
from msgspec import Struct, field

from mxart.digest import Digest
from mxart.errors import MxartError, NotFound, UpstreamFailed
from mxart.replicate.manifests import Manifest, Part, choose_platform, in_order
from mxart.replicate.source import Source

_MOST_MANIFESTS = 20_000
_MOST_BYTES = 512 << 20
_COMPANIONS = (".sig", ".att", ".sbom")
T = TypeVar("T")


class Plan(Struct):
    """What is to be at the target in the end. `tags` and `companions` are for last."""

    root: Manifest
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    companions: dict[str, Digest] = field(default_factory=dict)  # cosign's tags
    dangling: list[Digest] = field(default_factory=list)  # listed as referrers, and not there

    @property
    def ordered(self) -> list[Manifest]:
        """Parts first."""
        return in_order(self.manifests)

    def blobs(self, of: Iterable[Manifest]) -> list[Part]:
        """What these manifests need, each once, the large ones first: they take longest."""
        parts = {part.digest: part for manifest in of for part in manifest.blobs}
        return sorted(parts.values(), key=lambda part: -part.size)

    @property
    def foreign(self) -> list[Part]:
        """Layers that are left out."""
        return list({part.digest: part for manifest in self.manifests.values() for part in manifest.foreign}.values())


async def survey(
    source: Source, root: Manifest, *, platform: str = "", referrers: bool = True, at_once: int = 4
) -> Plan:
    """Read every manifest that belongs to an image. Raises Problems."""
    if platform and root.manifests:
        root = await source.manifest(str(choose_platform(root, platform)))
    walk = _Walk(source, Plan(root), referrers=referrers)
    level = [root]
    while level:
        level = await walk.beyond(level, at_once)
    return walk.plan


class _Walk:
    def __init__(self, source: Source, plan: Plan, *, referrers: bool) -> None:
        self.plan = plan
        self._source = source
        self._referrers = referrers
        self._bytes = 0
        self._admit(plan.root)

    async def beyond(self, level: list[Manifest], at_once: int) -> list[Manifest]:
        """What these manifests are made of, and what refers to them, as far as it is not known already."""
        wanted: dict[Digest, bool] = {}  # whether it must be there
        fresh: list[Manifest] = []

        async def look(manifest: Manifest) -> None:
            for part in manifest.manifests:
                wanted[part.digest] = True
            if self._referrers:
                for part in await self._source.referrers(manifest.digest):
                    wanted.setdefault(part.digest, False)
                if manifest.subject is None:
                    fresh.extend(await self._companions(manifest.digest))

        async def fetch(digest: Digest) -> None:
            try:
                fresh.append(await self._source.manifest(str(digest)))
            except NotFound:
                if wanted[digest]:
                    raise
                self.plan.dangling.append(digest)
            else:
                self._admit(fresh[-1])

        await each(level, look, at_once)
        unknown = [digest for digest in wanted if digest not in self.plan.manifests]
        self._limit(len(unknown))
        await each(unknown, fetch, at_once)
        return fresh

    def _admit(self, manifest: Manifest) -> None:
        self.plan.manifests[manifest.digest] = manifest
        self._bytes += len(manifest.data)
        self._limit(0)

    def _limit(self, more: int) -> None:
        """Raises UpstreamFailed."""
        if len(self.plan.manifests) + more > _MOST_MANIFESTS or self._bytes > _MOST_BYTES:
            raise UpstreamFailed(
                f"{self._source.place}: to this image belong more than {_MOST_MANIFESTS} manifests, "
                f"or {_MOST_BYTES >> 20} MiB of them"
            )

    async def _companions(self, digest: Digest) -> list[Manifest]:
        """Those that are new."""
        found: list[Manifest] = []
        if digest in self.plan.companions.values():
            return found
        for ending in _COMPANIONS:
            tag = f"{digest.algorithm}-{digest.hex}{ending}"
            if (manifest := await self._source.maybe(tag)) is not None:
                self.plan.companions[tag] = manifest.digest
                if manifest.digest not in self.plan.manifests:
                    self._admit(manifest)
                    found.append(manifest)
        return found


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Work on every item, some at once. The first error ends it all, and is raised as it is."""
    limiter = trio.CapacityLimiter(at_once)
    errors: list[MxartError] = []

    async def one(item: T) -> None:
        async with limiter:
            try:
                await work(item)
            except MxartError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(one, item)
    if errors:
        raise errors[0]
