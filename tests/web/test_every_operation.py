"""Every operation of the table is called once, and answers what the document promises (kit.api checks each answer)."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
import trio

from kit.api import ADMIN, EVE, Only, api_world
from mxart.repos.callers import NOBODY, Caller
from mxart.web.jobs import Tell


async def forever(tell: Tell) -> dict[str, int | str]:
    await trio.sleep_forever()
    raise AssertionError


async def test_every_operation_is_answered_as_the_document_says(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        digest = await world.keep("own", "a/b", "1")
        await world.keep("own", "a/c", str(digest))
        job = await world.jobs.start("gc", "default", "eve", forever)
        token, _ = world.management.create_token("admin", "x")
        user, password = {"name": "eve", "password": "correct horse battery"}, {"password": "battery horse"}
        for method, path, status, body in (
            ("GET", "/openapi.json", 200, None),
            ("GET", "/repositories", 200, None),
            ("GET", "/repositories/own", 200, None),
            ("GET", "/repositories/own/packages", 200, None),
            ("GET", "/repositories/own/packages/a%2Fb/tags", 200, None),
            ("GET", "/repositories/own/packages/a%2Fb/tags/1", 200, None),
            ("GET", "/repositories/own/packages/a%2Fb/versions", 200, None),
            ("GET", f"/repositories/own/packages/a%2Fb/versions/{digest}", 200, None),
            ("GET", f"/search?sha256={digest.hex}", 200, None),
            ("DELETE", "/repositories/own/packages/a%2Fb/tags/1", 204, None),
            ("DELETE", f"/repositories/own/packages/a%2Fc/versions/{digest}", 204, None),
            ("GET", "/whoami", 200, None),
            ("POST", "/users", 201, user),
            ("GET", "/users", 200, None),
            ("GET", "/users/eve", 200, None),
            ("PATCH", "/users/eve", 200, {"disabled": True}),
            ("PUT", "/users/eve/password", 204, password),
            ("POST", "/users/eve/tokens", 201, {"name": "ci"}),
            ("GET", "/users/eve/tokens", 200, None),
            ("DELETE", f"/users/admin/tokens/{token.id}", 204, None),
            ("POST", "/groups", 201, {"name": "core"}),
            ("GET", "/groups", 200, None),
            ("GET", "/groups/core", 200, None),
            ("PUT", "/groups/core/members/eve", 204, None),
            ("DELETE", "/groups/core/members/eve", 204, None),
            ("DELETE", "/groups/core", 204, None),
            ("DELETE", "/users/eve", 204, None),
            ("GET", "/usage", 200, None),
            ("GET", "/repositories/own/usage", 200, None),
            ("GET", "/repositories/own/retention", 200, None),
            ("POST", "/repositories/own/retention", 202, {}),
            ("POST", "/gc", 202, {}),
            ("POST", "/repositories/own/packages/a/replications", 202, {"target": "http://127.0.0.1:9/a"}),
            ("GET", "/permissions", 200, None),
            ("GET", "/explain?action=read&repository=own", 200, None),
            ("GET", "/audit", 200, None),
            ("GET", "/jobs", 200, None),
            ("GET", f"/jobs/{job.id}", 200, None),
            ("DELETE", f"/jobs/{job.id}", 202, None),
        ):
            told = await world.call(method, path, body, caller=ADMIN)
            assert told.status == status, told.text
        assert world.called == {line.name for line in world.api.table.operations}


async def test_what_needs_a_login_is_refused_without_one_and_says_how(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for line in world.api.table.operations:
            if not line.needs.login:
                continue
            told = await world.call(line.method, line.path.replace("{job}", "20270101-000000-00000000"))
            assert told.status == 401, line.name
            assert (told.headers.get("www-authenticate") or "").startswith("Basic realm=")
            assert "needs a login" in told.detail


async def test_a_job_is_shown_to_its_owner_and_to_those_who_manage_everything(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        mine = await world.jobs.start("gc", "a", "eve", forever)
        theirs = await world.jobs.start("gc", "b", "adam", forever)
        seen = await world.call("GET", "/jobs", caller=EVE)
        assert [item["id"] for item in seen.json["items"]] == [mine.id]
        assert (await world.call("GET", f"/jobs/{theirs.id}", caller=EVE)).status == 403
        assert (await world.call("DELETE", f"/jobs/{theirs.id}", caller=EVE)).status == 403
        assert (await world.call("DELETE", f"/jobs/{mine.id}", caller=EVE)).status == 202
        every = await world.call("GET", "/jobs?limit=1", caller=ADMIN)
        rest = await world.call("GET", f"/jobs?after={every.json['next']}", caller=ADMIN)
        assert {item["id"] for item in (*every.json["items"], *rest.json["items"])} == {mine.id, theirs.id}
        none = await world.call("GET", "/jobs?kind=replication", caller=ADMIN)
        running = await world.call("GET", "/jobs?kind=gc&state=running", caller=ADMIN)
        assert none.json["items"] == []
        assert theirs.id in {item["id"] for item in running.json["items"]}
        assert (await world.call("GET", "/jobs?state=lost", caller=ADMIN)).status == 400
        for name in ("x", "..%2Fx", "20270101-000000-0000000g"):
            assert (await world.call("GET", f"/jobs/{name}", caller=ADMIN)).status == 400
        assert (await world.call("GET", "/jobs/20270101-000000-00000000", caller=ADMIN)).status == 404


HOSTILE = (
    "",
    "..",
    ".",
    "%2e%2e",
    "%2F",
    "..%2F..%2Fetc%2Fpasswd",
    "%00",
    "%0a",
    "%ff",
    "%zz",
    "a" * 3000,
    "-1",
    "0",
    "1e9",
    "null",
    "true",
    "own",
    "hub",
    "all",
    "admin",
    "team%2Fapp",
    "latest",
    "sha256:" + "0" * 64,
    "sha512:" + "0" * 64,
    "\u00e9",
    "'; DROP TABLE users; --",
    "{repository}",
    "*",
    "**",
    "20270101-000000-00000000",
    "0123456789ab",
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"0",
    b'""',
    b"{",
    b"\xff\xfe",
    b'{"name":"x"}',
    b'{"name":null}',
    b'{"password":"' + b"x" * 2000,
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"target":"http://127.0.0.1:9/..%2f"}',
    b'{"name":"\\u0000"}',
    b'{"groups":[["x"]]}',
    b'{"expires":"' + b"9" * 400 + b'd","name":"x"}',
    b'{"grace":"1e400"}',
    b'{"disabled":"no"}',
    b'{"name":"\\ud800"}',
)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_sent_is_answered_and_never_a_fault_of_ours(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    async with api_world(tmp_path) as world:
        await world.keep("own", "team/app", "latest")
        lines = world.api.table.operations
        queries = sorted({name for line in lines for name in line.where.__struct_encode_fields__})
        for _ in range(150):
            line = random.choice(lines)
            path = re.sub(r"\{\w+\}", lambda _: random.choice(HOSTILE), line.path)
            for _ in range(random.randrange(3)):
                path += f"{'&' if '?' in path else '?'}{random.choice(queries)}={random.choice(HOSTILE)}"
            if line.name == "startReplication" or (line.name, "admin" in path) == ("changePassword", True):
                continue  # dials, or is slow: tests of their own
            body = random.choice(BODIES) if line.takes_body else None
            told = await world.call(line.method, path, body, caller=random.choice((ADMIN, EVE, NOBODY)))
            assert told.status < 500, (line.method, path, body, told.text)


async def test_a_token_ends_no_job_but_its_own(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        mine = await world.jobs.start("gc", "a", "eve", forever)
        its = await world.jobs.start("gc", "b", "eve", forever, token="aa")
        signed = Caller(name="eve", grants=Only(delegated=True))
        token = Caller(name="eve", token="aa", grants=Only(delegated=True))
        for caller, job, status in ((signed, mine, 403), (signed, its, 403), (token, mine, 403), (token, its, 202)):
            assert (await world.call("GET", f"/jobs/{job.id}", caller=caller)).status == 200
            assert (await world.call("DELETE", f"/jobs/{job.id}", caller=caller)).status == status
        assert (await world.call("DELETE", f"/jobs/{mine.id}", caller=EVE)).status == 202
