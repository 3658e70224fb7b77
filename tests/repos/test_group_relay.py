"""Groups whose members want logins: nobody's copy is hidden by one, and nobody's password goes to another's server."""

from __future__ import annotations

import pytest
import trio

from kit.guarded import CHALLENGE, Guarded
from kit.repos import World, fields_of, manifest, request
from mxart.errors import NotFound, Problem, Unauthorized, UpstreamFailed, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.group import Group
from mxart.repos.oci.format import Oci
from mxart.repos.operations import Document, File, Found, Listing
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules

OCI = "application/vnd.oci.image.manifest.v1+json"
ALICE = Caller("Bearer alice")
OTHER = 'Bearer realm="https://auth.other.example/token"'


class Members(World):
    """Two registries of different sites, each with a private image of its own, and one public image at the second."""

    def __init__(self, nursery: trio.Nursery, relay: str = "denied") -> None:
        super().__init__(nursery)
        self.first, self.second = Guarded(), Guarded(OTHER)
        self.second.site = "https://other.example"
        self.first.add_manifest("first/private", manifest("first"), "1", media_type=OCI)
        self.second.add_manifest("second/private", manifest("second"), "1", media_type=OCI)
        self.second.add_manifest("second/public", manifest("public"), "1", media_type=OCI)
        self.second.public = {"second/public"}
        self.first.users = {ALICE.authorization: {"first/private"}}
        self.second.users = {ALICE.authorization: {"second/private"}}
        self.rules = Rules(relay=relay)  # type: ignore[arg-type]
        self.group = Group("all", Oci(), [self.member("one", self.first), self.member("two", self.second)])

    def member(self, name: str, upstream: Guarded, rules: Rules | None = None) -> Proxy:
        return self.proxy(name, upstream=upstream, rules=rules or self.rules)

    def operation(self, target: str) -> File:
        parsed = self.group.format.parse("GET", target, "", request("GET", target).headers)
        assert isinstance(parsed, Document)
        return parsed

    async def get(self, target: str, caller: Caller = NOBODY, group: Group | None = None) -> Found:
        return await (group or self.group).file(self.operation(target), Trace(), caller)

    async def problem(self, target: str, caller: Caller = NOBODY, group: Group | None = None) -> Problem:
        with pytest.raises(Problem) as caught:
            await self.get(target, caller, group)
        return caught.value


@pytest.fixture
def world(nursery: trio.Nursery) -> Members:
    return Members(nursery)


async def test_a_member_that_wants_a_login_hides_no_other_members_copy(world: Members) -> None:
    assert (await world.get("/v2/second/public/manifests/1")).content == manifest("public")
    assert (await world.get("/v2/second/public/manifests/1", ALICE)).content == manifest("public")


async def test_a_login_that_is_wanted_is_never_told_as_not_found(world: Members) -> None:
    world.second.public = {"second/public", "first/private"}  # it says 404 to that
    problem = await world.problem("/v2/first/private/manifests/1")
    assert isinstance(problem, Unauthorized)
    assert problem.headers == (("www-authenticate", CHALLENGE),)


async def test_a_login_that_is_wanted_is_told_before_another_members_trouble(world: Members) -> None:
    """The client can do something about the login; then the trouble matters no more."""
    down = Guarded()
    down.trouble = UpstreamUnavailable("down")
    both = Group("both", Oci(), [world.member("down", down), world.member("one", world.first)])
    assert isinstance(await world.problem("/v2/first/private/manifests/1", group=both), Unauthorized)
    assert (await world.get("/v2/first/private/manifests/1", ALICE, both)).content == manifest("first")


async def test_a_callers_credentials_reach_the_groups_first_site_and_no_other(world: Members) -> None:
    assert world.group.site == "https://registry.example"
    assert (await world.get("/v2/first/private/manifests/1", ALICE)).content == manifest("first")
    problem = await world.problem("/v2/second/private/manifests/1", ALICE)
    assert set(world.second.shown()) == {""}
    assert isinstance(problem, Unauthorized)  # the first one does not have it for Alice
    assert dict(problem.headers)["www-authenticate"].startswith(CHALLENGE)


async def test_the_challenge_of_another_site_is_not_passed_on(world: Members) -> None:
    """Whoever logged in there would show his token to the first member, too."""
    world.first.public = {"second/private"}  # 404, without a login
    problem = await world.problem("/v2/second/private/manifests/1")
    assert type(problem) is UpstreamFailed
    assert problem.headers == ()


async def test_members_of_one_site_share_a_callers_credentials(world: Members) -> None:
    world.second.site = world.first.site
    group = Group("same", Oci(), [world.member("a", world.first), world.member("b", world.second)])
    assert (await world.get("/v2/second/private/manifests/1", ALICE, group)).content == manifest("second")


async def test_nested_groups_pass_a_caller_on(world: Members) -> None:
    outer = Group("outer", Oci(), [world.local(), world.group])
    assert outer.site == world.group.site
    assert (await world.get("/v2/first/private/manifests/1", ALICE, outer)).content == manifest("first")


async def test_a_group_without_relaying_members_looks_at_no_credentials(world: Members) -> None:
    plain = Group("plain", Oci(), [world.member("p", world.first, Rules())])
    assert plain.site == ""
    problem = await world.problem("/v2/first/private/manifests/1", ALICE, plain)
    assert isinstance(problem, UpstreamFailed)
    assert set(world.first.shown()) == {""}


async def test_everybody_saying_not_found_is_still_not_found(world: Members) -> None:
    world.first.public = world.second.public = {"no/such"}
    assert isinstance(await world.problem("/v2/no/such/manifests/1", ALICE), NotFound)


async def test_the_door_of_a_group_is_that_of_its_first_member_that_demands(nursery: trio.Nursery) -> None:
    world = Members(nursery, "always")
    group = Group("all", Oci(), [world.local(), world.member("a", world.first), world.member("b", world.second)])
    response, _ = await world.ask(group, "/v2/")
    assert response.status == 401
    assert fields_of(response, "www-authenticate") == [CHALLENGE]
    assert world.second.asked == []
    await group.admit(ALICE, Trace())


async def test_a_list_is_not_silently_short_of_what_a_login_would_show(world: Members) -> None:
    parsed = world.group.format.parse("GET", "/v2/second/public/tags/list", "", request("GET", "/").headers)
    assert isinstance(parsed, Listing)
    with pytest.raises(Unauthorized):
        await world.group.listing(parsed, Trace())
