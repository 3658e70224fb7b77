"""Requests with bodies: streamed, answered early, sent again only where that does no harm."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from kit.upstream import Seen, fake_upstream, redirect, say
from kit.upstream_h2 import fake_h2
from mxart.config import Upstreams
from mxart.errors import NotFound, UpstreamFailed, UpstreamTimeout
from mxart.message import Headers
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience, Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials

BODY = bytes(range(256)) * 12000  # 3 MB: more than the buffers of a socket pair hold
CA = trustme.CA()


class Given:
    """A payload of bytes, which counts how often it was begun; `broken` instead of its end."""

    def __init__(self, data: bytes, *, length: int | None = None, broken: Exception | None = None) -> None:
        self._data = data
        self.length = len(data) if length is None else length
        self._broken = broken
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Given]:
        self.opened += 1
        self._at = 0
        yield self

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._data[self._at : self._at + 65536]
        self._at += len(piece)
        if not piece and self._broken is not None:
            raise self._broken
        return piece


def remote(*urls: str, **more: object) -> Remote:
    more.setdefault("patience", Patience(rounds=2, first_pause=0.001))
    return Remote("target", urls, Dialer(Upstreams()), **more)  # type: ignore[arg-type]


def trusted(folder: object) -> ClientTls:
    path = f"{folder}/ca.pem"
    CA.cert_pem.write_to_path(path)
    return ClientTls(path)


@asynccontextmanager
async def by_hand(serve: Callable[[trio.SocketStream], object]) -> AsyncIterator[str]:
    """A server whose every connection is served by a function; its URL."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def head_of(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    return data


@pytest.mark.parametrize("secure", [False, True])
async def test_a_body_is_streamed_and_the_answers_location_is_whole(tmp_path: object, secure: bool) -> None:
    async with fake_upstream(tls=CA.issue_cert("localhost") if secure else None, host="localhost") as up:
        up.on("/v2/x/blobs/uploads/1", say(status=202, headers={"location": "/v2/x/blobs/uploads/1?state=2"}))
        target = remote(up.url, tls=trusted(tmp_path))
        given = Given(BODY)
        fields = Headers([("content-type", "application/octet-stream"), ("content-range", f"0-{len(BODY) - 1}")])
        for _ in range(2):
            async with target.open(Ask("PATCH", "v2/x/blobs/uploads/1", fields, body=given, once=True)) as reply:
                assert reply.status == 202
                assert reply.located == f"{up.url}/v2/x/blobs/uploads/1?state=2"
                assert await reply.receive() == b""
        assert [seen.body == BODY for seen in up.requests] == [True, True]
        assert up.requests[0].headers["content-length"] == str(len(BODY))
        assert up.requests[0].headers["content-range"] == f"0-{len(BODY) - 1}"
        assert up.connections == 1  # it is used again
        await target.aclose()


async def test_an_empty_body_is_announced() -> None:
    async with fake_upstream() as up:
        up.on("/put", say(status=201))
        target = remote(up.url)
        async with target.open(Ask("PUT", "put")) as reply:
            assert (reply.status, reply.located) == (201, "")
        assert up.requests[0].headers["content-length"] == "0"
        await target.aclose()


async def test_a_refusal_before_the_end_is_heard_and_the_body_begins_anew_with_a_token() -> None:
    got = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        head = await head_of(stream)
        if b"authorization: Bearer T" not in head:
            want = f'Bearer realm="{tokens.url}/token",service="s",scope="repository:x:pull,push"'
            await stream.send_all(f"HTTP/1.1 401 No\r\nWWW-Authenticate: {want}\r\nContent-Length: 0\r\n\r\n".encode())
            await trio.sleep_forever()  # not a byte of the body is read: whoever only sends stands still
        got = head.partition(b"\r\n\r\n")[2]
        while len(got) < len(BODY):
            got += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 202 Yes\r\nContent-Length: 0\r\n\r\n")

    async with fake_upstream() as tokens, by_hand(serve) as url:
        tokens.on("/token", say(json.dumps({"token": "T", "expires_in": 300})))
        target = remote(url, credentials=Credentials("me", "pw"))
        given = Given(BODY)
        with trio.fail_after(10):
            async with target.open(
                Ask("PATCH", "v2/x", scope="repository:x:pull,push repository:y:pull", body=given, once=True)
            ) as reply:
                assert reply.status == 202
        assert got == BODY
        assert given.opened == 2
        scopes = [value for name, value in tokens.requests[0].query if name == "scope"]
        assert scopes == ["repository:x:pull,push", "repository:y:pull"]
        await target.aclose()


async def test_a_server_that_refuses_and_resets_is_still_understood() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await head_of(stream)
        await stream.send_all(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nfull")
        await stream.aclose()  # with bytes unread: RST

    async with by_hand(serve) as url:
        target = remote(url)
        with trio.fail_after(10):
            async with target.open(Ask("PATCH", "x", body=Given(BODY), once=True, expects=(413,))) as reply:
                assert reply.status == 413
                assert await reply.receive() == b"full"
        await target.aclose()


async def test_a_source_that_breaks_is_told_as_what_it_is_and_ends_the_connection() -> None:
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = await head_of(stream)
        while more := await stream.receive_some():
            data += more
        seen.append(data)

    async with by_hand(serve) as url:
        target = remote(url)
        with trio.fail_after(10), pytest.raises(NotFound, match="it was swept"):
            async with target.open(
                Ask("PUT", "x", body=Given(BODY, length=len(BODY) + 1, broken=NotFound("it was swept")))
            ):
                raise AssertionError
        for wrong in (len(BODY) - 1, len(BODY) + 1):
            with trio.fail_after(10), pytest.raises(UpstreamFailed, match="were announced"):
                async with target.open(Ask("PUT", "x", body=Given(BODY, length=wrong))):
                    raise AssertionError
        while len(seen) < 3:
            await trio.lowlevel.checkpoint()
        assert all(len(data.partition(b"\r\n\r\n")[2]) <= len(BODY) for data in seen)


async def test_a_target_that_takes_nothing_is_given_up() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with by_hand(serve) as url:
        target = remote(url, timeouts=Timeouts(idle=0.05))
        with trio.fail_after(10), pytest.raises(UpstreamTimeout, match=r"took nothing of the body for 0\.05 s"):
            async with target.open(Ask("PATCH", "x", body=Given(BODY * 4), once=True)):
                raise AssertionError


async def test_only_what_does_no_harm_is_sent_again() -> None:
    async with fake_upstream() as up:
        target = remote(up.url)
        for ask, times in (
            (Ask("PUT", "x", body=Given(BODY)), 2),
            (Ask("PATCH", "x", body=Given(BODY), once=True), 1),
            (Ask("POST", "x", once=True), 1),
        ):
            up.on("/x", say(reset_after=-1), say(status=202))
            before = up.count("/x")
            if times == 2:
                async with target.open(ask) as reply:
                    assert reply.status == 202
            else:
                with pytest.raises(UpstreamFailed, match="reset"):
                    async with target.open(ask):
                        raise AssertionError
            assert up.count("/x") - before == times
        await target.aclose()


async def test_a_limit_leaves_nothing_done_so_that_even_a_patch_is_sent_again() -> None:
    async with fake_upstream() as up:
        up.on("/x", say(status=429, headers={"retry-after": "0"}), say(status=202))
        target = remote(up.url)
        async with target.open(Ask("PATCH", "x", body=Given(BODY), once=True)) as reply:
            assert reply.status == 202
        assert [seen.body == BODY for seen in up.requests] == [True, True]
        await target.aclose()


async def test_a_location_elsewhere_gets_the_bytes_and_no_credentials() -> None:
    async with fake_upstream() as up, fake_upstream(host="localhost") as store:
        store.on("/put", say(status=201))
        up.on("/put", say(status=201))
        target = remote(up.url, credentials=Credentials(token="t0p"))
        for url in (f"{store.url}/put?signature=1", f"{up.url}/put"):
            async with target.open(Ask("PUT", "", url=url, body=b"abc")) as reply:
                assert reply.status == 201
        assert (store.requests[0].body, store.requests[0].headers.get("authorization")) == (b"abc", None)
        assert up.requests[0].headers["authorization"] == "Bearer t0p"
        await target.aclose()


async def test_no_location_leads_from_https_to_http(tmp_path: object) -> None:
    async with fake_upstream(tls=CA.issue_cert("localhost"), host="localhost") as up:
        target = remote(up.url, tls=trusted(tmp_path))
        with pytest.raises(UpstreamFailed, match="from https to http, which is refused"):
            async with target.open(Ask("PATCH", "", url=f"http://localhost:{up.port}/x", body=b"x")):
                raise AssertionError
        assert up.count() == 0


async def test_a_redirect_that_keeps_the_method_takes_the_body_along_and_no_other_is_followed() -> None:
    async with fake_upstream() as up:
        up.on("/old", redirect("/new", 308))
        up.on("/new", say(status=201))
        up.on("/page", redirect("/new", 302))
        target = remote(up.url)
        async with target.open(Ask("PUT", "old", body=Given(BODY))) as reply:
            assert reply.status == 201
        assert up.requests[-1].body == BODY
        with pytest.raises(UpstreamFailed, match="answers 302 to PUT"):
            async with target.open(Ask("PUT", "page", body=b"x")):
                raise AssertionError
        assert up.count("/new") == 1
        await target.aclose()


async def test_cancelled_in_the_middle_nothing_stays_open() -> None:
    async with fake_upstream() as up:
        target = remote(up.url)
        gate = trio.Event()

        class Slow(Given):
            async def receive(self) -> bytes:
                piece = await super().receive()
                if self._at > len(BODY) // 2:
                    gate.set()
                    await trio.sleep_forever()
                return piece

        async def put() -> None:
            async with target.open(Ask("PUT", "x", body=Slow(BODY))):
                raise AssertionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await gate.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await up.until(lambda: up.open_connections == 0)
        assert up.count() == 0


async def test_over_http2_the_windows_are_kept_to(tmp_path: object) -> None:
    async with fake_h2(CA.issue_cert("localhost")) as up:
        up.bodies["/x"] = b"done"
        target = remote(up.url, tls=trusted(tmp_path))
        with trio.fail_after(10):
            for body in (Given(BODY), BODY):
                async with target.open(Ask("PUT", "x", body=body)) as reply:
                    assert await reply.receive() == b"done"
        assert up.received["/x"] == BODY * 2
        assert up.connections == 1
        await target.aclose()


async def test_over_http2_a_refusal_before_the_end_is_heard(tmp_path: object) -> None:
    async with fake_h2(CA.issue_cert("localhost")) as up:
        up.early.add("/x")  # 404, and the window stays shut
        target = remote(up.url, tls=trusted(tmp_path))
        with trio.fail_after(10):
            async with target.open(Ask("PUT", "x", body=Given(BODY), expects=(404,))) as reply:
                assert (reply.status, await reply.receive()) == (404, b"")
        assert len(up.received["/x"]) < len(BODY)
        await target.aclose()


async def test_an_answer_is_judged_by_what_was_expected() -> None:
    async with fake_upstream() as up:
        seen: list[Seen] = up.requests
        up.on("/status", say(status=204, headers={"range": "0-9"}))
        target = remote(up.url)
        async with target.open(Ask("GET", "status", expects=(204, 404))) as reply:
            assert (reply.status, reply.headers.get("range")) == (204, "0-9")
        async with target.open(Ask("GET", "missing", expects=(204, 404))) as reply:
            assert reply.status == 404
        with pytest.raises(UpstreamFailed, match="204"):
            async with target.open(Ask("GET", "status")):
                raise AssertionError
        assert len(seen) == 3
        await target.aclose()
