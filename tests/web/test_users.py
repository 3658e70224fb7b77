"""Users, groups, tokens and passwords by the API: as an administrator makes them, and as a user does for himself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.api import ADMIN, EVE, ApiWorld, Only, api_world
from mxart.access.base import ACTIONS
from mxart.access.credentials import parse_token, verify_password
from mxart.repos.callers import NOBODY, Caller

PASSWORD = "correct horse battery"


async def make_eve(world: ApiWorld, **more: Any) -> dict[str, Any]:
    told = await world.call("POST", "/users", {"name": "eve", "password": PASSWORD, **more}, caller=ADMIN)
    assert told.status == 201, told.text
    made: dict[str, Any] = told.json
    return made


async def test_an_administrator_makes_users_and_robots_and_sees_them_page_by_page(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await world.call("POST", "/groups", {"name": "core"}, caller=ADMIN)
        made = await make_eve(world, groups=["core"])
        robot = await world.call("POST", "/users", {"name": "ci", "robot": True}, caller=ADMIN)
        seen = await world.call("GET", "/users?limit=2", caller=ADMIN)
        rest = await world.call("GET", f"/users?after={seen.json['next']}", caller=ADMIN)
        one = await world.call("GET", "/users/eve", caller=ADMIN)
    assert (made["groups"], made["robot"], made["disabled"]) == (["core"], False, False)
    assert (robot.json["robot"], robot.json["password_changed"]) == (True, None)
    assert [item["name"] for item in (*seen.json["items"], *rest.json["items"])] == ["admin", "ci", "eve"]
    assert one.json == made
    assert PASSWORD not in one.text + seen.text


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"name": "eve"}, 400, "8 to 1024 characters"),
        ({"name": "eve", "password": "short"}, 400, "8 to 1024 characters"),
        ({"name": "Eve", "password": PASSWORD}, 400, "a-z 0-9"),
        ({"name": "../eve", "password": PASSWORD}, 400, "a-z 0-9"),
        ({"name": "anonymous", "password": PASSWORD}, 400, "anonymous"),
        ({"name": "eve", "password": PASSWORD, "robot": True}, 400, "make a token"),
        ({"name": "admin", "password": PASSWORD}, 409, "already"),
        ({"name": "eve", "password": PASSWORD, "groups": ["nobody"]}, 404, "admins"),
        ({"name": "eve", "password": PASSWORD, "admin": True}, 400, "known here"),
        ({"name": "eve", "password": 12345678}, 400, "password: expected `str`"),
        ({"name": "", "password": PASSWORD}, 400, "length >= 1"),
        ({"password": PASSWORD}, 400, "missing required field `name`"),
    ],
)
async def test_a_user_that_cannot_be_is_refused_and_told_why(
    body: dict[str, Any], status: int, part: str, tmp_path: Path
) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("POST", "/users", body, caller=ADMIN)
        assert told.status == status
        assert part in told.detail
        assert [user.name for user in world.directory.users()] == ["admin"]
    assert PASSWORD not in told.text


async def test_a_user_is_kept_out_moved_between_groups_and_deleted(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for group in ("core", "docs"):
            await world.call("POST", "/groups", {"name": group}, caller=ADMIN)
        await make_eve(world, groups=["core"])
        told = await world.call("PATCH", "/users/eve", {"groups": ["docs"], "disabled": True}, caller=ADMIN)
        assert (told.json["groups"], told.json["disabled"]) == (["docs"], True)
        same = await world.call("PATCH", "/users/eve", {"disabled": False}, caller=ADMIN)
        assert (same.json["groups"], same.json["disabled"]) == (["docs"], False)
        wrong = await world.call("PATCH", "/users/eve", {"groups": ["core", "nobody"]}, caller=ADMIN)
        assert (wrong.status, wrong.json["field"]) == (404, "groups")
        assert world.management.user("eve").groups == {"docs"}
        assert (await world.call("PUT", "/groups/core/members/eve", caller=ADMIN)).status == 204
        assert (await world.call("DELETE", "/groups/docs/members/eve", caller=ADMIN)).status == 204
        groups = await world.call("GET", "/groups", caller=ADMIN)
        assert {item["name"]: item["members"] for item in groups.json["items"]} == {
            "admins": ["admin"],
            "core": ["eve"],
            "docs": [],
        }
        assert (await world.call("DELETE", "/users/eve", caller=ADMIN)).status == 204
        assert (await world.call("DELETE", "/users/eve", caller=ADMIN)).status == 404
        assert (await world.call("GET", "/groups/core", caller=ADMIN)).json["members"] == []
        assert (await world.call("DELETE", "/groups/core", caller=ADMIN)).status == 204
        assert (await world.call("GET", "/groups/core", caller=ADMIN)).status == 404


async def test_the_last_administrator_stays(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for method, path, body in (
            ("DELETE", "/users/admin", None),
            ("PATCH", "/users/admin", {"disabled": True}),
            ("PATCH", "/users/admin", {"groups": []}),
            ("DELETE", "/groups/admins/members/admin", None),
            ("DELETE", "/groups/admins", None),
        ):
            told = await world.call(method, path, body, caller=ADMIN)
            assert told.status == 409, path
        assert world.management.user("admin").groups == {"admins"}


async def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await make_eve(world)
        body = {"name": "ci", "expires": "30d", "actions": ["read"], "repositories": ["own:team/**"]}
        made = await world.call("POST", "/users/eve/tokens", body, caller=EVE)
        assert (made.status, made.headers.get("cache-control")) == (201, "no-store")
        shown = parse_token(made.json["text"])
        assert shown is not None
        assert shown.id == made.json["token"]["id"]
        listed = await world.call("GET", "/users/eve/tokens", caller=EVE)
        (token,) = listed.json["items"]
        assert token == made.json["token"]
        assert (token["actions"], token["repositories"], token["kind"]) == (["read"], ["own:team/**"], "api")
        assert shown.secret not in listed.text
        endless = await world.call("POST", "/users/eve/tokens", {"name": "x", "expires": "never"}, caller=EVE)
        assert endless.json["token"]["expires"] is None
        assert (await world.call("DELETE", f"/users/eve/tokens/{shown.id}", caller=EVE)).status == 204
        assert world.directory.token(shown.id) is None
        assert (await world.call("DELETE", f"/users/eve/tokens/{shown.id}", caller=EVE)).status == 404
        # Another's token is not found below one's own name.
        theirs, _ = world.management.create_token("admin", "theirs")
        assert (await world.call("DELETE", f"/users/eve/tokens/{theirs.id}", caller=EVE)).status == 404
        assert world.directory.token(theirs.id) is not None


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"name": ""}, "length >= 1"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x", "expires": "soon"}, "30d"),
        ({"name": "x", "expires": "0d"}, "30d"),
        ({"name": "x", "expires": "99999999999w"}, "30d"),
        ({"name": "x", "actions": ["write"]}, "actions[0]"),
        ({"name": "x", "repositories": ["own:a//b"]}, "path pattern"),
        ({"name": "x", "repositories": [""]}, "write a repository"),
        ({"name": "x", "repositories": ["own"] * 101}, "length <= 100"),
    ],
)
async def test_a_token_that_cannot_be_is_refused(body: dict[str, Any], part: str, tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await make_eve(world)
        told = await world.call("POST", "/users/eve/tokens", body, caller=EVE)
        assert told.status == 400
        assert part in told.detail
        assert world.directory.tokens() == []


async def test_ones_own_password_is_changed_with_the_old_one_and_anothers_by_an_administrator(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await make_eve(world)
        wrong = await world.call("PUT", "/users/eve/password", {"password": "another one", "current": "?"}, caller=EVE)
        assert (wrong.status, wrong.json["field"]) == (403, "current")
        short = await world.call("PUT", "/users/eve/password", {"password": "x", "current": PASSWORD}, caller=EVE)
        assert short.status == 400
        good = await world.call(
            "PUT", "/users/eve/password", {"password": "another one", "current": PASSWORD}, caller=EVE
        )
        assert good.status == 204
        assert verify_password(world.directory.password("eve"), "another one")
        reset = await world.call("PUT", "/users/eve/password", {"password": "third of all"}, caller=ADMIN)
        assert reset.status == 204
        assert verify_password(world.directory.password("eve"), "third of all")
        world.management.create_user("ci", robot=True)
        assert (await world.call("PUT", "/users/ci/password", {"password": PASSWORD}, caller=ADMIN)).status == 409
        assert (await world.call("PUT", "/users/bob/password", {"password": PASSWORD}, caller=ADMIN)).status == 404


async def test_nobody_looks_into_anothers_account_and_strangers_into_none(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await make_eve(world)
        for method, path, body in (
            ("GET", "/users", None),
            ("GET", "/groups", None),
            ("GET", "/users/admin", None),
            ("GET", "/users/admin/tokens", None),
            ("POST", "/users/admin/tokens", {"name": "mine"}),
            ("DELETE", "/users/admin/tokens/0123456789ab", None),
            ("PUT", "/users/admin/password", {"password": PASSWORD}),
            ("POST", "/users", {"name": "eve2", "password": PASSWORD}),
            ("PATCH", "/users/eve", {"groups": ["admins"]}),
            ("DELETE", "/users/eve", None),
            ("PUT", "/groups/admins/members/eve", None),
        ):
            assert (await world.call(method, path, body, caller=EVE)).status == 403, path
            stranger = await world.call(method, path, body, caller=NOBODY)
            assert (stranger.status, "www-authenticate" in stranger.headers) == (401, True), path
        assert world.management.user("eve").groups == frozenset()
        assert world.directory.tokens() == []
        assert (await world.call("GET", "/users/eve", caller=EVE)).status == 200


async def test_who_one_is(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await make_eve(world)
        assert (await world.call("GET", "/whoami", caller=EVE)).json["user"]["name"] == "eve"
        assert (await world.call("GET", "/whoami")).json == {"user": None}


async def test_a_token_makes_no_tokens_and_changes_no_password_but_shows_what_is_its_users(tmp_path: Path) -> None:
    """Were it good for another token, neither its ceiling nor its end would bound it."""
    by_token = Caller(name="eve", grants=Only(delegated=True))
    async with api_world(tmp_path) as world:
        await make_eve(world)
        made, _ = world.management.create_token("eve", "one")
        for method, path, body in (
            ("POST", "/users/eve/tokens", {"name": "x"}),
            ("DELETE", f"/users/eve/tokens/{made.id}", None),
            ("PUT", "/users/eve/password", {"password": "another one", "current": PASSWORD}),
        ):
            told = await world.call(method, path, body, caller=by_token)
            assert (told.status, "show the password" in told.detail) == (403, True)
        assert (await world.call("GET", "/users/eve/tokens", caller=by_token)).status == 200
        assert [token.id for token in world.directory.tokens("eve")] == [made.id]
        # Those who manage everything may do it for any user, by a token that is good for that.
        managing = Caller(name="admin", grants=Only(actions=ACTIONS, delegated=True))
        assert (await world.call("POST", "/users/eve/tokens", {"name": "x"}, caller=managing)).status == 201
