"""Referrers through a proxy that relays its callers' credentials: what refers to a private image is private."""

from __future__ import annotations

import json

import pytest
import trio

from kit.guarded import CHALLENGE, Guarded
from kit.repos import Answer, World, body_of, manifest, request
from mxart.digest import Digest
from mxart.errors import Problem
from mxart.message import Response, Trace
from mxart.repos.answers import answer
from mxart.repos.callers import Caller
from mxart.repos.remote import Rules

INDEX = "application/vnd.oci.image.index.v1+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
ALICE, BOB = "Bearer alices-secret-token", "Bearer bobs-secret-token"
RULES = Rules(relay="denied")


def index(mark: str) -> Answer:
    item = {"mediaType": OCI, "digest": str(Digest.of(mark.encode())), "size": 1, "annotations": {"mark": mark}}
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [item]}).encode()
    return Answer(data, [("content-type", INDEX)])


class Private(World):
    """A proxy before an upstream that shows team/app to Alice only."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.registry = Guarded()
        self.digest = self.registry.add_manifest("team/app", manifest("app"), "1", media_type=OCI)
        self.registry.users = {ALICE: {"team/app"}, BOB: set()}
        self.hub = self.proxy(upstream=self.registry, rules=RULES)
        self.api = f"v2/team/app/referrers/{self.digest}"
        self.tag = f"v2/team/app/manifests/sha256-{self.digest.hex}"

    async def get(self, target: str, user: str = "") -> tuple[Response, Trace]:
        asked = request("GET", target, *([("authorization", user)] if user else []))
        try:
            operation = self.hub.format.parse("GET", asked.path, asked.query, asked.headers)
            return await answer(self.hub, operation, asked, Caller.of(asked.headers)), asked.trace
        except Problem as problem:
            return self.hub.format.word(problem), asked.trace

    async def marks(self, user: str, target: str = "") -> list[str]:
        response, trace = await self.get(target or f"/{self.api}", user)
        assert response.status == 200
        assert trace.outcome == ("relayed" if user else "miss")
        return [item["annotations"]["mark"] for item in json.loads(await body_of(response))["manifests"]]


@pytest.fixture
def world(nursery: trio.Nursery) -> Private:
    return Private(nursery)


@pytest.mark.parametrize("has_api", [True, False])
async def test_only_who_may_see_an_image_sees_what_refers_to_it(world: Private, has_api: bool) -> None:
    world.registry.answers[world.api if has_api else world.tag] = index("signature")
    assert await world.marks(ALICE) == ["signature"]
    for user in (BOB, ""):
        response, trace = await world.get(f"/{world.api}", user)
        assert (response.status, trace.outcome) == (401, "denied")
        assert str(response.headers.get("www-authenticate")).startswith(CHALLENGE)
    gets = world.registry.count("GET")
    assert await world.marks(ALICE) == ["signature"]  # kept, for those who may see it
    assert world.registry.count("GET") == gets


async def test_upstreams_ignorance_of_the_api_lets_nobody_into_a_package(world: Private) -> None:
    """It says 404 to everybody; that must not count as a word on whoever asks."""
    assert await world.marks(ALICE, f"/{world.tag.replace('manifests/sha256-', 'referrers/sha256:')}") == []
    response, _ = await world.get(f"/{world.api}", BOB)
    assert response.status == 401
    response, _ = await world.get(f"/v2/team/app/manifests/{world.digest}", BOB)
    assert response.status == 401


async def test_what_refers_to_an_image_that_is_gone_is_asked_for_as_each_caller(world: Private) -> None:
    gone = Digest.of(b"gone")
    target = f"/v2/team/app/referrers/{gone}"
    world.registry.answers[target[1:]] = index("of the past")
    assert await world.marks(ALICE, target) == ["of the past"]
    response, _ = await world.get(target, BOB)
    assert response.status == 401
    assert not [record for record in world.catalog.files.values() if "referrers" in record.path]


async def test_a_list_that_is_denied_casts_no_doubt_on_images_that_are_kept(world: Private) -> None:
    world.registry.public = {"team/app"}
    assert (await world.get("/v2/team/app/manifests/1"))[0].status == 200
    world.registry.answers[world.api] = Answer(problem=None)
    world.registry.public = set()
    response, _ = await world.get(f"/{world.api}")
    assert response.status == 401
    assert (await world.get("/v2/team/app/manifests/1"))[0].status == 200


async def test_a_list_that_was_public_is_not_shown_once_the_image_is_denied(world: Private) -> None:
    world.registry.public = {"team/app"}
    world.registry.answers[world.api] = index("signature")
    assert await world.marks("") == ["signature"]
    assert (await world.get("/v2/team/app/manifests/1"))[0].status == 200
    world.registry.public = set()
    world.clock.forward(301)
    assert (await world.get("/v2/team/app/manifests/1"))[0].status == 401
    world.clock.forward(-300)  # the list itself would still be fresh
    response, _ = await world.get(f"/{world.api}")
    assert response.status == 401
    assert await world.marks(ALICE) == ["signature"]
