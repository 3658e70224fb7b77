"""What is kept, as a person looks at it: repositories, packages, tags, page by page, through groups too."""

from __future__ import annotations

from pathlib import Path

from kit.api import Only, api_world, part
from mxart.repos.callers import Caller


async def test_repositories_are_told_with_what_leads_to_them(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", "/repositories")
        hub = await world.call("GET", "/repositories/hub")
    assert [item["name"] for item in told.json["items"]] == ["all", "hub", "own"]
    assert told.json.get("next", "") == ""
    assert told.json["items"][0]["members"] == ["own", "hub"]
    assert hub.json == told.json["items"][1]
    assert hub.json["urls"] == ["http://mxart.test:8080/docker.io", "http://docker.io/"]
    assert (hub.json["kind"], hub.json["format"], hub.json["hosts"]) == ("proxy", "oci", ["docker.io"])
    assert hub.json["actions"] == ["read", "fetch"]
    assert hub.json["upstreams"] == [], "what lies behind is for those who manage it"


async def test_a_list_comes_page_by_page(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        for number in range(25):
            await world.keep("own", "team/app", f"v{number:02}")
            await world.keep("own", f"team/p{number:02}", "latest")
        tags: list[str] = []
        target, pages = f"/repositories/own/packages/{part('team/app')}/tags?limit=10", 0
        while target:
            told = await world.call("GET", target)
            tags += [item["name"] for item in told.json["items"]]
            pages += 1
            link = told.headers.get("link")
            assert (link is not None) == bool(told.json.get("next"))
            target = f"{target.partition('?')[0]}{link[1:].partition('>')[0]}" if link else ""
        packages = await world.call("GET", "/repositories/own/packages?limit=5&after=team/p19")
        whole = await world.call("GET", "/repositories/own/packages")
        one = await world.call("GET", "/repositories?limit=1")
    assert tags == [f"v{number:02}" for number in range(25)]
    assert pages == 3
    assert [item["name"] for item in packages.json["items"]] == [f"team/p{number}" for number in range(20, 25)]
    assert packages.json.get("next", "") == ""
    assert len(whole.json["items"]) == 26
    assert one.json["next"] == "all"


async def test_a_group_shows_what_its_members_keep_and_an_owned_name_only_from_its_owner(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        await world.keep("hub", "library/alpine", "3.20")
        await world.keep("hub", "team/app", "evil")
        await world.keep("own", "team/app", "1.0")
        packages = await world.call("GET", "/repositories/all/packages")
        mine = await world.call("GET", f"/repositories/all/packages/{part('team/app')}/tags")
        theirs = await world.call("GET", f"/repositories/all/packages/{part('library/alpine')}/tags")
    assert packages.json["items"] == [
        {"name": "library/alpine", "repository": "hub"},
        {"name": "team/app", "repository": "own"},
    ]
    assert [(item["name"], item["repository"]) for item in mine.json["items"]] == [("1.0", "own")]
    assert [(item["name"], item["repository"]) for item in theirs.json["items"]] == [("3.20", "hub")]


async def test_a_caller_sees_what_he_may_read_and_nothing_else(tmp_path: Path) -> None:
    caller = Caller(name="eve", grants=Only("team/"))
    async with api_world(tmp_path) as world:
        for number in range(30):
            await world.keep("own", f"secret/p{number:02}", "1")
        await world.keep("own", "team/app", "1")
        await world.keep("own", "zoo/app", "1")

        async def told(path: str) -> tuple[int, str]:
            answer = await world.call("GET", path, caller=caller)
            return answer.status, answer.text

        status, body = await told("/repositories/own/packages?limit=3")
        assert status == 200
        assert "team/app" in body
        assert "secret" not in body
        assert "zoo" not in body
        assert '"next":""' in body
        assert (await told(f"/repositories/own/packages/{part('secret/p01')}/tags"))[0] == 403
        assert (await told(f"/repositories/own/packages/{part('team/app')}/tags/1"))[0] == 200
        assert '"name":"own"' in (await told("/repositories"))[1], "there is something for him in it"
        assert '"name":"hub"' not in (await told("/repositories"))[1]
        assert (await told("/repositories/own"))[0] == 200
        assert (await told("/repositories/hub"))[0] == 403
        assert '"members":["own"]' in (await told("/repositories/all"))[1]
