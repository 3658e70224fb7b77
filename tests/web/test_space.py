"""How much is kept and how it is given back; copies to other registries: begun by a call, seen as jobs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from kit.api import ADMIN, EVE, ApiWorld, Only, Told, api_world, part
from mxart.access.base import ACTIONS
from mxart.access.control import Access, rules_of
from mxart.errors import Forbidden
from mxart.repos.callers import NOBODY, Caller
from mxart.web.replication import StillAllowed


async def ended(world: ApiWorld, begun: Told) -> dict[str, Any]:
    """How a job ended, as its asker is told."""
    assert begun.status == 202, begun.text
    while (told := await world.call("GET", f"/jobs/{begun.json['id']}", caller=ADMIN)).json["state"] == "running":
        await trio.lowlevel.checkpoint()
    found: dict[str, Any] = told.json
    return found


async def test_usage_is_told_beside_what_is_allowed(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await world.keep("own", "a/b", "1", b"x" * 100)
        await world.keep("own", "a/b", "2", b"x" * 100)
        await world.keep("own", "c", "1", b"y" * 50)
        await world.keep("old", "c", "1", b"y" * 50)
        told = await world.call("GET", "/usage", caller=ADMIN)
        one = await world.call("GET", "/repositories/own/usage", caller=ADMIN)
        page = await world.call("GET", "/usage?limit=1&after=hub", caller=ADMIN)
        assert (await world.call("GET", "/repositories/nobody/usage", caller=ADMIN)).status == 404
    own = {"repository": "own", "kind": "local", "files": 2, "bytes": 150, "quota": 1 << 20, "max_bytes": None}
    assert told.json["items"] == [
        {"repository": "hub", "kind": "proxy", "files": 0, "bytes": 0, "quota": None, "max_bytes": 1 << 30},
        {"repository": "old", "kind": "", "files": 1, "bytes": 50, "quota": None, "max_bytes": None},
        own,
    ]
    assert one.json == own
    assert (page.json["items"][0]["repository"], page.json["next"]) == ("old", "old")


async def test_a_collection_is_a_job_that_tells_what_it_freed(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        job = await ended(world, await world.call("POST", "/gc", {"dry_run": True, "grace": "30m"}, caller=ADMIN))
        again = await ended(world, await world.call("POST", "/gc", {}, caller=ADMIN))
    assert world.rounds == [(1800.0, True), (None, False)]
    assert (job["state"], job["kind"], job["subject"], job["owner"]) == ("done", "gc", "dry run", "admin")
    assert job["result"] == {
        "files": 3,
        "bytes": 350,
        "own.files": 2,
        "own.bytes": 300,
        "hub.files": 1,
        "hub.bytes": 50,
        "own.tags": 4,
        "own.manifests": 3,
    }
    assert again["subject"] == "all stores"


@pytest.mark.parametrize("body", [{"grace": "soon"}, {"grace": "-1"}, {"dry_run": "yes"}, {"force": True}])
async def test_a_collection_that_is_not_understood_does_not_begin(body: dict[str, Any], tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("POST", "/gc", body, caller=ADMIN)
        assert told.status == 400
        assert told.json["field"] in body
        assert await world.jobs.every() == []


async def test_space_is_for_those_who_manage(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for method, path, body in (
            ("GET", "/usage", None),
            ("GET", "/repositories/own/usage", None),
            ("POST", "/gc", {}),
            ("POST", "/repositories/own/packages/a/replications", {"target": "http://127.0.0.1:9/a"}),
        ):
            assert (await world.call(method, path, body, caller=EVE)).status == 403
            assert (await world.call(method, path, body, caller=NOBODY)).status == 401
        assert world.rounds == []
        assert await world.jobs.every() == []


async def test_what_retention_would_let_go_is_told_and_then_let_go_by_a_job(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for number in range(5):
            await world.keep("own", "team/app", f"v{number}", b"%d" % number, created=1000.0 + number)
        await world.keep("own", "team/app", "latest", b"0", created=1000.0)
        told = await world.call("GET", "/repositories/own/retention", caller=ADMIN)
        first = await world.call("GET", "/repositories/own/retention?limit=1", caller=ADMIN)
        assert (told.json["tags"], first.json["tags"], len(first.json["items"])) == (3, 3, 1)
        assert {item["name"] for item in told.json["items"] if item["what"] == "tag"} == {"v0", "v1", "v2"}
        assert "not one of the newest 2" in told.json["items"][0]["why"]
        assert await world.jobs.every() == [], "nothing was begun, and nothing went"
        job = await ended(world, await world.call("POST", "/repositories/own/retention", {}, caller=ADMIN))
        assert (job["state"], job["kind"], job["result"]["tags"]) == ("done", "retention", 3)
        left = await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags", caller=ADMIN)
        assert [item["name"] for item in left.json["items"]] == ["latest", "v3", "v4"]


async def test_retention_without_rules_or_rights_is_refused(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for name, status in (("hub", 409), ("nobody", 404)):
            assert (await world.call("GET", f"/repositories/{name}/retention", caller=ADMIN)).status == status
            assert (await world.call("POST", f"/repositories/{name}/retention", {}, caller=ADMIN)).status == status
        for caller, status in ((EVE, 403), (NOBODY, 401)):
            assert (await world.call("GET", "/repositories/own/retention", caller=caller)).status == status
            assert (await world.call("POST", "/repositories/own/retention", {}, caller=caller)).status == status


@pytest.mark.parametrize(
    ("body", "status", "part_of_it"),
    [
        ({}, 400, "missing required field `target`"),
        ({"target": "http://127.0.0.1:10/a"}, 403, "[replicate] targets"),
        ({"target": "https://127.0.0.1:9/a"}, 403, "[replicate] targets"),
        ({"target": "http://user:secret@127.0.0.1:9/a"}, 400, "credentials do not belong"),
        ({"target": "file:///etc/passwd"}, 400, "neither http nor https"),
        ({"target": "a"}, 400, "does not say of which registry"),
        ({"target": "http://127.0.0.1:9/a", "reference": "x/../y"}, 400, "not a tag"),
        ({"target": "http://127.0.0.1:9/a", "reference": "sha256:12"}, 400, "not a digest"),
        ({"target": "http://127.0.0.1:9/a", "tags": ["x y"]}, 400, "not a tag"),
        ({"target": "http://127.0.0.1:9/a:1", "all_tags": True}, 400, "name no tag"),
        ({"target": "http://127.0.0.1:9/a", "username": "x"}, 400, "go together"),
        ({"target": "http://127.0.0.1:9/a", "username": "x", "password": "y", "token": "z"}, 400, "not both"),
        ({"target": "http://127.0.0.1:9/a", "at_once": 1000}, 400, "<= 16"),
    ],
)
async def test_a_copy_that_cannot_be_is_told_at_once(
    body: dict[str, Any], status: int, part_of_it: str, tmp_path: Path
) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("POST", "/repositories/own/packages/team%2Fapp/replications", body, caller=ADMIN)
        assert (told.status, part_of_it in told.detail) == (status, True), told.text
        assert await world.jobs.every() == []
        assert "secret" not in told.text


async def test_a_copy_is_a_job_that_can_be_ended_and_keeps_no_secret(tmp_path: Path) -> None:
    body = {"target": "http://127.0.0.1:9/a", "username": "x", "password": "secret words"}
    managing = Caller(name="eve", grants=Only("team/", ACTIONS))
    async with api_world(tmp_path) as world:
        await world.keep("own", "team/app", "latest", b"{}")
        path = f"/repositories/own/packages/{part('team/app')}/replications"
        begun = await world.call("POST", path, body, caller=managing)
        assert begun.status == 202
        assert begun.json["subject"] == "own: team/app to http://127.0.0.1:9/a"
        for file in (tmp_path / "jobs").iterdir():
            assert b"secret" not in file.read_bytes()
        await world.call("DELETE", f"/jobs/{begun.json['id']}", caller=managing)
        job = await ended(world, begun)
    assert job["state"] in ("cancelled", "failed")
    assert "secret" not in str(job)


async def test_what_a_job_may_ends_with_its_user(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        world.management.create_user("eve", "correct horse battery", groups=["admins"])
        access = Access(rules_of(world.config))
        caller = Caller(name="eve", grants=Only(actions=ACTIONS))
        still = StillAllowed(caller, access, world.directory)
        still.demand("manage", "own", "team/app")
        assert still.may("read", "own", "team/app")
        world.directory.remove_member("admins", "eve")
        with pytest.raises(Forbidden, match="any more"):
            still.demand("manage", "own", "team/app")
        assert still.may("read", "own", "team/app"), "as everybody may"
        world.directory.set_disabled("eve", True)
        assert not still.may("read", "own", "team/app")
        world.directory.delete_user("eve")
        assert not still.may("read", "own", "team/app")
        assert not still.sees("own", "team/app")
        # Nor with a token that was revoked, or has run out.
        world.management.create_user("ci", robot=True)
        revoked, _ = world.management.create_token("ci", "one")
        brief, _ = world.management.create_token("ci", "two", seconds=60)
        jobs = [
            StillAllowed(
                Caller(name="ci", token=token.id, grants=Only(actions=ACTIONS)), access, world.directory, clock
            )
            for token, clock in ((revoked, time.time), (brief, time.time), (brief, lambda: time.time() + 61))
        ]
        assert [job.may("read", "own", "team/app") for job in jobs] == [True, True, False]
        world.directory.revoke(revoked.id)
        assert [job.may("read", "own", "team/app") for job in jobs] == [False, True, False]
        # More than what was granted it never is.
        world.management.create_user("eve", "correct horse battery", groups=["admins"])
        less = StillAllowed(Caller(name="eve", grants=Only()), access, world.directory)
        assert not less.may("manage", "own", "team/app")
