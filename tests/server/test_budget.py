"""Docker Hub's limit of pulls: asked by HEAD, which it does not count; watched; served through from what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from kit.http import Got, get
from kit.repos import manifest
from kit.servers import Mxart, mxart, wait_until
from kit.upstream import FakeUpstream, Say, Seen, challenge, fake_upstream, say
from mxart.digest import Digest
from mxart.message import Headers
from mxart.upstream.budget import Budget, budget_of

TAG = "/v2/library/alpine/manifests/3.20"
TYPE = "application/vnd.oci.image.manifest.v1+json"
DATA = manifest("one")


def config(up: FakeUpstream) -> str:
    return f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "{up.url}"\npath = "/"\nttl = 0\n'


def answer(remaining: int) -> Say:
    told = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": f"{remaining};w=21600"}
    return say(DATA, headers={"content-type": TYPE, "docker-content-digest": str(Digest.of(DATA)), **told})


async def ask(server: Mxart, path: str = TAG) -> Got:
    with trio.fail_after(30):
        return await get(server.port, path)


async def numbers(server: Mxart) -> dict[str, float]:
    text = (await ask(server, "/-/metrics")).body.decode()
    return {
        " ".join([sample.name, *(value for name, value in sample.labels.items() if name == "method")]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("repository") == "hub"
    }


def lines(server: Mxart, sign: Callable[[dict[str, object]], bool]) -> list[dict[str, object]]:
    found = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in found if sign(line)]


async def test_a_moving_tag_is_revalidated_by_head_alone_and_the_rest_of_the_budget_is_told(tmp_path: Path) -> None:
    async with fake_upstream() as up:
        up.on(TAG, *(answer(76 - number) for number in range(5)))
        with mxart(tmp_path, config(up), workers=2) as server:
            for _ in range(5):
                assert (await ask(server)).body == DATA
            assert [seen.method for seen in up.requests] == ["GET", "HEAD", "HEAD", "HEAD", "HEAD"]
            found = await numbers(server)
            assert found["mxart_upstream_ratelimit_remaining"] == 72
            assert found["mxart_upstream_ratelimit_limit"] == 100
            assert found["mxart_upstream_documents_total GET"] == 1
            assert found["mxart_upstream_documents_total HEAD"] == 4
            told = wait_until(lambda: _all(lines(server, lambda line: line.get("path") == TAG), 5), "the lines")
            assert sorted(int(str(line["upstream_remaining"])) for line in told) == [72, 73, 74, 75, 76]


def _all(found: list[dict[str, object]], count: int) -> list[dict[str, object]] | None:
    return found if len(found) >= count else None


async def test_a_budget_that_runs_low_is_told_once_and_once_more_when_there_is_enough_again(tmp_path: Path) -> None:
    course = [50, 11, 10, 9, 5, 0, 0, 9, 10, 19, 20, 60, 100, 3, 2]
    async with fake_upstream() as up:
        up.on(TAG, *map(answer, course))
        with mxart(tmp_path, config(up), workers=2) as server:
            for number, remaining in enumerate(course):
                assert (await ask(server)).status == 200
                if number == 6:
                    found = await numbers(server)
                    assert found["mxart_upstream_ratelimit_remaining"] == remaining == 0
                    assert found["mxart_upstream_ratelimit_low"] == 1
            assert (await numbers(server))["mxart_upstream_ratelimit_low"] == 1
            warnings = wait_until(lambda: _all(lines(server, lambda line: line["level"] == "warning"), 3), "warnings")
            assert [line["message"] for line in warnings] == [
                "hub: upstream takes only 9 more of 100 requests; what is kept goes on being served",
                "hub: upstream takes 20 of 100 requests again",
                "hub: upstream takes only 3 more of 100 requests; what is kept goes on being served",
            ]


ZERO = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
REFUSALS = {
    "bare": say("toomanyrequests", 429, headers=ZERO),
    "retry after": say("toomanyrequests", 429, headers={"retry-after": "77", **ZERO}),
    "retry after a date that has passed": say("no", 429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_when_hub_refuses_more_a_kept_tag_is_served_and_marked(tmp_path: Path, refusal: str) -> None:
    async with fake_upstream() as up:
        up.on(TAG, answer(1), REFUSALS[refusal])
        with mxart(tmp_path, config(up)) as server:
            assert "warning" not in (await ask(server)).headers
            for _ in range(2):
                got = await ask(server)
                assert (got.status, got.body) == (200, DATA)
                assert got.headers["warning"].startswith("111 ")
                assert "429" in got.headers["warning"]
            told = wait_until(lambda: _all(lines(server, lambda line: line.get("outcome") == "stale"), 1), "a line")
            assert "429" in str(told[0]["why"])
            if "ratelimit-remaining" in dict(REFUSALS[refusal].headers):
                assert (await numbers(server))["mxart_upstream_ratelimit_remaining"] == 0


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_is_not_kept_is_to_be_asked_for_later_and_never_unknown(tmp_path: Path, refusal: str) -> None:
    async with fake_upstream() as up:
        up.default = REFUSALS[refusal]
        with mxart(tmp_path, config(up)) as server:
            got = await ask(server)
            assert got.status == 503
            assert int(got.headers["retry-after"]) == (
                77 if refusal == "retry after" else int(got.headers["retry-after"])
            )
            assert int(got.headers["retry-after"]) >= 1
            (error,) = json.loads(got.body)["errors"]
            assert "429" in error["message"]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_token_server_that_refuses_more_is_no_different(tmp_path: Path, refusal: str) -> None:
    async with fake_upstream() as up:

        def guarded(seen: Seen) -> Say:
            if seen.headers.get("authorization") == "Bearer good":
                return answer(9)
            return challenge(f'Bearer realm="{up.url}/token",service="s",scope="repository:library/alpine:pull"')

        up.on(TAG, guarded)
        up.on("/v2/library/other/manifests/1", guarded)
        up.on("/token", say(json.dumps({"token": "good"})), REFUSALS[refusal])
        with mxart(tmp_path, config(up)) as server:
            assert (await ask(server)).status == 200
            up.on(TAG, challenge(f'Bearer realm="{up.url}/token",service="s",error="invalid_token"'))
            got = await ask(server)
            assert (got.status, got.body) == (200, DATA)
            assert "429" in got.headers["warning"]
            got = await ask(server, "/v2/library/other/manifests/1")
            assert got.status == 503
            assert int(got.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ratelimit-remaining": "76;w=21600", "ratelimit-limit": "100;w=21600"}, Budget(76, 100)),
        ({"ratelimit-remaining": "0"}, Budget(0)),
        ({"ratelimit-remaining": "5", "ratelimit-limit": "10, 10;w=1, 50;w=60"}, Budget(5, 10)),
        ({"ratelimit-remaining": "5", "ratelimit-limit": "many"}, Budget(5)),
        ({"ratelimit-limit": "100"}, None),
        ({"ratelimit-remaining": "-1"}, None),
        ({"ratelimit-remaining": "\u0665"}, None),
        ({"ratelimit-remaining": "9" * 40}, None),
        ({"ratelimit-remaining": ""}, None),
        ({}, None),
    ],
)
def test_what_an_upstream_says_of_its_limit(fields: dict[str, str], expected: Budget | None) -> None:
    assert budget_of(Headers(fields.items())) == expected


def test_low_is_less_than_a_tenth_and_ample_a_fifth() -> None:
    assert [Budget(left, 100).is_low for left in (9, 10)] == [True, False]
    assert [Budget(left, 100).is_ample for left in (19, 20)] == [False, True]
    assert not Budget(0).is_low
