"""A pull through one upstream: what is asked, what is followed, what is shown to whom."""

from __future__ import annotations

import json

import pytest
import trio

from kit.upstream import challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import NotFound, UpstreamFailed
from mxart.message import Headers
from mxart.upstream.base import Ask, Upstream
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.tokens import Credentials

BLOB = bytes(range(256)) * 4096


def remote(*urls: str, **more: object) -> Remote:
    return Remote("hub", urls, Dialer(Upstreams()), **more)  # type: ignore[arg-type]


async def body_of(upstream: Upstream, ask: Ask) -> bytes:
    parts = []
    async with upstream.open(ask) as reply:
        while data := await reply.receive():
            parts.append(data)
    return b"".join(parts)


GET = Ask("GET", "v2/x/blobs/1")


async def test_a_file_is_fetched_with_its_head() -> None:
    async with fake_upstream() as up:
        up.on("/base/v2/x/blobs/1", say(BLOB, headers={"ETag": '"1"', "Content-Type": "a/b"}))
        hub = remote(up.url + "/base/")
        async with hub.open(GET) as reply:
            assert (reply.status, reply.headers.get("etag"), reply.origin) == (200, '"1"', up.url + "/base/")
            got = b""
            while data := await reply.receive():
                got += data
        assert got == BLOB
        assert up.requests[0].headers["accept-encoding"] == "identity"
        assert up.requests[0].headers["host"] == f"127.0.0.1:{up.port}"
        await hub.aclose()


async def test_a_connection_is_used_again() -> None:
    async with fake_upstream() as up:
        up.on("/v2/x/blobs/1", say(BLOB), say(BLOB, chunked=True), say(b""), say(BLOB))
        hub = remote(up.url)
        for expected in (BLOB, BLOB, b"", BLOB):
            assert await body_of(hub, GET) == expected
        assert up.connections == 1
        await hub.aclose()
        await up.until(lambda: up.open_connections == 0)


async def test_a_redirect_to_another_host_takes_no_credentials_along() -> None:
    async with fake_upstream() as registry, fake_upstream(host="localhost") as cdn:
        registry.on("/v2/x/blobs/1", redirect(f"{cdn.url}/data?signature=secret"))
        cdn.on("/data", say(BLOB))
        hub = remote(registry.url, credentials=Credentials(token="t0p"))
        ask = Ask("GET", "v2/x/blobs/1", Headers([("range", "bytes=10-"), ("cookie", "a=b")]))
        assert await body_of(hub, ask) == BLOB[10:]
        assert registry.requests[0].headers["authorization"] == "Bearer t0p"
        assert "authorization" not in cdn.requests[0].headers
        assert "cookie" not in cdn.requests[0].headers
        assert cdn.requests[0].headers["range"] == "bytes=10-"
        await hub.aclose()


async def test_a_bearer_token_is_fetched_once_and_shown_at_once_afterwards() -> None:
    async with fake_upstream() as registry, fake_upstream() as auth:
        want = f'Bearer realm="{auth.url}/token",service=reg,scope="repository:x:pull"'
        registry.on(
            "/v2/x/blobs/1",
            lambda seen: say(BLOB) if seen.headers.get("authorization") == "Bearer T" else challenge(want),
        )
        auth.on("/token", say(json.dumps({"access_token": "T", "expires_in": 300})))
        hub = remote(registry.url, credentials=Credentials("me", "pw"))
        ask = Ask("GET", "v2/x/blobs/1", scope="repository:x:pull")
        assert await body_of(hub, ask) == BLOB
        assert await body_of(hub, ask) == BLOB
        assert auth.count() == 1
        assert registry.count() == 3
        assert dict(auth.requests[0].query) == {"service": "reg", "scope": "repository:x:pull", "account": "me"}
        assert auth.requests[0].headers["authorization"] == "Basic bWU6cHc="
        await hub.aclose()


async def test_404_is_not_found_and_believed() -> None:
    async with fake_upstream() as one, fake_upstream() as two:
        two.on("/v2/x/blobs/1", say(BLOB))
        hub = remote(one.url, two.url)
        with pytest.raises(NotFound, match=r"hub: .*404"):
            await body_of(hub, GET)
        assert two.count() == 0
        await hub.aclose()


async def test_a_401_loop_ends_as_failed() -> None:
    async with fake_upstream() as registry:
        registry.on("/v2/x/blobs/1", challenge(f'Bearer realm="{registry.url}/token",service="s"'))
        registry.on("/token", say(b'{"token":"x"}'))
        hub = remote(registry.url)
        with trio.fail_after(5), pytest.raises(UpstreamFailed, match="401"):
            await body_of(hub, GET)
        assert registry.count("/v2/x/blobs/1") == 2
        await hub.aclose()
