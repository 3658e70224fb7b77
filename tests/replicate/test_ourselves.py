"""To a server like this one, over TLS: manifests by HTTP/2, blobs by HTTP/1.1, referrers by the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec import structs

from kit.gateways import AUTHORITY, TLS, Running, running
from kit.publishing import EVERYTHING
from kit.registry import OCI_INDEX, OCI_MANIFEST, Blob, image
from kit.repos import Answer, World
from kit.store import OneStore, running_store
from mxart.access.base import Action
from mxart.config import Replicate, Upstreams
from mxart.digest import Digest
from mxart.errors import MxartError, Problem, UpstreamFailed
from mxart.message import Request, Response
from mxart.replicate.engine import Outcome
from mxart.replicate.progress import Progress, silent
from mxart.replicate.run import Choice, from_repository
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.upstream.dial import Dialer

APP = image(Random(9).randbytes(3 << 20))
LAYER = APP.layers[0]


class Boss:
    """May everything."""

    def may(self, action: Action, repository: str, path: str) -> bool:
        return True

    def demand(self, action: Action, repository: str, path: str) -> None:
        pass

    def sees(self, repository: str, path: str) -> bool:
        return True


BOSS = Caller(name="boss", grants=Boss())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OneStore]:
    async with running_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def world(nursery: trio.Nursery, store: OneStore) -> World:
    world = World(nursery)
    world.stock = structs.replace(world.stock, blobs=store.blobs, transfers=store.transfers, uploads=store.uploads)
    return world


@asynccontextmanager
async def serving(repository: Repository) -> AsyncIterator[Running]:
    """A server whose every request is for one repository, by somebody who may push."""

    async def handle(request: Request) -> Response:
        try:
            operation = repository.format.parse(request.method, request.path, request.query, request.headers)
            return await answer(repository, operation, request, Caller(name="pusher", grants=EVERYTHING))
        except Problem as problem:
            return repository.format.word(problem)
        except MxartError as error:  # whoever sends has left
            return repository.format.word(UpstreamFailed(str(error)))

    async with running(TLS, answer=handle) as server:
        yield server


async def copy(
    source: Repository, server: Running, folder: Path, progress: Progress = silent, chunk: int = 1 << 20
) -> Outcome:
    (folder / "ca.pem").write_bytes(AUTHORITY.pem)
    url = f"https://us.test:{server.ports[0]}"
    dialer = Dialer(Upstreams(resolve={"us.test": "127.0.0.1"}))
    allowed = Replicate(targets=(url,), ca_file=str(folder / "ca.pem"))
    choice = Choice(chunk=chunk)
    with trio.fail_after(30):
        return await from_repository(
            source,
            BOSS,
            "team/app:1",
            f"{url}/mirror/app",
            dialer,
            folder / "state",
            allowed,
            choice=choice,
            progress=progress,
        )


def offer(world: World) -> Blob:
    """APP upstream, with a signature; the signature's manifest."""
    for blob in APP.blobs:
        world.upstream.add_blob("team/app", blob.data)
    world.upstream.add_manifest("team/app", APP.manifest.data, "1", media_type=OCI_MANIFEST)
    fields = json.loads(APP.manifest.data) | {"subject": APP.manifest.descriptor(), "artifactType": "a/signature"}
    signature = Blob(OCI_MANIFEST, json.dumps(fields).encode())
    world.upstream.add_manifest("team/app", signature.data, media_type=OCI_MANIFEST)
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [signature.descriptor()]}
    path = f"v2/team/app/referrers/{APP.manifest.digest}"
    world.upstream.answers[path] = Answer(json.dumps(listed).encode(), [("content-type", OCI_INDEX)])
    return signature


def holds(world: World, *blobs: Blob) -> bool:
    return all(world.stock.blobs.has(Digest.parse(blob.digest)) for blob in blobs)


async def test_an_image_arrives_with_its_signature_listed(world: World, tmp_path: Path) -> None:
    signature = offer(world)
    mirror = world.local("mirror")
    async with serving(mirror) as server:
        outcome = await copy(world.proxy(), server, tmp_path)
        assert (outcome.manifests, outcome.blobs, outcome.tags) == (2, len(APP.blobs), ["1"])
        versions = {request.method: request.version for request in server.handler.requests}
        assert versions["PATCH"] == "1.1"
        assert versions["HEAD"] == "2"
    response, _ = await world.ask(mirror, f"/v2/mirror/app/referrers/{APP.manifest.digest}")
    (segment,) = response.body.segments
    assert isinstance(segment, bytes)
    assert [item["digest"] for item in json.loads(segment)["manifests"]] == [signature.digest]
    assert world.catalog.files["mirror", "mirror/app/manifests/1"].digest == Digest.parse(APP.manifest.digest)
    assert holds(world, *APP.blobs, APP.manifest, signature)


async def test_cancelled_in_the_middle_of_a_chunk_the_next_run_sends_the_rest(
    world: World, store: OneStore, tmp_path: Path
) -> None:
    offer(world)
    source, mirror = world.proxy(), world.local("mirror")
    path = f"v2/team/app/blobs/{LAYER.digest}"
    gate = trio.Event()
    world.upstream.answers[path] = replace(world.upstream.answers[path], body_gate=gate)
    half = trio.Event()

    def watch(done: int, total: int | None, what: str) -> None:
        if done >= len(LAYER.data) // 2:
            half.set()

    async with serving(mirror) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, source, server, tmp_path, watch)
            with trio.fail_after(30):
                await half.wait()
            nursery.cancel_scope.cancel()
        gate.set()
        outcome = await copy(source, server, tmp_path)
        assert outcome.bytes_resumed >= 1 << 20
        assert outcome.bytes_resumed + outcome.bytes_sent >= len(LAYER.data)
        assert len({request.path for request in server.handler.requests if request.method == "PATCH"}) == 1
    assert holds(world, *APP.blobs)
