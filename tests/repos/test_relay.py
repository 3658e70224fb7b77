"""A proxy that relays its callers' credentials: everybody sees what upstream lets him see, and nobody more."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from kit.guarded import CHALLENGE, Guarded
from kit.repos import Answer, World, body_of, code_of, manifest, request
from mxart.errors import Problem, UpstreamDenied, UpstreamUnavailable
from mxart.message import Response, Trace
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules
from mxart.repos.verdicts import GRANTED, REFUSED
from mxart.upstream.base import Ask

OCI = "application/vnd.oci.image.manifest.v1+json"
ALICE, BOB = "Bearer alices-secret-token", "Bearer bobs-secret-token"
TAG = "/v2/team/app/manifests/1"
DENIED = Rules(relay="denied")
TTL = DENIED.ttl


class Relayed(World):
    """A worker with a proxy before a guarded upstream that has team/app, for Alice, and library/tool, for all."""

    def __init__(self, nursery: trio.Nursery, rules: Rules = DENIED) -> None:
        super().__init__(nursery)
        self.registry = Guarded()
        self.manifest = manifest("app")
        self.digest = self.registry.add_manifest("team/app", self.manifest, "1", media_type=OCI)
        self.blob = self.registry.add_blob("team/app", b"private bytes")
        self.tool = self.registry.add_manifest("library/tool", manifest("tool"), "1", media_type=OCI)
        self.registry.public = {"library/tool"}
        self.registry.users = {ALICE: {"team/app"}, BOB: set()}
        self.hub = self.relaying(rules=rules)

    def relaying(self, *, rules: Rules = DENIED, name: str = "hub", new: bool = False) -> Proxy:
        return self.proxy(name, upstream=self.registry, rules=rules, stock=self.worker() if new else None)

    async def get(
        self, target: str, user: str = "", method: str = "GET", at: Repository | None = None
    ) -> tuple[Response, Trace]:
        repository = at or self.hub
        fields = [("authorization", user)] if user else []
        asked = request(method, target, *fields)
        try:
            operation = repository.format.parse(method, asked.path, asked.query, asked.headers)
            return await answer(repository, operation, asked, Caller.of(asked.headers)), asked.trace
        except Problem as problem:
            return repository.format.word(problem), asked.trace

    async def status(self, target: str, user: str = "", at: Repository | None = None) -> int:
        response, _ = await self.get(target, user, at=at)
        response.body.close()
        await trio.testing.wait_all_tasks_blocked()  # a download that has begun is recorded by another task
        return response.status


@pytest.fixture
async def world(nursery: trio.Nursery) -> AsyncIterator[Relayed]:
    made = Relayed(nursery)
    yield made
    await trio.testing.wait_all_tasks_blocked()
    assert made.blobs.opened == set()


def challenges(response: Response) -> list[str]:
    return response.headers.get_all("www-authenticate")


async def test_public_images_need_no_login_and_no_question_as_the_caller(world: Relayed) -> None:
    for user in ("", ALICE, ALICE):
        response, trace = await world.get("/v2/library/tool/manifests/1", user)
        assert response.status == 200
        assert trace.outcome != "relayed"
    assert world.registry.shown() == [""]


async def test_whoever_shows_nothing_is_asked_to_log_in_by_upstreams_own_challenge(world: Relayed) -> None:
    response, trace = await world.get(TAG)
    assert response.status == 401
    assert code_of(response) == "UNAUTHORIZED"
    # What upstream thought of our own credentials is not for the caller.
    assert challenges(response) == [CHALLENGE]
    assert trace.outcome == "denied"


async def test_a_caller_sees_what_upstream_lets_him_see(world: Relayed) -> None:
    response, trace = await world.get(TAG, ALICE)
    assert (response.status, await body_of(response)) == (200, world.manifest)
    assert trace.outcome == "relayed"
    response, trace = await world.get(f"/v2/team/app/blobs/{world.blob}", ALICE)
    assert (response.status, await body_of(response)) == (200, b"private bytes")
    assert trace.outcome == "relayed"
    response, _ = await world.get(f"/v2/team/app/manifests/{world.digest}", ALICE, "HEAD")
    assert response.headers.get("docker-content-digest") == str(world.digest)


async def test_no_shared_cache_on_the_way_keeps_what_a_caller_is_answered(world: Relayed) -> None:
    """RFC 9111 section 5.2.2.7; nginx, for one, keeps answers to credentials unless it is told."""
    for kind in ("manifests/1", f"manifests/{world.digest}", f"blobs/{world.blob}"):
        for _ in range(2):  # as it comes, and kept
            response, _ = await world.get(f"/v2/team/app/{kind}", ALICE)
            assert response.status == 200
            assert (response.headers.get("cache-control") or "").startswith("private, ")
            response.body.close()
            await trio.testing.wait_all_tasks_blocked()
    response, _ = await world.get("/v2/library/tool/manifests/1", ALICE)
    assert response.headers.get("cache-control") == "no-cache"


async def test_what_one_caller_cached_is_refused_to_another_and_to_nobody(world: Relayed) -> None:
    targets = [TAG, f"/v2/team/app/manifests/{world.digest}", f"/v2/team/app/blobs/{world.blob}"]
    for target in targets:
        assert await world.status(target, ALICE) == 200
    for target in targets:
        response, _ = await world.get(target, BOB)
        assert response.status == 401
        assert challenges(response) == [f'{CHALLENGE},error="insufficient_scope"']
        assert await world.status(target) == 401
        assert await world.status(target, "Basic YWxpY2U6cA==") == 401


async def test_a_second_caller_with_rights_of_his_own_is_served_from_the_cache(world: Relayed) -> None:
    world.registry.users[BOB] = {"team/app"}
    assert await world.status(f"/v2/team/app/blobs/{world.blob}", ALICE) == 200
    gets = world.registry.count("GET")
    response, _ = await world.get(f"/v2/team/app/blobs/{world.blob}", BOB)
    assert await body_of(response) == b"private bytes"
    assert world.registry.count("GET") == gets
    assert world.registry.asked_as(BOB) == [f"HEAD v2/team/app/blobs/{world.blob}"]


async def test_one_verdict_serves_a_pull_and_is_asked_for_again_after_a_minute(world: Relayed) -> None:
    await world.status(TAG, ALICE)
    for _ in range(3):
        await world.status(f"/v2/team/app/blobs/{world.blob}", ALICE)
    blob = f"v2/team/app/blobs/{world.blob}"
    assert world.registry.asked_as(ALICE)[2:] == [f"GET {blob}"]
    # And once there is a verdict nothing is asked as ourselves first.
    assert world.registry.asked_as("") == [f"GET {TAG[1:]}"]
    world.clock.forward(GRANTED + 1)
    await world.status(f"/v2/team/app/blobs/{world.blob}", ALICE)
    assert world.registry.asked_as(ALICE)[3:] == [f"HEAD {blob}"]


async def test_rights_that_were_taken_away_end_with_the_verdict(world: Relayed) -> None:
    assert await world.status(TAG, ALICE) == 200
    world.registry.users[ALICE] = set()
    world.clock.forward(GRANTED + 1)
    assert await world.status(TAG, ALICE) == 401


async def test_a_refusal_is_remembered_for_a_few_seconds_only(world: Relayed) -> None:
    for _ in range(3):
        assert await world.status(TAG, BOB) == 401
    assert len(world.registry.asked_as(BOB)) == 1
    world.registry.users[BOB] = {"team/app"}
    world.clock.forward(REFUSED + 1)
    assert await world.status(TAG, BOB) == 200


async def test_upstreams_403_to_a_caller_is_a_403(world: Relayed) -> None:
    world.registry.forbids = True
    response, _ = await world.get(TAG, BOB)
    assert (response.status, code_of(response)) == (403, "DENIED")
    assert challenges(response) == []


@pytest.mark.parametrize("shown", ["Basic YWxpY2U6cGFzcw==", "Negotiate abc", "Bearer", "Bearer a\tb"])
async def test_credentials_of_a_kind_that_upstream_did_not_ask_for_are_not_shown_to_it(
    world: Relayed, shown: str
) -> None:
    if shown == "Bearer":  # a token that is none: upstream's to refuse
        world.registry.challenge = 'Basic realm="r"'
    assert await world.status(TAG, shown) == 401
    assert set(world.registry.shown()) == {""}


async def test_basic_is_relayed_where_upstream_asks_for_basic(world: Relayed) -> None:
    world.registry.challenge = 'Basic realm="r"'
    world.registry.users = {"Basic YWxpY2U6cA==": {"team/app"}}
    assert await world.status(TAG, "Basic YWxpY2U6cA==") == 200
    assert await world.status(TAG, ALICE) == 401
    assert ALICE not in world.registry.shown()


async def test_without_relay_nothing_of_the_caller_is_looked_at(world: Relayed) -> None:
    plain = world.relaying(rules=Rules(), name="plain")
    response, _ = await world.get(TAG, ALICE, at=plain)
    assert response.status == 502
    assert challenges(response) == []
    assert set(world.registry.shown()) == {""}
    assert plain.site == ""


async def test_a_private_tag_is_in_no_list_but_its_readers(world: Relayed) -> None:
    world.registry.answers["v2/team/app/tags/list"] = Answer(
        b'{"name": "team/app", "tags": ["1"]}', [("content-type", "application/json")]
    )
    assert await world.status(TAG, ALICE) == 200
    assert world.catalog.tags("hub", "team/app", "", 10) == []
    response, trace = await world.get("/v2/team/app/tags/list", ALICE)
    assert await body_of(response) == b'{"name":"team/app","tags":["1"]}'
    assert trace.outcome == "relayed"
    assert await world.status("/v2/team/app/tags/list", BOB) == 401
    assert await world.status("/v2/team/app/tags/list") == 401


async def test_another_repository_without_rights_does_not_get_the_bytes(world: Relayed) -> None:
    """The store shares bytes by digest; each repository's upstream must confirm the name."""
    assert await world.status(f"/v2/team/app/blobs/{world.blob}", ALICE) == 200
    other = world.relaying(name="other")
    assert await world.status(f"/v2/team/app/blobs/{world.blob}", at=other) == 401
    assert await world.status(f"/v2/team/app/blobs/{world.blob}", BOB, at=other) == 401


async def test_nobody_joins_a_download_that_a_caller_began(world: Relayed) -> None:
    gate = trio.Event()
    path = f"v2/team/app/blobs/{world.blob}"
    world.registry.answers[path].body_gate = gate
    response, _ = await world.get(f"/{path}", ALICE)
    assert await world.status(f"/{path}") == 401
    assert await world.status(f"/{path}", BOB) == 401
    gate.set()
    assert await body_of(response) == b"private bytes"
    assert await world.status(f"/{path}") == 401


# A package that was public, and is not any more


async def test_what_was_public_is_not_served_from_the_cache_once_upstream_denies_it(world: Relayed) -> None:
    world.registry.public.add("team/app")
    targets = [TAG, f"/v2/team/app/manifests/{world.digest}", f"/v2/team/app/blobs/{world.blob}"]
    for target in targets:
        assert await world.status(target) == 200
    world.registry.public.discard("team/app")
    assert [await world.status(target) for target in targets] == [200] * 3  # nobody knows yet
    world.clock.forward(TTL)
    assert [await world.status(target) for target in targets] == [401] * 3
    # For good, in every worker, and after a restart.
    world.clock.forward(365 * 86400)
    for at in (None, world.relaying(new=True)):
        assert [await world.status(target, at=at) for target in targets] == [401] * 3
    assert [await world.status(target, ALICE) for target in targets] == [200] * 3


async def test_a_package_that_is_public_again_is_asked_for_once(world: Relayed) -> None:
    world.registry.public.add("team/app")
    blob = f"/v2/team/app/blobs/{world.blob}"
    assert await world.status(TAG) == await world.status(blob) == 200
    world.registry.public.discard("team/app")
    world.clock.forward(TTL)
    assert await world.status(TAG) == 401
    world.registry.public.add("team/app")
    world.clock.forward(60)
    asked = len(world.registry.asked)
    assert [await world.status(blob) for _ in range(3)] == [200] * 3
    assert world.registry.asked[asked:] == [f"HEAD {blob[1:]}"]


async def test_what_is_in_doubt_waits_for_upstreams_word(world: Relayed) -> None:
    world.registry.public.add("team/app")
    assert await world.status(TAG) == 200
    world.registry.public.discard("team/app")
    world.clock.forward(TTL)
    assert await world.status(TAG) == 401
    world.clock.forward(60)
    world.registry.trouble = UpstreamUnavailable("down")
    assert await world.status(f"/v2/team/app/manifests/{world.digest}") == 503


async def test_a_denied_name_that_nothing_is_kept_of_is_not_remembered_for_long(world: Relayed) -> None:
    """Strangers must not fill the catalog with names that do not exist."""
    for n in range(5):
        assert await world.status(f"/v2/no/such{n}/manifests/1") == 401
    assert world.catalog.absent == {}


async def test_one_refused_version_does_not_close_the_others(world: Relayed) -> None:
    """Some registries forbid single images, for their flaws: the rest of the package stays open."""
    assert await world.status("/v2/library/tool/manifests/1") == 200
    refusal = UpstreamDenied("forbidden", challenge=(CHALLENGE,), forbidden=True)
    world.registry.answers["v2/library/tool/manifests/bad"] = Answer(problem=refusal)
    assert await world.status("/v2/library/tool/manifests/bad") == 401
    assert await world.status("/v2/library/tool/manifests/1") == 200
    assert await world.status(f"/v2/library/tool/manifests/{world.tool}") == 200


# Upstream gone


async def test_with_upstream_down_a_verdict_that_holds_serves_and_nothing_else(world: Relayed) -> None:
    world.hub = world.relaying(rules=Rules(relay="denied", ttl=5.0))
    blob = f"/v2/team/app/blobs/{world.blob}"
    assert await world.status(TAG, ALICE) == await world.status(blob, ALICE) == 200
    assert await world.status("/v2/library/tool/manifests/1") == 200
    world.registry.trouble = UpstreamUnavailable("down", retry_after=5)
    world.clock.forward(30)
    response, trace = await world.get(TAG, ALICE)
    assert response.status == 200
    assert (response.headers.get("warning") or "").startswith("111")
    assert trace.outcome == "relayed"
    assert await world.status(blob, ALICE) == 200
    assert await world.status(blob, BOB) == 503
    assert await world.status(blob) in {401, 503}
    world.clock.forward(GRANTED)
    assert await world.status(TAG, ALICE) == await world.status(blob, ALICE) == 503
    assert await world.status("/v2/library/tool/manifests/1") == 200


async def test_offline_serves_what_is_public_and_kept(world: Relayed) -> None:
    assert await world.status("/v2/library/tool/manifests/1") == 200
    assert await world.status(TAG, ALICE) == 200
    offline = world.relaying(rules=Rules(relay="always", offline=True), new=True)
    assert await world.status("/v2/", at=offline) == 200
    assert await world.status("/v2/library/tool/manifests/1", at=offline) == 200
    assert await world.status(TAG, ALICE, at=offline) == 503


async def test_a_404_to_one_caller_is_not_remembered_for_another(world: Relayed) -> None:
    missing = "/v2/team/app/manifests/2"
    assert await world.status(TAG, ALICE) == 200
    assert await world.status(missing, ALICE) == 404
    assert world.catalog.absent == {}


async def test_a_caller_whose_token_died_in_anothers_flight_is_asked_for_himself(world: Relayed) -> None:
    """Both wait for one fetch; it is made with Alice's token, which has just ended. Bob's is good."""
    world.registry.users[BOB] = {"team/app"}
    blob = f"/v2/team/app/blobs/{world.blob}"
    assert await world.status(TAG, ALICE) == await world.status(TAG, BOB) == 200
    world.registry.users[ALICE] = set()
    results: dict[str, int] = {}

    async def pull(user: str) -> None:
        results[user] = await world.status(blob, user)

    world.registry.gate = trio.Event()
    async with trio.open_nursery() as pulls:
        for user in (ALICE, BOB):
            pulls.start_soon(pull, user)
            await trio.testing.wait_all_tasks_blocked()
        assert results == {}
        world.registry.gate.set()
    assert results == {ALICE: 401, BOB: 200}


@pytest.mark.parametrize("target", [TAG, "blob"])
async def test_cancellation_at_every_await_leaks_nothing(world: Relayed, target: str) -> None:
    if target == "blob":
        target = f"/v2/team/app/blobs/{world.blob}"
    for steps in range(1, 80):
        finished = False
        world.blobs.kept.clear()
        hub = world.relaying(name=f"hub{steps}", new=True)

        async def client(hub: Proxy = hub) -> None:
            nonlocal finished
            response, _ = await world.get(target, ALICE, at=hub)
            assert response.status == 200
            response.body.close()
            finished = True

        async with trio.open_nursery() as clients:
            clients.start_soon(client)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            clients.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert world.blobs.opened == set()
        assert world.registry.open_replies == 0
        if finished:
            return
    pytest.fail("the request never finished")


async def test_a_pull_whose_first_client_left_goes_on_for_the_next(world: Relayed) -> None:
    blob = f"/v2/team/app/blobs/{world.blob}"
    world.registry.users[BOB] = {"team/app"}
    response, _ = await world.get(blob, ALICE)
    response.body.close()
    await trio.testing.wait_all_tasks_blocked()
    gets = world.registry.count("GET")
    response, _ = await world.get(blob, BOB)
    assert await body_of(response) == b"private bytes"
    assert world.registry.count("GET") == gets


# The door


@pytest.fixture
async def guarded(nursery: trio.Nursery) -> Relayed:
    return Relayed(nursery, Rules(relay="always"))


async def test_the_ping_asks_for_a_login_as_upstream_does(guarded: Relayed) -> None:
    for _ in range(3):
        response, trace = await guarded.get("/v2/")
        assert response.status == 401
        assert challenges(response) == [CHALLENGE]
        assert trace.outcome == "denied"
    assert guarded.registry.asked == ["GET v2/"]
    assert guarded.registry.asks[0].bare
    guarded.clock.forward(301)
    await guarded.get("/v2/")
    assert guarded.registry.count("GET") == 2


async def test_the_door_notices_soon_that_upstream_is_gone(guarded: Relayed) -> None:
    """Its challenge holds for the ttl; a login that nobody can make must not be in the way of what is kept."""
    assert await guarded.status("/v2/") == 401
    guarded.registry.trouble = UpstreamUnavailable("down")
    guarded.clock.forward(11)
    assert await guarded.status("/v2/") == 401
    assert await guarded.status("/v2/") == 200


async def test_any_token_passes_the_door(guarded: Relayed) -> None:
    """What it is good for is seen when something is asked for."""
    assert await guarded.status("/v2/", "Bearer whatever") == 200
    assert await guarded.status("/v2/", "Basic YTpi") == 200
    assert "Bearer whatever" not in guarded.registry.shown()


async def test_a_password_is_tried_at_the_door_where_upstream_wants_one(guarded: Relayed) -> None:
    guarded.registry.challenge = 'Basic realm="r"'
    guarded.registry.answers["v2/"] = guarded.registry.answers["v2/team/app/manifests/1"]
    guarded.registry.users = {"Basic YWxpY2U6cA==": {"team/app"}}
    assert await guarded.status("/v2/", "Basic YWxpY2U6cA==") == 200
    response, _ = await guarded.get("/v2/", "Basic d3Jvbmc6cA==")
    assert response.status == 401
    assert challenges(response) == ['Basic realm="r"']
    assert await guarded.status("/v2/", ALICE) == 401
    assert ALICE not in guarded.registry.shown()


async def test_the_ping_is_one_question_however_many_ask(guarded: Relayed) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(guarded.get, "/v2/")
    assert guarded.registry.asked == ["GET v2/"]


async def test_the_door_is_open_while_upstream_cannot_be_asked(guarded: Relayed) -> None:
    assert await guarded.status("/v2/library/tool/manifests/1") == 200
    guarded.registry.trouble = UpstreamUnavailable("down")
    assert await guarded.status("/v2/") == 200
    assert await guarded.status("/v2/library/tool/manifests/1") == 200
    guarded.registry.trouble = None
    guarded.clock.forward(6)
    assert await guarded.status("/v2/") == 401


async def test_the_door_of_a_registry_that_wants_no_login_is_open(guarded: Relayed) -> None:
    guarded.registry.users[""] = set()
    guarded.registry.answers["v2/"] = guarded.registry.answers["v2/team/app/manifests/1"]
    assert await guarded.status("/v2/") == 200


async def test_with_relay_denied_the_ping_asks_nobody(world: Relayed) -> None:
    assert await world.status("/v2/") == 200
    assert world.registry.asked == []


# Secrets


async def test_no_log_line_and_no_repr_shows_a_credential(world: Relayed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for user in (ALICE, BOB):
        _, trace = await world.get(TAG, user)
        assert "secret" not in repr(trace)
    world.registry.trouble = UpstreamUnavailable("down")
    await world.get("/v2/team/other/manifests/1", ALICE)
    assert "secret-token" not in caplog.text
    assert "secret-token" not in repr(Caller(ALICE))
    assert "secret-token" not in repr(world.registry.asks)
    assert all("secret" not in f"{key}{record}" for key, record in world.catalog.files.items())


async def test_a_refusal_that_is_remembered_holds_no_credential(world: Relayed) -> None:
    """An exception's traceback has frames, and these have everything that was at hand."""
    for user in (ALICE, BOB):
        assert await world.status("/v2/team/other/manifests/1", user) == 401
    world.registry.asks.clear()
    gc.collect()
    alive = gc.get_objects()
    shown = {item.authorization for item in alive if isinstance(item, Caller)}
    shown |= {item.headers.get("authorization") or "" for item in alive if isinstance(item, Ask)}
    assert not shown & {ALICE, BOB}


# Strangers


async def test_a_list_that_only_users_may_see_closes_no_package(world: Relayed) -> None:
    """Whoever asks for it must not make what is kept depend on upstream's being there."""
    tool = f"/v2/library/tool/manifests/{world.tool}"
    assert await world.status("/v2/library/tool/manifests/1") == 200
    refusal = UpstreamDenied("lists are for users", challenge=(CHALLENGE,))
    world.registry.answers["v2/library/tool/tags/list"] = Answer(problem=refusal)
    assert await world.status("/v2/library/tool/tags/list") == 401
    world.registry.trouble = UpstreamUnavailable("down")
    assert await world.status(tool) == 200
    assert world.catalog.absent == {}


async def test_pings_do_not_pile_up_while_upstream_is_silent(guarded: Relayed) -> None:
    assert await guarded.status("/v2/") == 401
    guarded.clock.forward(11)
    guarded.registry.gate = trio.Event()
    before = len(guarded.nursery.child_tasks)
    for _ in range(50):
        assert await guarded.status("/v2/") == 401
    assert len(guarded.nursery.child_tasks) - before <= 2
    guarded.registry.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(guarded.nursery.child_tasks) == before
    guarded.clock.forward(11)
    await guarded.status("/v2/")
    assert guarded.registry.asked == ["GET v2/"] * 3
