"""Who gets an artifact: callers whom upstream knows, and callers who may not have anything fetched."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kit.guarded import Guarded
from kit.modules import Module
from kit.publishing import Rights
from kit.repos import Alone, Answer, World, body_of, request
from mxart.errors import Problem
from mxart.message import Response, Trace
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

OWN = Module("example.com/own", "v1.0.0", extra={"noise.bin": random.Random(1).randbytes(200_000)})
FREE = Module("example.com/free", "v1.0.0", extra={"noise.bin": random.Random(2).randbytes(200_000)})
CHALLENGE = 'Basic realm="modules"'
ALICE, BOB, CAROL = "Basic YWxpY2U6cA==", "Basic Ym9iOnA=", "Basic Y2Fyb2w6cA=="


class Relayed(World):
    """A worker with a proxy before a guarded upstream that has one module for Alice and Carol, and one for all."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.guarded = Guarded(CHALLENGE)
        for module in (OWN, FREE):
            fields = [("content-length", str(len(module.zip)))]
            self.guarded.answers[f"{module.base}.zip"] = Answer(module.zip, fields)
        self.guarded.public = {"example.com/free"}
        self.guarded.users = {ALICE: {"example.com/own"}, CAROL: {"example.com/own"}, BOB: set()}
        self.mirror = self.proxy("mirror", form=Alone(), upstream=self.guarded, rules=Rules(relay="denied"))

    async def get(self, module: Module, user: str = "", method: str = "GET") -> tuple[Response, Trace]:
        asked = request(method, f"/{module.base}.zip", *([("authorization", user)] if user else []))
        return await answered(self.mirror, asked.method, asked.path, Caller.of(asked.headers))

    async def settled(self) -> None:
        while self.transfers.named:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def answered(repository: Repository, method: str, path: str, caller: Caller) -> tuple[Response, Trace]:
    asked = request(method, path)
    try:
        operation = repository.format.parse(method, path, "", asked.headers)
        return await answer(repository, operation, asked, caller), asked.trace
    except Problem as problem:
        return repository.format.word(problem), asked.trace


@pytest.fixture
def world(nursery: trio.Nursery) -> Relayed:
    return Relayed(nursery)


async def test_a_public_artifact_needs_no_login(world: Relayed) -> None:
    for outcome in ("miss", "hit"):
        response, trace = await world.get(FREE, BOB)
        assert (await body_of(response), trace.outcome) == (FREE.zip, outcome)
        await world.settled()
    assert world.guarded.shown() == [""]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_shows_nothing_is_asked_to_log_in(world: Relayed, method: str) -> None:
    response, trace = await world.get(OWN, method=method)
    assert (response.status, trace.outcome) == (401, "denied")
    assert response.headers.get("www-authenticate") == CHALLENGE
    assert not world.transfers.named


async def test_what_one_caller_had_fetched_is_for_those_whom_upstream_lets_see_it(world: Relayed) -> None:
    response, trace = await world.get(OWN, ALICE)
    assert (response.headers.get("cache-control") or "").startswith("private, ")
    assert (await body_of(response), trace.outcome) == (OWN.zip, "relayed")
    await world.settled()
    response, trace = await world.get(OWN, CAROL)
    assert (await body_of(response), trace.outcome) == (OWN.zip, "relayed")
    for user in (BOB, ""):
        response, _ = await world.get(OWN, user)
        assert response.status == 401
        assert OWN.zip != await body_of(response)
    assert [line for line in world.guarded.asked_as(CAROL) if line.startswith("GET")] == []
    assert [key for key, _ in world.catalog.files] == ["mirror~callers"]
    assert not world.blobs.opened


async def test_callers_at_once_share_a_download_if_upstream_lets_both_see_it(world: Relayed) -> None:
    gate = world.guarded.answers[f"{OWN.base}.zip"].body_gate = trio.Event()
    bodies: list[bytes] = []
    refused: list[int] = []

    async def client(user: str) -> None:
        response, _ = await world.get(OWN, user)
        if response.status == 200:
            bodies.append(await body_of(response))
        else:
            refused.append(response.status)

    async with trio.open_nursery() as clients:
        for user in (ALICE, CAROL, BOB):
            clients.start_soon(client, user)
        while len(refused) < 1:
            await trio.testing.wait_all_tasks_blocked(0.001)
        gate.set()
    assert (bodies, refused) == ([OWN.zip] * 2, [401])
    fetched = world.guarded.asked_as(ALICE) + world.guarded.asked_as(CAROL)
    assert sum(line.startswith("GET") for line in fetched) == 1


async def test_who_may_not_have_it_fetched_gets_what_is_kept(world: Relayed) -> None:
    mirror: Proxy = world.proxy("open", form=Alone(), upstream=world.guarded)
    path = f"/{FREE.base}.zip"
    reader = Caller(name="reader", grants=Rights(read=["open:example.com/free"]))
    fetcher = Caller(name="fetcher", grants=Rights(read=["open:example.com/free"], fetch=["open:example.com/free"]))
    response, _ = await answered(mirror, "GET", path, reader)
    assert response.status == 403
    assert world.guarded.asked == []
    response, _ = await answered(mirror, "GET", path, fetcher)
    assert await body_of(response) == FREE.zip
    await world.settled()
    response, trace = await answered(mirror, "GET", path, reader)
    assert (await body_of(response), trace.outcome) == (FREE.zip, "hit")
