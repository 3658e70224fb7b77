"""Whatever is sent, the API's answer says what would be right, and is JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.api import ApiWorld, api_world
from kit.wire import PEER
from mxart.message import Headers, Request
from mxart.repos.callers import NOBODY, Caller
from mxart.web.api import MAX_BODY, Api
from mxart.web.operations import ANYBODY, Asked, Needs, Nothing, Record, operation

JSON = ("content-type", "application/json")


class Made(Record, frozen=True, kw_only=True):
    """Something."""

    name: str
    count: int = 0
    inner: tuple[dict[str, int], ...] = ()


class Named(Record, frozen=True, kw_only=True):
    """By name."""

    name: str


async def _make_named(asked: Asked[Named, Made]) -> Made:
    return asked.body


async def _make(asked: Asked[Nothing, Made]) -> Made:
    return asked.body


def writing(world: ApiWorld, needs: Needs = ANYBODY) -> None:
    """The world's API with one operation that takes a body."""
    line = operation("make", "POST", "/made", "Make it.", needs, _make, tag="t")
    world.api = Api([line])


@pytest.mark.parametrize(
    ("path", "status", "part", "field"),
    [
        ("/nowhere", 404, "/-/api/v1/openapi.json", ""),
        ("", 404, "openapi.json", ""),
        ("/", 404, "openapi.json", ""),
        ("/repositories/", 404, "openapi.json", ""),
        ("//repositories", 404, "openapi.json", ""),
        ("/repositories/..", 400, "matching regex", "repository"),
        ("/repositories/%2e%2e", 400, "matching regex", "repository"),
        ("/repositories/own%2F..%2Fhub", 400, "matching regex", "repository"),
        ("/repositories/own%0A", 400, "control character", ""),
        ("/repositories/own%00", 400, "control character", ""),
        ("/repositories/%ff", 400, "UTF-8", ""),
        ("/repositories/%zz", 400, "broken escape", ""),
        ("/repositories/nobody", 404, "no repository nobody", "repository"),
        (f"/repositories/own/packages/{'a' * 300}/tags", 400, "length <= 255", "package"),
        ("/repositories/own/packages/..%2F..%2Fetc%2Fpasswd/tags", 404, "keeps nothing of", "package"),
        ("/repositories?limit=0", 400, "expected `int` >= 1", "limit"),
        ("/repositories?limit=1001", 400, "expected `int` <= 1000", "limit"),
        ("/repositories?limit=ten", 400, "expected `int`", "limit"),
        ("/repositories?limit=1&limit=2", 400, "more than once", "limit"),
        ("/repositories?page=2", 400, "known here: limit, after", "page"),
        ("/repositories/own?x=1", 400, "there are none here", "x"),
        ("/repositories/own?repository=hub", 400, "unknown query parameter", "repository"),
        ("/repositories?after=%ff", 400, "UTF-8", ""),
        ("/repositories?" + "&".join("a=1" for _ in range(40)), 400, "at most 32", ""),
        (f"/repositories?after={'a' * 600}", 400, "length <= 512", "after"),
    ],
)
async def test_a_wrong_path_or_query_is_told_by_name(
    path: str, status: int, part: str, field: str, tmp_path: Path
) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", path)
    assert told.status == status
    assert part in told.detail
    assert told.json.get("field", "") == field
    assert told.headers.get("cache-control") == "no-store"


@pytest.mark.parametrize(
    ("body", "part", "field"),
    [
        (b"", "the body is empty", ""),
        (b"{", "not JSON", ""),
        (b"\xff", "not JSON", ""),
        (b'{"name": "\xff"}', "not JSON", ""),
        (b'{"name": "a"} and more', "not JSON", ""),
        (b"[]", "expected `object`, got `array`", ""),
        (b"{}", "missing required field `name`", "name"),
        (b'{"name": 5}', "name: expected `str`, got `int`", "name"),
        (b'{"name": "a", "nmae": 1}', "known here: name, count, inner", "nmae"),
        (b'{"name": "a", "inner": [{"x": "y"}]}', "inner[0]", "inner[0][...]"),
        (b'{"name": "a", "count": 1e999}', "count", "count"),
        (b'{"name": "a", "count": true}', "count", "count"),
        (b'{"name": "a", "inner": ' + b"[" * 100_000, "inner", "inner[0]"),
        (b'{"name": "a", "inner": ' + b'[{"a":' * 30_000, "inner", "inner[0][...]"),
        (b"[" * 200_000, "expected `object`", ""),
    ],
)
async def test_a_wrong_body_is_told_by_field(body: bytes, part: str, field: str, tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        writing(world)
        told = await world.call("POST", "/made", body)
    assert told.status == 400
    assert part in told.detail
    assert told.json.get("field", "") == field


async def test_a_body_is_json_and_says_so_so_that_no_form_of_another_site_can_send_it(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        writing(world)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            response = await world.handle("POST", "/made", b'{"name":"a"}', [("content-type", kind)] if kind else [])
            assert response.status == 415
            assert response.headers.get("accept") == "application/json"
        packed = await world.handle("POST", "/made", b'{"name":"a"}', [JSON, ("content-encoding", "gzip")])
        assert packed.status == 415
        for site in ("cross-site", "same-site"):
            response = await world.handle("POST", "/made", b'{"name":"a"}', [JSON, ("sec-fetch-site", site)])
            assert response.status == 403
        good = await world.handle(
            "POST", "/made", b'{"name":"a"}', [("content-type", "Application/JSON; charset=utf-8")]
        )
        assert good.status == 200
        assert good.headers.get("cache-control") == "no-store"
        asked = await world.handle("OPTIONS", "/made", fields=[("origin", "https://evil.test")])
        assert asked.status == 405
        assert not [name for name, _ in asked.headers if name.startswith("access-control")]


async def test_a_body_past_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        writing(world)
        large = b'{"name":"' + b"a" * (10 << 20) + b'"}'
        assert (await world.handle("POST", "/made", large, [JSON])).status == 413
        assert (await world.handle("POST", "/made", large, [JSON], length=None)).status == 413
        fits = b'{"name":"' + b"a" * (MAX_BODY - 11) + b'"}'
        assert (await world.handle("POST", "/made", fits, [JSON], length=None)).status == 200


async def test_another_method_is_405_and_told_which_there_are(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("PUT", "/repositories")
        assert (told.status, told.headers.get("allow")) == (405, "GET, HEAD")
        assert "GET, HEAD" in told.detail
        head = await world.handle("HEAD", "/repositories")
        assert head.status == 200
        writing(world)
        told = await world.call("GET", "/made")
        assert (told.status, told.headers.get("allow")) == (405, "POST")


@dataclass(frozen=True)
class Refusing:
    """Nothing is allowed."""

    def may(self, action: str, repository: str, path: str) -> bool:
        return False

    def demand(self, action: str, repository: str, path: str) -> None:
        raise AssertionError((action, repository, path))

    def sees(self, repository: str, path: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("needs", "caller", "asked"),
    [
        (Needs("manage"), NOBODY, ("manage", "*", "")),
        (Needs("manage", own="name"), Caller(name="eve", grants=Refusing()), ("manage", "*", "")),
        (Needs("delete", repository="name"), Caller(name="adam", grants=Refusing()), ("delete", "adam", "")),
    ],
)
async def test_what_an_operation_needs_is_demanded_before_its_body_is_read(
    needs: Needs, caller: Caller, asked: tuple[str, str, str]
) -> None:
    class Never:
        length = None

        async def receive(self, max_bytes: int = 65536) -> bytes:
            raise AssertionError("the body is read")

    line = operation("x", "PUT", "/x/{name}", "It.", needs, _make_named, tag="t")
    caller = Caller(name=caller.name, grants=Refusing())
    request = Request("PUT", "/-/api/v1/x/adam", "", Headers([JSON]), PEER, body=Never())
    with pytest.raises(AssertionError) as told:
        await Api([line]).answer(request, caller)
    assert told.value.args[0] == asked
