"""HTTP/2 upstreams: documents share a connection, files have their own, nothing is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trustme

from kit.upstream_h2 import FakeH2, fake_h2
from mxart.config import Upstreams
from mxart.errors import NotFound, UpstreamFailed, UpstreamTimeout
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience, Timeouts
from mxart.upstream.tls import ClientTls

CA = trustme.CA()
BODY = bytes(range(256)) * 2000


@pytest.fixture
async def up() -> AsyncIterator[FakeH2]:
    async with fake_h2(CA.issue_cert("localhost")) as fake:
        fake.bodies["/x"] = BODY
        fake.bodies["/small"] = b"small"
        yield fake


@pytest.fixture
def tls(tmp_path_factory: pytest.TempPathFactory) -> ClientTls:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return ClientTls(str(path))


def remote(up: FakeH2, tls: ClientTls, **timeouts: float) -> Remote:
    patience = Patience(rounds=1)
    return Remote("hub", [up.url], Dialer(Upstreams()), tls=tls, timeouts=Timeouts(**timeouts), patience=patience)


async def pull(hub: Remote, path: str, *, bulk: bool = False) -> bytes:
    parts = []
    with trio.fail_after(10):
        async with hub.open(Ask("GET", path, bulk=bulk)) as reply:
            while data := await reply.receive():
                parts.append(data)
    return b"".join(parts)


async def test_documents_share_one_connection(up: FakeH2, tls: ClientTls) -> None:
    hub = remote(up, tls)
    assert await pull(hub, "x") == BODY
    results: list[bytes] = []

    async def one() -> None:
        results.append(await pull(hub, "x"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert results == [BODY] * 8
    with pytest.raises(NotFound):
        await pull(hub, "missing")
    assert up.connections == 1
    await hub.aclose()
    with trio.fail_after(5):
        await up.until_closed()


async def test_a_server_that_refuses_http1_gets_files_over_http2(up: FakeH2, tls: ClientTls) -> None:
    hub = remote(up, tls)
    assert await pull(hub, "x", bulk=True) == BODY
    assert await pull(hub, "x", bulk=True) == BODY
    await hub.aclose()


async def test_files_come_over_http1_where_both_are_offered(tls: ClientTls) -> None:
    from kit.upstream import fake_upstream, say

    async with fake_upstream(tls=CA.issue_cert("127.0.0.1"), alpn=("http/1.1",)) as one:
        one.on("/x", say(BODY))
        hub = Remote("hub", [one.url], Dialer(Upstreams()), tls=tls)
        assert [await pull(hub, "x"), await pull(hub, "x", bulk=True)] == [BODY, BODY]
        await hub.aclose()


async def test_a_stream_that_is_reset_is_told(up: FakeH2, tls: ClientTls) -> None:
    up.reset.add("/x")
    hub = remote(up, tls)
    with pytest.raises(UpstreamFailed, match="broke off"):
        await pull(hub, "x")
    assert await pull(hub, "small") == b"small"
    await hub.aclose()
    with trio.fail_after(5):
        await up.until_closed()


async def test_one_that_does_not_answer_is_a_timeout_and_others_go_on(up: FakeH2, tls: ClientTls) -> None:
    up.mute.add("/mute")
    hub = remote(up, tls, first_byte=0.3)
    with pytest.raises(UpstreamTimeout, match="did not answer"):
        await pull(hub, "mute")
    assert await pull(hub, "small") == b"small"
    await hub.aclose()
    with trio.fail_after(5):
        await up.until_closed()


async def test_a_body_left_unread_costs_the_connection_and_not_more(up: FakeH2, tls: ClientTls) -> None:
    hub = remote(up, tls)
    for _ in range(50):  # more than the connection's window would bear
        async with hub.open(Ask("GET", "x")) as reply:
            assert await reply.receive()
    assert await pull(hub, "x") == BODY
    await hub.aclose()
    with trio.fail_after(5):
        await up.until_closed()


async def test_after_goaway_another_connection_is_opened(up: FakeH2, tls: ClientTls) -> None:
    up.goaway = True
    hub = remote(up, tls)
    for _ in range(3):
        assert await pull(hub, "small") == b"small"
    assert up.connections == 3
    await hub.aclose()


async def test_whoever_leaves_in_the_middle_takes_nothing_along(up: FakeH2, tls: ClientTls) -> None:
    up.mute.add("/mute")
    hub = remote(up, tls)
    async with trio.open_nursery() as nursery:
        for path in ("mute", "x", "mute", "x"):
            nursery.start_soon(pull, hub, path)
        while "/mute" not in up.requests:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert await pull(hub, "x") == BODY
    await hub.aclose()
    with trio.fail_after(5):
        await up.until_closed()
