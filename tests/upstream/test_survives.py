"""Everything an upstream can do to us, each with the one Problem that it becomes, and nothing left behind."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import pytest
import trio
import trustme

from kit.descriptors import open_files
from kit.upstream import Say, challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import ConfigError, NotFound, Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers
from mxart.upstream.base import Ask
from mxart.upstream.budget import Budget
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import USUAL_TIMEOUTS, Patience, Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials

BLOB = random.Random(3).randbytes(300_000)
QUICK = Patience(rounds=3, first_pause=0.001, longest_pause=0.02, total=1.0)
SHORT = Timeouts(first_byte=0.2, idle=0.2)
ASK = Ask("GET", "blob")


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind() -> AsyncIterator[None]:
    before = open_files()
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield
    assert open_files() <= before
    assert trio.lowlevel.current_statistics().tasks_living <= tasks


def remote(*urls: str, dialer: Dialer | None = None, patience: Patience = QUICK, **more: object) -> Remote:
    return Remote("hub", urls, dialer or Dialer(Upstreams()), patience=patience, **more)  # type: ignore[arg-type]


async def pull(hub: Remote, ask: Ask = ASK) -> bytes:
    parts: list[bytes] = []
    with trio.fail_after(10):
        async with hub.open(ask) as reply:
            while data := await reply.receive():
                parts.append(data)
    return b"".join(parts)


async def expect(
    problem: type[Problem],
    match: str,
    *answers: Say,
    ask: Ask = ASK,
    requests: int | None = None,
    timeouts: Timeouts = USUAL_TIMEOUTS,
) -> None:
    """One fake upstream that answers so; the pull ends as that problem, with the upstream's name and the cause."""
    async with fake_upstream() as up:
        up.on("/blob", *answers)
        hub = remote(up.url, timeouts=timeouts)
        with pytest.raises(problem, match=match) as caught:
            await pull(hub, ask)
        assert type(caught.value).__mro__[0] is problem or isinstance(caught.value, UpstreamFailed)
        assert str(caught.value).startswith("hub: ")
        if requests is not None:
            assert up.count() == requests
        await hub.aclose()
        with trio.fail_after(5):
            await up.until(lambda: up.open_connections == 0)


async def test_it_refuses_connections() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub = remote(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UpstreamUnavailable, match="connection refused") as caught:
            await pull(hub)
        assert caught.value.retry_after is not None


async def test_its_name_does_not_exist() -> None:
    hub = remote("http://does-not-exist.invalid")
    with pytest.raises(UpstreamUnavailable, match=r"does not know does-not-exist\.invalid"):
        await pull(hub)


async def test_it_accepts_and_says_nothing() -> None:
    await expect(UpstreamTimeout, "did not answer within 0.2 s", say(stall_after=-1), requests=1, timeouts=SHORT)


async def test_it_resets_before_an_answer() -> None:
    await expect(UpstreamFailed, "connection reset", say(reset_after=-1), requests=3)


async def test_it_closes_before_an_answer() -> None:
    await expect(UpstreamFailed, "closed the connection without an answer", say(close_after=-1), requests=3)


async def test_it_resets_in_the_body() -> None:
    await expect(UpstreamFailed, "reset|closed", say(BLOB, reset_after=1000), requests=1)


async def test_it_stalls_in_the_body() -> None:
    await expect(UpstreamTimeout, "stalled for 0.2 s", say(BLOB, stall_after=1000), requests=1, timeouts=SHORT)


async def test_its_body_is_short() -> None:
    await expect(
        UpstreamFailed, "5 bytes before the body's end", say(BLOB, length=len(BLOB) + 5, close=True), requests=1
    )


async def test_its_chunked_body_is_short() -> None:
    await expect(UpstreamFailed, "broke off the body", say(BLOB, chunked=True, close_after=1000), requests=1)


async def test_its_chunks_are_garbage() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
    await expect(UpstreamFailed, "broke off the body", say(raw=raw), requests=1)


async def test_a_long_body_is_cut_to_its_length_and_the_connection_not_used_again() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, length=1000), say(BLOB))
        hub = remote(up.url)
        assert await pull(hub) == BLOB[:1000]
        assert await pull(hub) == BLOB
        assert up.connections == 2
        await hub.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nX: y\r\nhalf",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_its_head_is_garbage(raw: bytes) -> None:
    await expect(UpstreamFailed, "hub: ", say(raw=raw))


async def test_an_endless_run_of_100s_is_no_answer() -> None:
    await expect(UpstreamFailed, "without an answer|in the middle", say(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000))


@pytest.mark.parametrize(
    ("status", "problem", "requests"),
    [
        (400, UpstreamFailed, 1), (401, UpstreamFailed, 1), (402, UpstreamFailed, 1), (403, UpstreamFailed, 1),
        (408, UpstreamFailed, 3), (416, UpstreamFailed, 1), (418, UpstreamFailed, 1), (500, UpstreamFailed, 1),
        (502, UpstreamFailed, 3), (503, UpstreamUnavailable, 3), (504, UpstreamFailed, 3),
        (429, UpstreamUnavailable, 3),
        (204, UpstreamFailed, 1), (203, UpstreamFailed, 1), (206, UpstreamFailed, 1), (304, UpstreamFailed, 1),
        (300, UpstreamFailed, 1),
        (404, NotFound, 1), (410, NotFound, 1),
    ],
)  # fmt: skip
async def test_its_statuses(status: int, problem: type[Problem], requests: int) -> None:
    await expect(problem, str(status), say(b"<html>", status), requests=requests)


async def test_a_503_that_passes_is_never_noticed() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(status=503), say(status=429, headers={"Retry-After": "0"}), say(BLOB))
        hub = remote(up.url)
        assert await pull(hub) == BLOB
        await hub.aclose()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_429_with_retry_after_is_obeyed_by_everybody(form: str) -> None:
    async with fake_upstream() as up:
        value = "120" if form == "seconds" else formatdate(time.time() + 120, usegmt=True)
        up.on("/blob", say(status=429, headers={"Retry-After": value}))
        hub = remote(up.url)
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match="429") as caught:
                await pull(hub)
            assert caught.value.retry_after is not None
            assert 110 < caught.value.retry_after <= 120
        assert up.count() == 1
        await hub.aclose()


async def test_while_one_mirror_rests_the_next_is_asked() -> None:
    async with fake_upstream() as one, fake_upstream() as two:
        one.on("/blob", say(status=429, headers={"Retry-After": "120"}))
        two.on("/blob", say(BLOB))
        hub = remote(one.url, two.url)
        assert [await pull(hub), await pull(hub)] == [BLOB, BLOB]
        assert (one.count(), two.count()) == (1, 2)
        await hub.aclose()


@pytest.mark.parametrize(
    "bad", [say(status=500), say(status=403), say(status=502), say(reset_after=-1), say(stall_after=-1)]
)
async def test_the_next_mirror_is_asked_when_the_first_fails(bad: Say) -> None:
    async with fake_upstream() as one, fake_upstream() as two:
        one.on("/blob", bad)
        two.on("/blob", say(BLOB))
        hub = remote(one.url, two.url, timeouts=SHORT if bad.stall_after else USUAL_TIMEOUTS)
        async with hub.open(ASK) as reply:
            assert reply.origin == two.url
        await hub.aclose()


async def test_the_trouble_of_every_mirror_is_told() -> None:
    async with fake_upstream() as one, fake_upstream() as two:
        one.on("/blob", say(status=500))
        two.on("/blob", say(status=403))
        hub = remote(one.url, two.url)
        with pytest.raises(UpstreamFailed, match=r"500.*403"):
            await pull(hub)
        await hub.aclose()


async def test_after_failures_in_a_row_it_is_left_alone_and_tried_again_by_itself() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(status=500))
        hub = remote(up.url)
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await pull(hub)
        with pytest.raises(UpstreamUnavailable, match=r"not asked for another 5 s, because .*500") as caught:
            await pull(hub)
        assert caught.value.retry_after is not None
        assert up.count() == 5
        await hub.aclose()


async def test_a_redirect_loop_ends() -> None:
    await expect(UpstreamFailed, "in a circle", redirect("/blob"), requests=1)


async def test_a_long_chain_of_redirects_ends() -> None:
    async with fake_upstream() as up:
        up.default = lambda seen: redirect(seen.path + "x")
        hub = remote(up.url)
        with pytest.raises(UpstreamFailed, match="more than 5 times"):
            await pull(hub)
        assert up.count() == 6
        await hub.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_redirect_is_followed(status: int) -> None:
    async with fake_upstream() as up:
        up.on("/blob", redirect("../other?x=1", status))
        up.on("/other", say(BLOB))
        hub = remote(up.url)
        assert await pull(hub) == BLOB
        assert up.requests[1].method == "GET"
        await hub.aclose()


@pytest.mark.parametrize("to", ["", "ftp://x/", "http://u:p@127.0.0.1/", "http://[", "javascript:alert(1)"])
async def test_a_redirect_to_nowhere_fails(to: str) -> None:
    await expect(UpstreamFailed, "redirects", redirect(to))


async def test_a_redirect_to_a_dead_host_fails_and_the_signature_is_not_shown() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        to = f"http://127.0.0.1:{closed.getsockname()[1]}/x?signature=secret"
        async with fake_upstream() as up:
            up.on("/blob", redirect(to))
            hub = remote(up.url)
            for _ in range(6):  # the mirror itself is well: its breaker stays closed
                with pytest.raises(UpstreamUnavailable, match="refused") as caught:
                    await pull(hub)
                assert "secret" not in str(caught.value)
            assert up.count() == 18
            await hub.aclose()


async def test_https_never_leads_to_http(ca: trustme.CA, tls: ClientTls) -> None:
    async with fake_upstream() as plain, fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up:
        up.on("/blob", redirect(plain.url + "/blob"))
        hub = remote(up.url, tls=tls)
        with pytest.raises(UpstreamFailed, match="https to http"):
            await pull(hub)
        assert plain.count() == 0
        await hub.aclose()


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ClientTls:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ClientTls(str(path))


async def test_a_trusted_certificate_is_fine(ca: trustme.CA, tls: ClientTls) -> None:
    async with fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up:
        up.on("/blob", say(BLOB), say(BLOB, chunked=True), say(BLOB, step=1000))
        hub = remote(up.url, tls=tls)
        for _ in range(3):
            assert await pull(hub) == BLOB
        assert up.connections == 1
        await hub.aclose()


async def test_its_certificate_is_of_another_name(ca: trustme.CA, tls: ClientTls) -> None:
    async with fake_upstream(tls=ca.issue_cert("other.example")) as up:
        hub = remote(up.url, tls=tls)
        with pytest.raises(UpstreamFailed, match="certificate is not trusted: IP address mismatch"):
            await pull(hub)
        assert up.count() == 0
        await hub.aclose()


async def test_its_certificate_is_of_a_stranger(tls: ClientTls) -> None:
    async with fake_upstream(tls=trustme.CA().issue_cert("127.0.0.1")) as up:
        hub = remote(up.url, tls=tls)
        with pytest.raises(UpstreamFailed, match="certificate is not trusted"):
            await pull(hub)
        await hub.aclose()


async def test_it_speaks_no_tls_at_all(tls: ClientTls) -> None:
    async with fake_upstream() as up:
        hub = remote(up.url.replace("http:", "https:"), tls=tls)
        with pytest.raises(UpstreamFailed, match="TLS: wrong version number"):
            await pull(hub)
        await hub.aclose()


async def test_tls_cut_off_in_the_body_is_noticed(ca: trustme.CA, tls: ClientTls) -> None:
    async with fake_upstream(tls=ca.issue_cert("127.0.0.1")) as up:
        up.on("/blob", say(BLOB, reset_after=100_000))
        hub = remote(up.url, tls=tls)
        with pytest.raises(UpstreamFailed, match=r"reset|closed|eof|broke"):
            await pull(hub)
        await hub.aclose()


async def test_a_ca_file_that_cannot_be_used_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such\.pem.*No such file"):
        ClientTls(str(tmp_path / "no-such.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("hello")
    with pytest.raises(ConfigError, match="holds no certificate"):
        ClientTls(str(empty))


async def test_a_compressed_answer_is_refused() -> None:
    await expect(UpstreamFailed, "gzip", say(BLOB, headers={"Content-Encoding": "gzip"}), requests=1)
    await expect(UpstreamFailed, "br", say(BLOB, headers={"Content-Encoding": "br"}), requests=1)


async def test_identity_is_no_coding() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB, headers={"Content-Encoding": "identity"}))
        hub = remote(up.url)
        assert await pull(hub) == BLOB
        await hub.aclose()


async def test_head_conditional_and_ranged_questions() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(BLOB), say(BLOB), say(status=304, headers={"ETag": '"e"'}))
        hub = remote(up.url)
        async with hub.open(Ask("HEAD", "blob")) as reply:
            assert (reply.status, reply.headers.get("content-length"), await reply.receive()) == (
                200,
                str(len(BLOB)),
                b"",
            )
        async with hub.open(Ask("GET", "blob", Headers([("range", "bytes=5-9")]))) as reply:
            assert (reply.status, await reply.receive()) == (206, BLOB[5:10])
        async with hub.open(Ask("GET", "blob", Headers([("if-none-match", '"e"')]))) as reply:
            assert (reply.status, await reply.receive()) == (304, b"")
        assert up.connections == 1
        await hub.aclose()


async def test_where_head_is_not_known_a_get_stands_in() -> None:
    async with fake_upstream() as up:
        up.on("/blob", lambda seen: say(status=405) if seen.method == "HEAD" else say(BLOB, headers={"ETag": '"e"'}))
        hub = remote(up.url)
        async with hub.open(Ask("HEAD", "blob")) as reply:
            assert (reply.headers.get("etag"), await reply.receive()) == ('"e"', b"")
        await hub.aclose()


async def test_a_connection_that_was_closed_while_idle_is_replaced_without_a_word() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(b"x", close=True), say(b"y"))
        hub = remote(up.url, patience=Patience(rounds=1))
        assert await pull(hub) == b"x"
        assert await pull(hub) == b"y"
        assert up.count() == 2
        await hub.aclose()


async def test_only_so_many_transfers_at_one_time_and_the_others_in_their_order() -> None:
    async with fake_upstream() as up, trio.open_nursery() as nursery:
        gate = trio.Event()
        up.default = say(b"x", gate=gate)
        hub = remote(up.url, concurrency=1)
        done: list[int] = []

        async def one(number: int) -> None:
            await pull(hub, Ask("GET", f"{number}", bulk=True))
            done.append(number)

        for number in range(6):
            nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert up.count() == 1
        # Documents do not stand behind files.
        up.on("/document", say(b"y"))
        assert await pull(hub, Ask("GET", "document")) == b"y"
        gate.set()
        with trio.fail_after(5):
            await up.until(lambda: up.count() == 7)
        assert [seen.path for seen in up.requests if seen.path != "/document"] == [f"/{number}" for number in range(6)]
        nursery.cancel_scope.deadline = trio.current_time() + 5
        while len(done) < 6:
            await trio.lowlevel.checkpoint()
        await hub.aclose()


async def test_a_line_that_does_not_move_is_unavailable() -> None:
    async with fake_upstream() as up, trio.open_nursery() as nursery:
        up.on("/blob", say(b"x", gate=trio.Event()))
        hub = remote(up.url, concurrency=1, timeouts=Timeouts(queue=0.05))

        async def hold() -> None:
            async with hub.open(Ask("GET", "blob")):
                pass

        nursery.start_soon(hold)
        await up.until(lambda: up.count() == 1)
        with pytest.raises(UpstreamUnavailable, match="no transfer of this upstream ended"):
            await pull(hub)
        nursery.cancel_scope.cancel()


async def test_a_full_line_turns_the_next_away_at_once() -> None:
    async with fake_upstream() as up, trio.open_nursery() as nursery:
        up.on("/blob", say(b"x", gate=trio.Event()))
        hub = remote(up.url, concurrency=1)
        for _ in range(65):
            nursery.start_soon(pull, hub)
        await up.until(lambda: up.count() == 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(UpstreamUnavailable, match="64 requests are waiting"):
            await pull(hub)
        nursery.cancel_scope.cancel()


class _Leaves(trio.abc.Instrument):
    """Cancels a scope when a task takes its n-th step."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._task = trio.lowlevel.current_task()
        self._scope, self._left = scope, steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def test_cancelled_at_any_moment_nothing_is_left() -> None:
    """Whoever asks leaves after n steps of the loop, for every n until the pull is through."""
    async with fake_upstream() as up:
        want = f'Bearer realm="{up.url}/token",service=s'
        up.on("/blob", lambda seen: redirect("/cdn") if "authorization" in seen.headers else challenge(want))
        up.on("/token", say(b'{"token":"x"}'))
        up.on("/cdn", say(BLOB, step=100_000))
        finished = False
        steps = 0
        while not finished:
            steps += 1
            hub = remote(up.url)
            with trio.CancelScope() as scope:
                leaves = _Leaves(scope, steps)
                trio.lowlevel.add_instrument(leaves)
                try:
                    assert await pull(hub) == BLOB
                    finished = True
                finally:
                    trio.lowlevel.remove_instrument(leaves)
            await hub.aclose()
            with trio.fail_after(5):
                await up.until(lambda: up.open_connections == 0)
        assert steps > 10


async def test_the_observer_hears_what_happens() -> None:
    class Ears:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def answered(self, upstream: str, status: int, seconds: float) -> None:
            self.heard.append((upstream, status, seconds >= 0))

        def received(self, upstream: str, count: int) -> None:
            self.heard.append(count)

        def failed(self, upstream: str, cause: str) -> None:
            self.heard.append(cause)

        def budget(self, upstream: str, budget: Budget) -> None:
            self.heard.append(f"{budget.remaining} of {budget.limit} left")

        def document(self, upstream: str, method: str) -> None:
            self.heard.append(method)

    ears = Ears()
    async with fake_upstream() as up:
        told = {"RateLimit-Remaining": "76;w=21600", "RateLimit-Limit": "100;w=21600"}
        up.on("/blob", say(status=503), say(b"abc", headers=told))
        hub = remote(up.url, observer=ears)
        await pull(hub)
        await hub.aclose()
    assert ears.heard == [("hub", 503, True), "unavailable", ("hub", 200, True), "76 of 100 left", "GET", 3]


async def test_no_secret_gets_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with fake_upstream() as up, fake_upstream() as cdn:
        want = f'Bearer realm="{up.url}/token?x=secret1",service=s'
        up.on(
            "/blob",
            lambda seen: redirect(cdn.url + "/b?sig=secret2") if seen.headers.get("authorization") else challenge(want),
        )
        up.on("/token", say(b'{"token":"secret3"}'))
        cdn.on("/b", say(status=503), say(BLOB, close_after=5))
        hub = remote(up.url, credentials=Credentials("user", "secret4"))
        with pytest.raises(UpstreamFailed) as caught:
            await pull(hub, Ask("GET", "blob?q=secret5", Headers([("cookie", "secret6")])))
        await hub.aclose()
    assert "GET" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in str(caught.value)
    assert "c2VjcmV0" not in caplog.text


async def test_idle_connections_are_closed_by_the_housekeeping() -> None:
    async with fake_upstream() as up:
        up.on("/blob", say(b"x"))
        hub = remote(up.url)
        await pull(hub)
        assert up.open_connections == 1
        hub._pool._idle[0].expires = 0.0
        hub.sweep()
        await up.until(lambda: up.open_connections == 0)


@pytest.mark.parametrize("url", ["", "registry.example", "ftp://x", "https://u:p@x", "https://"])
async def test_a_mirror_that_is_no_url_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"repository\.hub: "):
        remote(url)
