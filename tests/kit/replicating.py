"""Replications of one image, `app:1`, from a fake registry to a fake target, in the test's own loop."""

from __future__ import annotations

from pathlib import Path
from random import Random

import trio

from kit.registry import Blob, Image
from kit.target import FakeTarget
from kit.upstream import FakeUpstream, say
from mxart.config import Upstreams
from mxart.replicate.engine import Outcome, Replication, Wish
from mxart.replicate.memo import Memo
from mxart.replicate.openers import UpstreamOpener
from mxart.replicate.progress import Progress, silent
from mxart.replicate.source import Source
from mxart.replicate.target import Target
from mxart.replicate.uploading import Manner
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience
from mxart.upstream.tokens import ANONYMOUS, Credentials

NOISE = Random(7).randbytes(3 << 20)
CHUNK = 1 << 20
QUICK = Patience(rounds=2, first_pause=0.001)


def offer(up: FakeUpstream, item: Image, tag: str = "1") -> None:
    for blob in item.blobs:
        up.on(f"/v2/app/blobs/{blob.digest}", say(blob.data))
    offer_manifest(up, item.manifest, tag)


def offer_manifest(up: FakeUpstream, manifest: Blob, tag: str) -> None:
    for reference in (tag, manifest.digest):
        up.on(f"/v2/app/manifests/{reference}", say(manifest.data, headers={"content-type": manifest.media_type}))


async def copy(
    up: FakeUpstream,
    target: FakeTarget,
    state: Path | None = None,
    *,
    name: str = "team/app",
    credentials: Credentials = ANONYMOUS,
    manner: Manner | None = None,
    progress: Progress = silent,
    platform: str = "",
) -> Outcome:
    reading = Remote("source", [up.url], Dialer(Upstreams()), patience=QUICK)
    writing = Remote("target", [target.url], Dialer(Upstreams()), patience=QUICK, credentials=credentials)
    manner = manner or Manner(chunk=CHUNK, first_pause=0.001)
    try:
        with trio.fail_after(30):
            return await Replication(
                Source(UpstreamOpener(reading), "app", "source/app"),
                Target(writing, name),
                Memo(state),
                manner=manner,
                progress=progress,
                platform=platform,
            ).run([Wish("1", ("1",))])
    finally:
        await reading.aclose()
        await writing.aclose()


def arrived(target: FakeTarget, item: Image, name: str = "team/app") -> bool:
    """Every byte of it, under the tag, and nothing begun is left."""
    blobs = all(target.blobs.get(f"{name}@{blob.digest}") == blob.data for blob in item.blobs)
    return blobs and target.manifests[f"{name}:1"] == (item.manifest.media_type, item.manifest.data)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())
