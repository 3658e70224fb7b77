"""A refusal for want of rights, told with the challenge that belongs to it; a caller's own credentials on the way."""

from __future__ import annotations

import logging

import pytest
import trio
import trustme

from kit.upstream import FakeUpstream, Say, Seen, challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import NotFound, Problem, UpstreamDenied, UpstreamFailed
from mxart.message import Headers, Tap
from mxart.upstream.base import Ask
from mxart.upstream.challenge import parse_challenges, render
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials

PATH = "/v2/x/manifests/1"
ASK = Ask("GET", PATH[1:], scope="repository:x:pull")
SECRET = "Bearer very-secret"
OWN = Ask("GET", PATH[1:], Headers([("authorization", SECRET)]), "repository:x:pull")


def remote(*urls: str, credentials: Credentials = Credentials(), **more: object) -> Remote:  # noqa: B008  # frozen
    return Remote("hub", urls, Dialer(Upstreams()), credentials=credentials, patience=Patience(rounds=1), **more)  # type: ignore[arg-type]


async def refusal(hub: Remote, ask: Ask = ASK) -> Problem:
    with trio.fail_after(10), pytest.raises(Problem) as caught:
        async with hub.open(ask):
            pass
    return caught.value


def shown(fake: FakeUpstream, path: str = PATH) -> list[str]:
    return [seen.headers.get("authorization", "") for seen in fake.requests if seen.path == path]


async def test_a_basic_challenge_is_told_as_it_came() -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge('Basic realm="The \\"team\\"",charset=UTF-8'))
        hub = remote(up.url)
        problem = await refusal(hub)
        assert isinstance(problem, UpstreamDenied)
        assert problem.status == 502
        assert not problem.forbidden
        assert problem.challenge == ('Basic realm="The \\"team\\"",charset="UTF-8"',)
        await hub.aclose()


async def test_the_token_servers_refusal_tells_the_challenge_that_led_there() -> None:
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",service="s",scope="repository:x:pull"'
        up.on(PATH, challenge(want))
        up.on("/token", say(status=403))
        hub = remote(up.url)
        for _ in range(2):  # the second time nobody is asked for a challenge any more
            problem = await refusal(hub)
            assert isinstance(problem, UpstreamDenied)
            assert problem.challenge == (want,)
        await hub.aclose()


async def test_a_403_tells_what_was_wanted_before_with_the_scope_of_the_question() -> None:
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",service="s",scope="repository:{{}}:pull"'
        up.on(PATH, challenge(want.format("x")), say(status=403))
        up.on("/v2/y", say(status=403))
        up.on("/token", say('{"token": "anybody"}'))
        hub = remote(up.url)
        first = await refusal(hub)
        assert isinstance(first, UpstreamDenied)
        assert first.forbidden
        assert first.challenge == (want.format("x"),)
        second = await refusal(hub, Ask("GET", "v2/y", scope="repository:y:pull"))
        assert isinstance(second, UpstreamDenied)
        assert second.challenge == (want.format("y"),)
        await hub.aclose()


async def test_a_403_after_basic_tells_basic() -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge('Basic realm="r"'), say(status=403))
        hub = remote(up.url, credentials=Credentials("we", "pass"))
        problem = await refusal(hub)
        assert isinstance(problem, UpstreamDenied)
        assert problem.challenge == ('Basic realm="r"',)
        assert "pass" not in problem.message
        await hub.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        say(status=401),
        say(status=403),
        challenge("Negotiate"),
        say("<h1>Blocked by policy</h1>", 403, headers={"content-type": "text/html"}),
    ],
)
async def test_a_refusal_that_no_login_can_lift_is_a_failure_of_upstreams(answer: Say) -> None:
    async with fake_upstream() as up:
        up.on(PATH, answer)
        hub = remote(up.url)
        problem = await refusal(hub)
        assert type(problem) is UpstreamFailed
        await hub.aclose()


async def test_a_filters_page_is_no_word_about_rights_even_to_a_caller() -> None:
    async with fake_upstream() as up:
        up.on(PATH, say("<h1>Blocked</h1>", 403, headers={"content-type": "text/html; charset=utf-8"}))
        hub = remote(up.url)
        assert type(await refusal(hub, OWN)) is UpstreamFailed
        await hub.aclose()


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_token_server_that_is_broken_denies_nobody(status: int) -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge(f'Bearer realm="{up.url}/token",service="s"'))
        up.on("/token", say(status=status))
        hub = remote(up.url)
        problem = await refusal(hub)
        assert isinstance(problem, UpstreamFailed)
        assert not isinstance(problem, UpstreamDenied)
        await hub.aclose()


async def test_a_refusal_behind_a_redirect_is_not_the_registrys() -> None:
    async with fake_upstream() as up, fake_upstream(host="localhost") as cdn:
        up.on(PATH, redirect(f"{cdn.url}/blob?signature=s"))
        cdn.on("/blob", challenge('Basic realm="r"'))
        hub = remote(up.url)
        assert type(await refusal(hub)) is UpstreamFailed
        await hub.aclose()


async def test_a_callers_credentials_are_shown_as_they_are_and_replaced_by_nothing() -> None:
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",service="s",scope="repository:x:pull"'
        up.on(PATH, lambda seen: say("ours") if seen.headers.get("authorization") == SECRET else challenge(want))
        up.on("/token", say('{"token": "anonymous"}'))
        hub = remote(up.url, credentials=Credentials("we", "pass"))
        await refusal(hub)
        async with hub.open(OWN) as reply:
            assert await reply.receive() == b"ours"
        wrong = Ask("GET", PATH[1:], Headers([("authorization", "Bearer wrong")]), ASK.scope)
        tokens = up.count("/token")
        problem = await refusal(hub, wrong)
        assert isinstance(problem, UpstreamDenied)
        assert problem.challenge == (want,)
        assert up.count("/token") == tokens
        # And what a caller showed is not shown for the next one.
        await refusal(hub)
        assert shown(up)[-1] in ("", "Bearer anonymous")
        await hub.aclose()


async def test_a_callers_credentials_go_to_no_other_host() -> None:
    async with fake_upstream() as up, fake_upstream(host="localhost") as cdn:
        up.on(PATH, redirect(f"{cdn.url}/blob"))
        cdn.on("/blob", say("bytes"))
        hub = remote(up.url)
        async with hub.open(OWN) as reply:
            assert await reply.receive() == b"bytes"
        assert shown(up) == [SECRET]
        assert shown(cdn, "/blob") == [""]
        await hub.aclose()


async def test_a_callers_credentials_do_not_go_over_http_after_https(ca: trustme.CA) -> None:
    async with fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up, fake_upstream() as plain:
        up.on(PATH, redirect(f"{plain.url}/blob"))
        hub = remote(up.url, tls=tls(ca))
        assert type(await refusal(hub, OWN)) is UpstreamFailed
        assert plain.requests == []
        await hub.aclose()


async def test_a_resumed_download_of_a_callers_shows_his_credentials_again() -> None:
    async with fake_upstream() as up:
        up.on(PATH, say(b"0123456789", reset_after=4), say(b"0123456789"))
        hub = remote(up.url)
        sink = Kept()
        with trio.fail_after(10):
            await Download(hub, OWN)(sink)
        assert bytes(sink.data) == b"0123456789"
        assert shown(up) == [SECRET, SECRET]
        await hub.aclose()


async def test_a_callers_credentials_go_to_the_first_mirrors_site_only() -> None:
    async with fake_upstream() as first, fake_upstream(host="localhost") as stranger, fake_upstream() as second:
        stranger.on(PATH, say("there"))
        first.on(PATH, say(status=500))
        second.on(PATH, lambda seen: say("here") if seen.headers.get("authorization") == SECRET else say(status=401))
        hub = remote(first.url, stranger.url, second.url)
        async with hub.open(OWN) as reply:
            assert await reply.receive() == b"here"
        assert stranger.requests == []
        assert shown(first) == [SECRET]
        assert hub.site == "http://127.0.0.1"
        await hub.aclose()


async def test_nobody_is_told_to_log_in_at_a_mirror_of_another_site() -> None:
    async with fake_upstream() as first, fake_upstream(host="localhost") as stranger:
        first.on(PATH, say(status=500))
        stranger.on(PATH, challenge(f'Bearer realm="{stranger.url}/token"'))
        stranger.on("/token", say(status=401))
        hub = remote(first.url, stranger.url)
        assert type(await refusal(hub)) is UpstreamFailed
        await hub.aclose()


async def test_a_firm_question_is_not_answered_with_another_mirrors_not_found() -> None:
    async with fake_upstream() as first, fake_upstream(host="localhost") as second:
        first.on(PATH, challenge('Basic realm="r"'))
        hub = remote(first.url, second.url)
        assert isinstance(await refusal(hub), NotFound)
        firm = Ask("GET", PATH[1:], scope=ASK.scope, firm=True)
        assert isinstance(await refusal(hub, firm), UpstreamDenied)
        await hub.aclose()


async def test_a_firm_question_does_not_wait_for_a_mirror_once_the_upstream_has_refused() -> None:
    async with fake_upstream() as first, fake_upstream(host="localhost") as second:
        first.on(PATH, challenge('Basic realm="r"'))
        second.on(PATH, say(status=503))
        hub = Remote("hub", [first.url, second.url], Dialer(Upstreams()))
        assert isinstance(await refusal(hub, Ask("GET", PATH[1:], scope=ASK.scope, firm=True)), UpstreamDenied)
        assert first.count(PATH) == second.count(PATH) == 1
        await hub.aclose()


async def test_a_bare_question_shows_nothing_and_fetches_no_token() -> None:
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",service="s"'
        up.on("/v2/", challenge(want))
        up.on("/token", say('{"token": "t"}'))
        hub = remote(up.url, credentials=Credentials(token="static"))
        problem = await refusal(hub, Ask("GET", "v2/", bare=True))
        assert isinstance(problem, UpstreamDenied)
        assert problem.challenge == (want,)
        assert shown(up, "/v2/") == [""]
        assert up.count("/token") == 0
        await hub.aclose()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 429])
async def test_a_lenient_question_takes_any_4xx_for_an_answer(status: int) -> None:
    async with fake_upstream() as up:
        up.on("/v1/search", say("no", status))
        hub = remote(up.url)
        async with hub.open(Ask("GET", "v1/search", bare=True, lenient=True)) as reply:
            assert (reply.status, await reply.receive()) == (status, b"no")
        await hub.aclose()


async def test_a_lenient_question_is_not_answered_with_a_failure() -> None:
    async with fake_upstream() as up:
        up.on("/v1/search", say("no", 500))
        hub = remote(up.url)
        assert isinstance(await refusal(hub, Ask("GET", "v1/search", bare=True, lenient=True)), UpstreamFailed)
        await hub.aclose()


async def test_no_log_line_at_any_level_shows_a_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mxart")

    def answer(seen: Seen) -> Say:
        return say(status=503) if seen.headers.get("authorization") == SECRET else challenge('Basic realm="r"')

    async with fake_upstream() as up:
        up.on(PATH, answer)
        hub = remote(up.url, credentials=Credentials("we", "password-of-ours"))
        assert SECRET not in str(await refusal(hub, OWN))
        await refusal(hub)
        await hub.aclose()
    assert "very-secret" not in caplog.text
    assert "password-of-ours" not in caplog.text
    assert "very-secret" not in repr(OWN)


def test_challenges_are_passed_on_strictly_few_and_without_what_is_not_for_the_reader() -> None:
    lines = ['Bearer realm=https://a/t,error="invalid_token"', "Negotiate abc", 'Basic realm="' + "x" * 5000 + '"']
    assert render(parse_challenges(lines), without=("error",)) == ('Bearer realm="https://a/t"',)
    assert len(render(parse_challenges(["Basic realm=a"] * 50))) == 8
    assert render(parse_challenges(['Bearer realm="a\u00e9\\"b\\\\"'])) == ('Bearer realm="a\\"b\\\\"',)
    assert render(parse_challenges(["Basic"])) == ("Basic",)


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.headers: Headers | None = None

    @property
    def offset(self) -> int:
        return len(self.data)

    def begin(self, total: int | None, headers: Headers) -> None:
        self.headers = headers

    async def write(self, chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.data += chunk

    async def draw(self, _tap: Tap) -> None:
        """Nothing: it goes on piece by piece."""


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


def tls(ca: trustme.CA) -> ClientTls:
    with ca.cert_pem.tempfile() as file:
        return ClientTls(file)


async def test_a_filters_page_instead_of_the_token_server_denies_nobody() -> None:
    """A filter on the way that forbids the token server's host says nothing about who may see what."""
    async with fake_upstream() as up:
        up.on(PATH, challenge(f'Bearer realm="{up.url}/token",service="s"'))
        up.on("/token", say("\n<!DOCTYPE html><h1>Blocked</h1>", 403, headers={"content-type": "text/html"}))
        hub = remote(up.url)
        problem = await refusal(hub)
        assert isinstance(problem, UpstreamFailed)
        assert not isinstance(problem, UpstreamDenied)
        assert "answers 403 with a page" in problem.message
        await hub.aclose()


@pytest.mark.parametrize(
    "answer",
    [say(status=500), say(status=503), say(status=429, headers={"retry-after": "3600"})],
    ids=["500", "503", "429"],
)
async def test_what_a_callers_credentials_provoke_is_nobody_elses_trouble(answer: Say) -> None:
    """A user over his own limit, or a stranger whose token upstream stumbles over, closes it for himself only."""
    async with fake_upstream() as up:
        up.on(PATH, lambda seen: answer if "authorization" in seen.headers else say("fine"))
        hub = remote(up.url)
        for _ in range(8):
            assert not isinstance(await refusal(hub, OWN), UpstreamDenied)
        assert up.count() >= 8
        with trio.fail_after(10):
            async with hub.open(ASK) as reply:
                assert await reply.receive() == b"fine"
        await hub.aclose()


async def test_an_upstream_that_is_gone_is_left_alone_by_callers_too() -> None:
    hub = remote("http://127.0.0.1:1")
    for _ in range(5):
        assert "refused" in (await refusal(hub, OWN)).message
    assert "is not asked for another" in (await refusal(hub, OWN)).message
    await hub.aclose()


async def test_a_status_that_is_an_answer_is_one_and_a_redirect_among_them_leads_nowhere() -> None:
    ask = Ask("GET", "v2/x/referrers/y", expects=(303, 404))
    async with fake_upstream() as up, fake_upstream(host="localhost") as site:
        hub = remote(up.url)
        for answered in (say("not here", 404), redirect(f"{site.url}/people", 303)):
            up.on("/v2/x/referrers/y", answered)
            async with hub.open(ask) as reply:
                assert reply.status == answered.status
        assert not site.requests
        for status in (400, 401, 403, 429, 500):
            up.on("/v2/x/referrers/y", say("", status))
            assert not isinstance(await refusal(hub, ask), NotFound)
        await hub.aclose()


async def test_a_firm_question_is_not_answered_with_another_mirrors_404_either() -> None:
    async with fake_upstream() as first, fake_upstream(host="localhost") as second:
        first.on(PATH, challenge('Basic realm="r"'))
        hub = remote(first.url, second.url)
        ask = Ask("GET", PATH[1:], scope=ASK.scope, expects=(404,))
        async with hub.open(ask) as reply:
            assert reply.status == 404
        firm = Ask("GET", PATH[1:], scope=ASK.scope, expects=(404,), firm=True)
        assert isinstance(await refusal(hub, firm), UpstreamDenied)
        await hub.aclose()
