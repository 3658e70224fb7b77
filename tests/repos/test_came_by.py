"""Requests that name instances which they came by, truly or not: they loop for themselves, and for nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from kit.repos import FakeUpstream, World, body_of, manifest, request
from mxart.errors import UpstreamLoops
from mxart.message import Response
from mxart.repos.answers import answer
from mxart.upstream.base import Ask, Reply
from mxart.via import make_pseudonym

OCI = "application/vnd.oci.image.manifest.v1+json"


class Chained(FakeUpstream):
    """Another instance, that finds itself, or too many, in every Via that it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = trio.Event()

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        await self.gate.wait()
        if "via" in ask.headers:
            self.asked.append(f"{ask.method} {ask.path}")
            raise UpstreamLoops("loop")
        async with super().open(ask) as reply:
            yield reply


@pytest.mark.parametrize("kind", ["manifests/1", "manifests/digest", "blobs/digest"])
async def test_a_via_that_a_stranger_made_up_fails_nobody_elses_pull(nursery: trio.Nursery, kind: str) -> None:
    world = World(nursery)
    upstream = Chained()
    data = manifest("app") if kind.startswith("manifests") else b"layer"
    if kind.startswith("manifests"):
        digest = upstream.add_manifest("team/app", data, "1", media_type=OCI)
    else:
        digest = upstream.add_blob("team/app", data)
    hub = world.proxy(upstream=upstream)
    bodies: list[bytes] = []

    async def pull(*came_by: str) -> Response:
        asked = request("GET", f"/v2/team/app/{kind.replace('digest', str(digest))}")
        asked.trace.came_by = came_by
        return await answer(hub, hub.format.parse("GET", asked.path, "", asked.headers), asked)

    async def stranger() -> None:
        with contextlib.suppress(UpstreamLoops):  # unless an honest one's second attempt serves him, too
            (await pull(make_pseudonym())).body.close()

    async def honest() -> None:
        bodies.append(await body_of(await pull()))

    async with trio.open_nursery() as clients:
        clients.start_soon(stranger)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            clients.start_soon(honest)
        await trio.testing.wait_all_tasks_blocked()
        upstream.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert bodies == [data] * 3
    assert upstream.count("GET") == 2
    assert world.blobs.opened == set()
