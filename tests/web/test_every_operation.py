"""Every operation of the table is called once, and answers what the document promises (kit.api checks each answer)."""

from __future__ import annotations

from pathlib import Path

import trio

from kit.api import ADMIN, EVE, api_world
from mxart.web.jobs import Tell


async def forever(tell: Tell) -> dict[str, int | str]:
    await trio.sleep_forever()
    raise AssertionError


async def test_every_operation_is_answered_as_the_document_says(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await world.keep("own", "a/b", "1")
        job = await world.jobs.start("gc", "default", "eve", forever)
        for method, path, status in (
            ("GET", "/openapi.json", 200),
            ("GET", "/repositories", 200),
            ("GET", "/repositories/own", 200),
            ("GET", "/repositories/own/packages", 200),
            ("GET", "/repositories/own/packages/a%2Fb/tags", 200),
            ("GET", "/repositories/own/packages/a%2Fb/tags/1", 200),
            ("GET", "/jobs", 200),
            ("GET", f"/jobs/{job.id}", 200),
            ("DELETE", f"/jobs/{job.id}", 202),
        ):
            told = await world.call(method, path, caller=ADMIN)
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
        for name in ("x", "..%2Fx", "20270101-000000-0000000g"):
            assert (await world.call("GET", f"/jobs/{name}", caller=ADMIN)).status == 400
        assert (await world.call("GET", "/jobs/20270101-000000-00000000", caller=ADMIN)).status == 404
