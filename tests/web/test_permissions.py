"""Who may what, and why; and what the audit log tells of it, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kit.api import ADMIN, EVE, ApiWorld, api_world, part
from mxart.access.audit import Entry
from mxart.repos.callers import NOBODY, Caller

PASSWORD = "correct horse battery"


async def test_the_rules_are_told_with_those_that_are_built_in(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", "/permissions", caller=ADMIN)
        assert (await world.call("GET", "/permissions", caller=EVE)).status == 403
        assert (await world.call("GET", "/permissions", caller=NOBODY)).status == 401
    rules = told.json["items"]
    assert {(rule["place"], rule["effect"]) for rule in rules} == {
        ("permission[0]", "allow"),
        ("permission[1]", "deny"),
        ("built in", "allow"),
    }
    assert rules[0]["repositories"] == ["own"]
    assert [rule["place"] for rule in rules[2:]] == ["built in", "built in"]


async def explained(world: ApiWorld, caller: Caller = ADMIN, **question: str) -> Any:
    told = await world.call("GET", f"/explain?{urlencode(question)}", caller=caller)
    assert told.status == 200, told.text
    return told.json


async def test_it_is_explained_which_rule_decides(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        world.management.create_user("eve", PASSWORD)
        world.management.create_user("adam", PASSWORD)
        token, _ = world.management.create_token("adam", "ci", actions=["publish"])
        secret: dict[str, str] = {"repository": "own", "path": "secret/app", "action": "read"}
        adam = await explained(world, **secret, **{"as": "adam"})
        eve = await explained(world, **secret, **{"as": "eve"})
        nobody = await explained(world, **secret, **{"as": "anonymous"})
        bounded = await explained(world, **secret, **{"as": "adam", "token": token.id})
        admin = await explained(world, action="manage", repository="*")
        own = await explained(world, EVE, **secret)
        unknown = await world.call("GET", f"/explain?{urlencode({**secret, 'as': 'bob'})}", caller=ADMIN)
        others = await world.call("GET", f"/explain?{urlencode({**secret, 'as': 'adam'})}", caller=EVE)
        stranger = await world.call("GET", f"/explain?{urlencode(secret)}", caller=NOBODY)
    assert (adam["allowed"], adam["rule"], adam["by"]) == (True, "permission[0]", "rules")
    assert "secret/**" in adam["why"]
    assert (eve["allowed"], eve["rule"], nobody["allowed"]) == (False, "permission[0]", False)
    assert (bounded["allowed"], bounded["by"]) == (False, "ceiling")
    assert (admin["allowed"], admin["rule"]) == (True, "admins")
    assert (own["allowed"], own["rule"]) == (False, "permission[0]")
    assert "adam" not in own["why"], "whom a rule names is for administrators"
    assert (unknown.status, unknown.json["field"]) == (404, "as")
    assert (others.status, stranger.status) == (403, 401)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "action"),
        ("action=read", "repository"),
        ("action=write&repository=own", "action"),
        ("action=read&repository=own&who=eve", "who"),
        ("action=read&repository=own&as_=eve", "as_"),
        (f"action=read&repository=own&path={'a' * 300}", "path"),
    ],
)
async def test_a_question_that_is_none_is_told_what_is_wrong(query: str, field: str, tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", f"/explain?{query}", caller=ADMIN)
    assert (told.status, told.json["field"]) == (400, field)


def note(world: ApiWorld, number: int, **more: Any) -> None:
    values = {"who": "eve", "action": "read", "repository": "own", "path": f"p/{number}", "outcome": "denied", **more}
    world.audit.write(Entry(status=403, **values))


async def test_the_audit_log_is_told_from_its_end_page_by_page(tmp_path: Path) -> None:
    """Through several lines of one moment, and through files that have been put aside."""
    async with api_world(tmp_path) as world:
        for number in range(1000):
            world.now += 0.25 if number % 7 == 0 else 0.0
            note(world, number)
        assert len(list(world.paths.audit.iterdir())) > 1
        found: list[str] = []
        after, pages = "", 0
        while True:
            told = await world.call("GET", f"/audit?limit=333&after={part(after)}", caller=ADMIN)
            assert told.headers.get("cache-control") == "no-store"
            found += [entry["path"] for entry in told.json["items"]]
            after, pages = told.json["next"], pages + 1
            if not after:
                break
        assert found == [f"p/{number}" for number in reversed(range(1000))]
        assert pages == 4


async def test_the_audit_log_is_filtered(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        note(world, 1, path="team/app")
        note(world, 2, path="team/app/tool", who="adam", outcome="done", action="delete")
        note(world, 3, path="team/apple", source="10.0.0.1", repository="hub", token="0123456789ab")
        world.now += 86400
        note(world, 4, path="other")

        async def paths(**query: str) -> list[str]:
            told = await world.call("GET", f"/audit?{urlencode(query)}", caller=ADMIN)
            assert told.status == 200, told.text
            return [entry["path"] for entry in told.json["items"]]

        assert await paths(path="team/app") == ["team/app/tool", "team/app"]
        assert await paths(who="adam") == ["team/app/tool"]
        assert await paths(outcome="denied", repository="own") == ["other", "team/app"]
        assert await paths(action="delete") == ["team/app/tool"]
        assert await paths(source="10.0.0.1", token="0123456789ab") == ["team/apple"]
        assert await paths(since="2027-01-16") == ["other"]
        assert await paths(who="nobody") == []
        for wrong in ("outcome=lost", "after=x", "after=../../etc/passwd", "limit=0", "since=" + "9" * 30):
            assert (await world.call("GET", f"/audit?{wrong}", caller=ADMIN)).status == 400, wrong
        assert (await world.call("GET", "/audit", caller=EVE)).status == 403
        assert (await world.call("GET", "/audit", caller=NOBODY)).status == 401


async def test_a_filter_that_fits_nothing_reads_so_far_and_says_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxart.web.audit.MAX_SCANNED", 10)
    async with api_world(tmp_path) as world:
        note(world, 0, who="adam")
        for number in range(25):
            world.now += 1
            note(world, number)
        after, pages, found = "", 0, 0
        while True:
            told = await world.call("GET", f"/audit?who=adam&after={part(after)}", caller=ADMIN)
            found += len(told.json["items"])
            after, pages = told.json["next"], pages + 1
            if not after:
                break
        assert (found, pages) == (1, 3)
