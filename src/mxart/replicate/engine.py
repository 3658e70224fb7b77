"""A replication from beginning to end: survey, blobs, manifests, lists of referrers, tags.

In this order, so that the target never holds a manifest whose parts are missing, and a tag moves when all that belongs
to its image is there: whoever pulls meanwhile gets the old image or the new one.  What the target has is not sent
again: a manifest that is there has its blobs there, too, as every registry sees to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec import Struct, field

from mxart.digest import Digest
from mxart.errors import NotFound
from mxart.replicate.manifests import Manifest, Part, referrers_tag, with_referrers
from mxart.replicate.memo import Memo
from mxart.replicate.progress import Meter, Progress, silent
from mxart.replicate.source import Source
from mxart.replicate.survey import Plan, each, survey
from mxart.replicate.target import Target
from mxart.replicate.uploading import Manner, Uploader
from mxart.repos.oci import media

_log = logging.getLogger("mxart.replicate")


class Outcome(Struct):
    """What was done. Counts are of blobs and bytes; `notes` are for the user."""

    digests: dict[str, str] = field(default_factory=dict)  # by what was asked for
    manifests: int = 0  # that were sent
    manifests_there: int = 0
    blobs: int = 0
    blobs_there: int = 0
    mounted: int = 0
    bytes_sent: int = 0
    bytes_resumed: int = 0  # that an earlier run had sent
    tags: list[str] = field(default_factory=list)  # that were set or stood right
    notes: list[str] = field(default_factory=list)


class Wish(Struct, frozen=True):
    """One image: by which tag or digest it is found, and under which tags it is to be there (maybe none).

    `listed`: it comes from a list, so that it is no error if it has gone since.
    """

    reference: str
    tags: tuple[str, ...] = ()
    listed: bool = False


class Replication:
    """From one repository to another. Use it once."""

    def __init__(
        self,
        source: Source,
        target: Target,
        memo: Memo,
        *,
        manner: Manner | None = None,
        platform: str = "",
        referrers: bool = True,
        at_once: int = 4,
        progress: Progress = silent,
    ) -> None:
        """`platform` chooses one manifest of an index; `referrers`: signatures and the like are taken along."""
        self._source = source
        self._target = target
        self._memo = memo
        self._uploader = Uploader(source, target, memo, manner or Manner())
        self._platform = platform
        self._referrers = referrers
        self._at_once = at_once
        self._meter = Meter(progress)
        self._done: set[Digest] = set()  # manifests that the target has, as was seen
        self.outcome = Outcome()

    async def run(self, wishes: Sequence[Wish]) -> Outcome:
        """All of them, one after the other. Raises MxartError at the first thing that cannot be done.

        Cancelled: nothing stays open here; uploads that have begun stay at the target, for the next run to go on with.
        """
        self._memo.sweep()
        for wish in wishes:
            self._meter.say(f"reading {wish.reference}")
            try:
                root = await self._source.manifest(wish.reference)
            except NotFound:
                if not wish.listed:
                    raise
                self.outcome.notes.append(f"{wish.reference} has gone since it was listed")
                continue
            plan = await survey(
                self._source, root, platform=self._platform, referrers=self._referrers, at_once=self._at_once
            )
            await self._send(plan, wish)
        return self.outcome

    async def every_tag(self) -> list[Wish]:
        """A wish for each tag of the source, but for those that stand for lists of referrers."""
        tags = await self._source.tags()
        return [Wish(tag, (tag,), listed=True) for tag in tags if not _stands_for_referrers(tag)]

    async def _send(self, plan: Plan, wish: Wish) -> None:
        ordered = [manifest for manifest in plan.ordered if manifest.digest not in self._done]
        missing = await self._missing(ordered)
        await self._blobs(plan.blobs(missing))
        for manifest in missing:
            moved = self._meter.share(f"manifest {_short(manifest.digest)}")
            await self._target.put_manifest(manifest, str(manifest.digest))
            moved(len(manifest.data))
            self._done.add(manifest.digest)
        self.outcome.manifests += len(missing)
        self.outcome.manifests_there += len(ordered) - len(missing)
        await self._list_referrers(plan)
        for tag, digest in plan.companions.items():
            await self._tag(plan.manifests[digest], tag)
        for tag in wish.tags:
            await self._tag(plan.root, tag)
        self.outcome.digests[wish.reference] = str(plan.root.digest)
        self.outcome.notes += [
            f"left out: {part.digest} ({part.size} bytes), a foreign layer, which is not for passing on"
            for part in plan.foreign
        ]
        self.outcome.notes += [f"listed as a referrer, but not there: {digest}" for digest in plan.dangling]

    async def _missing(self, manifests: list[Manifest]) -> list[Manifest]:
        """Those that the target lacks, in the same order."""
        there: set[Digest] = set()

        async def look(manifest: Manifest) -> None:
            if await self._target.has_manifest(str(manifest.digest), manifest.digest):
                there.add(manifest.digest)

        self._meter.say("asking what is there")
        await each(manifests, look, self._at_once)
        self._done |= there
        missing = [manifest for manifest in manifests if manifest.digest not in there]
        self._meter.expect(sum(len(manifest.data) for manifest in missing))
        return missing

    async def _blobs(self, parts: list[Part]) -> None:
        self._meter.expect(sum(part.size for part in parts))

        async def send(part: Part) -> None:
            moved = self._meter.share(f"blob {_short(part.digest)}")
            way, resumed = await self._uploader.send(part, moved)
            moved(part.size)
            if way == "there":
                self.outcome.blobs_there += 1
            elif way == "mounted":
                self.outcome.mounted += 1
            else:
                self.outcome.blobs += 1
                self.outcome.bytes_sent += part.size - resumed
                self.outcome.bytes_resumed += resumed

        await each(parts, send, self._at_once)

    async def _list_referrers(self, plan: Plan) -> None:
        """Where the target has no API for it, the list is an index under a tag, which is ours to keep."""
        subjects: dict[Digest, list[Manifest]] = {}
        for manifest in plan.manifests.values():
            if manifest.subject is not None:
                subjects.setdefault(manifest.subject, []).append(manifest)
        for subject, referrers in subjects.items():
            if await self._target.lists_referrers(subject):
                return
            index = with_referrers(await self._target.referrers_index(subject), referrers)
            if index is not None:
                made = Manifest(Digest.of(index), media.INDEX, index)
                await self._target.put_manifest(made, referrers_tag(subject))

    async def _tag(self, manifest: Manifest, tag: str) -> None:
        self._meter.say(f"tag {tag}")
        if not await self._target.has_manifest(tag, manifest.digest):
            await self._target.put_manifest(manifest, tag)
        self.outcome.tags.append(tag)


def _short(digest: Digest) -> str:
    return f"{digest.algorithm}:{digest.hex[:12]}"


def _stands_for_referrers(tag: str) -> bool:
    algorithm, _, hexed = tag.partition("-")
    return algorithm in ("sha256", "sha512") and len(hexed) == 64 and all(char in "0123456789abcdef" for char in hexed)
