"""The command `mxart replicate` as a process, and a registry that stands still in the middle of what it copies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import trio

from kit.registry import image
from kit.upstream import FakeUpstream, fake_upstream, say

APP = image(Random(5).randbytes(6 << 20))
LAYER = APP.layers[0]
STALLED = 3_500_000  # in the middle of the fourth chunk of a MiB


@asynccontextmanager
async def offered() -> AsyncIterator[FakeUpstream]:
    """A registry that has APP as app:1, and stands still in the middle of its layer, the first time."""
    async with fake_upstream() as up:
        for blob in APP.blobs:
            up.on(f"/v2/app/blobs/{blob.digest}", say(blob.data))
        up.on(f"/v2/app/blobs/{LAYER.digest}", say(LAYER.data, stall_after=STALLED), say(LAYER.data))
        for reference in ("1", APP.manifest.digest):
            fields = {"content-type": APP.manifest.media_type}
            up.on(f"/v2/app/manifests/{reference}", say(APP.manifest.data, headers=fields))
        yield up


def command(source: str, target: str, state: Path, *more: str) -> list[str]:
    words = ["replicate", source, target, "--chunk", "1", "--state", str(state), *more]
    return [sys.executable, "-m", "mxart", *words]


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MXART_")} | more


async def run(words: list[str], **more: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(60):
        return await trio.run_process(
            words, capture_stdout=True, capture_stderr=True, check=False, env=environment(**more)
        )
