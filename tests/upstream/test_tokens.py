"""Tokens: obtained once, kept while they live, shown only to those whom they are for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest
import trio
import trio.testing
import trustme

from kit.upstream import Say, Seen, challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.failure import Trouble
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials, Tokens, Want
from mxart.upstream.url import Url

SCOPE = "repository:x:pull"
ASK = Ask("GET", "v2/x", scope=SCOPE)
PATH = "/v2/x"


def remote(url: str, credentials: Credentials = Credentials(), **more: object) -> Remote:  # noqa: B008  # frozen
    patience = Patience(rounds=1)
    return Remote("hub", [url], Dialer(Upstreams()), credentials=credentials, patience=patience, **more)  # type: ignore[arg-type]


async def pull(hub: Remote, ask: Ask = ASK) -> bytes:
    with trio.fail_after(10):
        async with hub.open(ask) as reply:
            return await reply.receive()


def guarded(want: str, good: Callable[[str], bool]) -> Callable[[Seen], Say]:
    """Says "fine" to whoever shows a good Authorization, and the challenge to all others."""
    return lambda seen: say("fine") if good(seen.headers.get("authorization", "")) else challenge(want)


def token(value: str, **more: object) -> Say:
    return say(json.dumps({"token": value, **more}))


@pytest.mark.parametrize(
    "form",
    [
        'Bearer realm="{}/token",service="s",scope="' + SCOPE + '"',
        "bearer Realm={}/token,SERVICE=s",
        'Basic realm="x", Bearer realm="{}/token",service="s"',
        'Bearer realm="{}/token?already=there",service="s"',
    ],
)
async def test_every_form_of_the_challenge_is_understood(form: str) -> None:
    async with fake_upstream() as up:
        up.on(PATH, guarded(form.format(up.url), lambda shown: shown == "Bearer T"))
        up.on("/token", token("T"))
        hub = remote(up.url)
        assert await pull(hub) == b"fine"
        asked = [seen for seen in up.requests if seen.path == "/token"]
        assert ("scope", SCOPE) in asked[0].query
        assert ("service", "s") in asked[0].query
        await hub.aclose()


async def test_service_and_scope_may_be_missing() -> None:
    async with fake_upstream() as up:
        up.on("/v2/", guarded(f'Bearer realm="{up.url}/token"', lambda shown: shown == "Bearer T"))
        up.on("/token", token("T"))
        hub = remote(up.url)
        assert await pull(hub, Ask("GET", "v2/")) == b"fine"
        assert up.requests[1].query == []
        await hub.aclose()


async def test_the_challenges_scope_goes_first_and_ours_behind_it() -> None:
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",scope="repository:other/x:pull"'
        up.on(PATH, guarded(want, lambda shown: shown == "Bearer T"))
        up.on("/token", token("T"))
        hub = remote(up.url)
        assert [await pull(hub), await pull(hub)] == [b"fine"] * 2
        assert up.requests[1].query == [("scope", "repository:other/x:pull"), ("scope", SCOPE)]
        assert up.count("/token") == 1
        assert up.count(PATH) == 3
        await hub.aclose()


async def test_many_at_once_need_one_token() -> None:
    async with fake_upstream() as up:
        gate = trio.Event()
        up.on(PATH, guarded(f'Bearer realm="{up.url}/token"', lambda shown: shown == "Bearer T"))
        up.on("/token", lambda _: say(b'{"token":"T"}', gate=gate))
        hub = remote(up.url)
        got: list[bytes] = []

        async def one() -> None:
            got.append(await pull(hub))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
            await up.until(lambda: up.count(PATH) == 10 and up.count("/token") == 1)
            gate.set()
        assert got == [b"fine"] * 10
        assert up.count("/token") == 1
        await hub.aclose()


async def test_a_token_that_died_is_replaced_once() -> None:
    async with fake_upstream() as up:
        live = ["one"]

        def guard(seen: Seen) -> Say:
            if seen.headers.get("authorization") == f"Bearer {live[0]}":
                return say("fine")
            return challenge(f'Bearer realm="{up.url}/token",error="invalid_token"')

        up.on(PATH, guard)
        up.on("/token", lambda _: token(live[0], expires_in=3600))
        hub = remote(up.url)
        assert await pull(hub) == b"fine"
        live[0] = "two"
        assert await pull(hub) == b"fine"
        assert up.count("/token") == 2
        live[0] = "nobody gets this"
        up.on("/token", token("stale"))
        with pytest.raises(UpstreamFailed, match="401"):
            await pull(hub)
        await hub.aclose()


async def test_a_larger_scope_wanted_later_is_asked_for() -> None:
    async with fake_upstream() as up:

        def guard(seen: Seen) -> Say:
            shown = seen.headers.get("authorization", "")
            if shown == "Bearer b":
                return say("fine")
            scope = "b" if shown else "a"
            return challenge(f'Bearer realm="{up.url}/token",scope="{scope}",error="insufficient_scope"')

        up.on(PATH, guard)
        up.on("/token", lambda seen: token(dict(seen.query)["scope"]))
        hub = remote(up.url)
        assert await pull(hub, Ask("GET", "v2/x")) == b"fine"
        await hub.aclose()


async def test_basic_where_basic_is_wanted_and_from_then_on_at_once() -> None:
    async with fake_upstream() as up:
        up.on(PATH, guarded('Basic realm="x"', lambda shown: shown == "Basic bWU6cHc="))
        hub = remote(up.url, Credentials("me", "pw"))
        assert [await pull(hub), await pull(hub)] == [b"fine"] * 2
        assert up.count() == 3
        await hub.aclose()


async def test_wrong_basic_credentials_end_after_one_try() -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge('Basic realm="x"'))
        hub = remote(up.url, Credentials("me", "wrong"))
        with pytest.raises(UpstreamFailed, match="credentials are wrong or missing"):
            await pull(hub)
        assert up.count() == 2
        await hub.aclose()


async def test_an_identity_token_is_exchanged_by_post() -> None:
    async with fake_upstream() as up:
        up.on(PATH, guarded(f'Bearer realm="{up.url}/token",service=s', lambda shown: shown == "Bearer T"))
        up.on("/token", say(b'{"access_token":"T"}'))
        hub = remote(up.url, Credentials("<token>", "identity"))
        assert await pull(hub) == b"fine"
        post = up.requests[1]
        assert (post.method, "authorization" in post.headers) == ("POST", False)
        form = parse_qs(post.body.decode())
        assert (form["grant_type"], form["refresh_token"], form["scope"]) == (["refresh_token"], ["identity"], [SCOPE])
        await hub.aclose()


async def test_a_callers_own_authorization_goes_as_it_is_and_not_elsewhere() -> None:
    async with fake_upstream() as up, fake_upstream() as cdn:
        up.on(PATH, redirect(cdn.url + "/x"))
        cdn.on("/x", say("fine"))
        hub = remote(up.url, Credentials("me", "pw"))
        assert await pull(hub, Ask("GET", "v2/x", Headers([("authorization", "Bearer caller")]))) == b"fine"
        assert up.requests[0].headers["authorization"] == "Bearer caller"
        assert "authorization" not in cdn.requests[0].headers
        await hub.aclose()


async def test_no_credentials_for_a_realm_of_another_domain(tmp_path_factory: pytest.TempPathFactory) -> None:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    async with (
        fake_upstream(tls=ca.issue_cert("localhost"), host="localhost") as evil,
        fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up,
    ):
        up.on(PATH, guarded(f'Bearer realm="{evil.url}/token"', lambda shown: shown == "Bearer T"))
        evil.on("/token", token("T"))
        hub = remote(up.url, Credentials("me", "pw"), tls=ClientTls(str(path)))
        assert await pull(hub) == b"fine"  # an anonymous token is harmless
        assert "authorization" not in evil.requests[0].headers
        assert "account" not in dict(evil.requests[0].query)
        await hub.aclose()


@pytest.mark.parametrize(
    "realm", ["http://localhost:1/token", "http://169.254.169.254/latest", "file:///etc/passwd", "token", ""]
)
async def test_no_plain_http_realm_elsewhere_and_nothing_that_is_no_url(realm: str) -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge(f'Bearer realm="{realm}"'))
        hub = remote(up.url)
        with pytest.raises(UpstreamFailed, match=r"token server|401"):
            await pull(hub)
        await hub.aclose()


@pytest.mark.parametrize(
    ("answer", "problem", "match"),
    [
        (say("<html>"), UpstreamFailed, "sent no token"),
        (say(b"\xff\xfe"), UpstreamFailed, "sent no token"),
        (say("{}"), UpstreamFailed, "no usable token"),
        (say('{"token":"a\\nb"}'), UpstreamFailed, "no usable token"),
        (say("[1]"), UpstreamFailed, "sent no token"),
        (say("x" * 2_000_000), UpstreamFailed, "larger than"),
        (say(status=401), UpstreamFailed, "refuses the configured credentials"),
        (say(status=403), UpstreamFailed, "refuses the configured credentials"),
        (say(status=404), UpstreamFailed, "answers 404"),
        (redirect("/elsewhere"), UpstreamFailed, "answers 307"),
        (say(status=500), UpstreamFailed, "answers 500"),
        (say(status=429, headers={"Retry-After": "77"}), UpstreamUnavailable, "answers 429"),
        (say(status=503), UpstreamUnavailable, "answers 503"),
        (say(reset_after=-1), UpstreamFailed, "reset"),
    ],
)
async def test_a_token_server_in_trouble_is_named(answer: Say, problem: type[Problem], match: str) -> None:
    async with fake_upstream() as up:
        up.on(PATH, challenge(f'Bearer realm="{up.url}/token"'))
        up.on("/token", answer)
        hub = remote(up.url, Credentials("me", "pw"))
        with pytest.raises(problem, match=match):
            await pull(hub)
        await hub.aclose()


class FakeRealm:
    """Hands out numbered tokens, without a network."""

    def __init__(self, **more: object) -> None:
        self.more = more
        self.asked = 0

    async def __call__(
        self, method: str, url: Url, headers: tuple[tuple[str, str], ...], body: bytes, max_bytes: int
    ) -> tuple[int, bytes, float | None]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return 200, json.dumps({"token": f"t{self.asked}", **self.more}).encode(), None


WANT = Want(Url.parse("https://auth.example/token"), "s", (), Credentials())


@pytest.mark.parametrize(
    ("more", "life"),
    [
        ({}, 48.0),
        ({"expires_in": 5}, 48.0),
        ({"expires_in": 300}, 240.0),
        ({"expires_in": 300, "issued_at": "1970-01-01T00:15:00Z"}, 160.0),
        ({"expires_in": 300, "issued_at": "1970-01-01T00:15:00.123456789Z"}, 160.0),
        ({"expires_in": 300, "issued_at": "1990-01-01T00:00:00Z"}, 240.0),
        ({"expires_in": 300, "issued_at": "yesterday"}, 240.0),
    ],
)
async def test_a_token_is_renewed_before_it_ends(
    more: dict[str, object], life: float, autojump_clock: trio.testing.MockClock
) -> None:
    realm = FakeRealm(**more)
    tokens = Tokens(realm, wall=lambda: 1000.0)
    assert await tokens.get(WANT) == "t1"
    await trio.sleep(life - 1)
    assert await tokens.get(WANT) == "t1"
    await trio.sleep(2)
    assert await tokens.get(WANT) == "t2"


async def test_the_first_of_many_may_leave_while_the_token_comes() -> None:
    asked = 0

    async def fetch(*_: object) -> tuple[int, bytes, float | None]:
        nonlocal asked
        asked += 1
        if asked == 1:
            await trio.sleep_forever()
        return 200, b'{"token":"T"}', None

    tokens = Tokens(fetch)
    got: list[str] = []

    async def one(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await tokens.get(WANT))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        nursery.start_soon(one, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
    assert (got, asked) == (["T"], 2)


async def test_those_who_waited_fail_with_the_one_who_asked() -> None:
    asked = 0

    async def fetch(*_: object) -> tuple[int, bytes, float | None]:
        nonlocal asked
        asked += 1
        await trio.testing.wait_all_tasks_blocked()
        return 500, b"", None

    tokens = Tokens(fetch)
    failures: list[Trouble] = []

    async def one() -> None:
        try:
            await tokens.get(WANT)
        except Trouble as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert (len(failures), asked) == (5, 1)
    with pytest.raises(Trouble):
        await tokens.get(WANT)  # whoever comes later tries anew
    assert asked == 2


async def test_what_is_remembered_stays_small() -> None:
    tokens = Tokens(FakeRealm(), wall=time.time)
    for number in range(3000):
        await tokens.get(Want(WANT.realm, str(number), (), Credentials()))
    assert len(tokens._entries) <= 1024


def test_secrets_are_not_in_reprs() -> None:
    assert "pw" not in repr(Credentials("me", "pw", "tok"))
    assert "tok" not in repr(Credentials("me", "pw", "tok"))


async def test_a_mirror_without_an_address_is_in_no_other_mirrors_way_to_its_tokens() -> None:
    async with fake_upstream() as up:
        realm = f"http://auth.registry.test:{up.port}/token"
        up.on(PATH, guarded(f'Bearer realm="{realm}",service="s"', "Bearer good".__eq__))
        up.on("/token", token("good"))
        dialer = Dialer(Upstreams(resolve={"registry.test": "127.0.0.1", "auth.registry.test": "127.0.0.1"}))
        mirrors = [f"http://registry.test:{up.port}", "http://gone.invalid"]
        hub = Remote("hub", mirrors, dialer, patience=Patience(rounds=1))
        assert await pull(hub) == b"fine"
        await hub.aclose()


async def test_trouble_that_several_wait_for_is_each_ones_own() -> None:
    """What one mirror's asker adds to it (how to log in, whose fault it is) is not another's."""
    release = trio.Event()

    async def fetch(*_: object) -> tuple[int, bytes, float | None]:
        await release.wait()
        return 401, b"", None

    tokens = Tokens(fetch)
    want = Want(Url.parse("https://auth.test/token"), "s", (SCOPE,), Credentials())
    caught: list[Trouble] = []

    async def ask() -> None:
        with pytest.raises(Trouble) as error:
            await tokens.get(want)
        caught.append(error.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert len({id(error) for error in caught}) == 2
    assert caught[0].detail == caught[1].detail
