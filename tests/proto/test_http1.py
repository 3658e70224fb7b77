"""A client that keeps to the rules, in every fragmentation."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.wire import FakeSource, served, text
from mxart.body import Body, Span
from mxart.errors import TooLarge
from mxart.message import Headers, Request, Response
from mxart.proto.http1 import Http1Limits

GET = b"GET /v2/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
PUT = b"PUT /up HTTP/1.1\r\nHost: example.com\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"PUT /up HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
)


async def read_all(request: Request, max_bytes: int = 65536) -> bytes:
    body = b""
    while data := await request.body.receive(max_bytes):
        assert len(data) <= max_bytes
        body += data
    return body


async def echo(request: Request) -> Response:
    return text(request.method.encode() + b":" + await read_all(request))


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with served(text(b"hello")) as client:
        for _ in range(3):
            await client.send(GET)
            status, fields, body = await client.response()
            assert (status, body) == (200, b"hello")
            assert fields["content-length"] == "5"
            assert fields["date"].endswith("GMT")
            assert "connection" not in fields
        assert [request.target for request in client.handler.requests] == ["/v2/"] * 3
        assert client.handler.requests[0].authority == "example.com"
        for request, response, sent in client.handler.ends:
            assert (request.version, response is not None, sent.error, sent.body_bytes) == ("1.1", True, None, 5)
            assert sent.first_byte is not None
            assert sent.started <= sent.first_byte <= sent.finished


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("wire", [GET, PUT, CHUNKED])
async def test_fragments_make_no_difference(wire: bytes, step: int) -> None:
    async with served(echo) as client:
        for _ in range(2):
            await client.send(wire, step)
            _, _, body = await client.response()
            assert body == (b"GET:" if wire is GET else b"PUT:hello world")


@pytest.mark.parametrize("step", [0, 1])
async def test_pipelined_requests_are_answered_in_order(step: int) -> None:
    async with served(echo) as client:
        await client.send((GET + PUT + CHUNKED + b"\r\n" + GET) * 5, step)
        for _ in range(5):
            for expected in (b"GET:", b"PUT:hello world", b"PUT:hello world", b"GET:"):
                assert (await client.response())[2] == expected


async def test_bytes_read_before_are_served_first() -> None:
    async with served(echo, initial=GET + PUT[:20]) as client:
        assert (await client.response())[2] == b"GET:"
        await client.send(PUT[20:])
        assert (await client.response())[2] == b"PUT:hello world"


async def test_a_body_can_be_read_in_small_pieces() -> None:
    async def answer(request: Request) -> Response:
        return text(await read_all(request, 3))

    async with served(answer) as client:
        await client.send(PUT + CHUNKED)
        assert (await client.response())[2] == b"hello world"
        assert (await client.response())[2] == b"hello world"
        assert [request.body.length for request in client.handler.requests] == [11, None]


async def test_head_tells_the_length_and_sends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 1000)
    source = FakeSource(path, 1000)
    async with served(Response(200, Headers(), Body([Span(source, 0, 1000)]))) as client:
        await client.send(GET.replace(b"GET", b"HEAD"))
        status, fields, _ = await client.response("HEAD")
        assert (status, fields["content-length"]) == (200, "1000")
        await client.send(GET.replace(b"GET", b"HEAD"))
        await client.response("HEAD")
        assert client.buffer == b""
    assert source.closed == 2, "once for each response that held it"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_have_no_length(status: int) -> None:
    async with served(Response(status, Headers([("etag", '"x"')]), Body([b"ignored"]))) as client:
        for _ in range(2):
            await client.send(GET)
            got, fields, _ = await client.response()
            assert got == status
            assert fields.keys() == {"etag", "date"}


async def test_a_file_whose_length_nobody_knows_is_chunked(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 10)
    source = FakeSource(path)
    async with served(Response(200, Headers(), Body([b"<", Span(source, 0, None), b">"]))) as client:
        await client.send(GET)
        head = await client.read_until(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert b"Content-Length" not in head
        assert await client.read_exactly(len(b"1\r\n<\r\na\r\n" + b"a" * 10)) == b"1\r\n<\r\na\r\n" + b"a" * 10
        await source.waiting.wait()
        source.grow(b"b" * 100_000)
        assert await client.read_exactly(2 + 7 + 100_000) == b"\r\n186a0\r\n" + b"b" * 100_000
        source.finish()
        assert await client.read_until(b"0\r\n\r\n") == b"\r\n1\r\n>\r\n0\r\n\r\n"
        assert client.handler.ends[0][2].body_bytes == 100_012


async def test_http_1_0_gets_no_chunks_and_no_second_request(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 10)
    source = FakeSource(path)
    source.finish()
    async with served(Response(200, Headers(), Body([Span(source, 0, None)]))) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n" + GET)
        status, fields, body = await client.response()
        assert (status, fields["connection"], body) == (200, "close", b"a" * 10)
        assert "transfer-encoding" not in fields
        assert [(request.version, request.authority) for request in client.handler.requests] == [("1.0", "")]


async def test_a_client_that_wants_to_close_is_told_so() -> None:
    async with served(text(b"bye")) as client:
        await client.send(GET[:-2] + b"Connection: keep-alive, Close\r\n\r\n" + GET)
        _, fields, body = await client.response()
        assert (fields["connection"], body) == ("close", b"bye")
        assert await client.read_to_end() == b""
        assert len(client.handler.requests) == 1


async def test_the_offer_of_http_2_is_declined_by_a_plain_answer() -> None:
    upgrade = GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    async with served(text(b"1.1")) as client:
        for wire in (upgrade + GET, upgrade):
            await client.send(wire)
        for _ in range(3):
            assert (await client.response())[::2] == (200, b"1.1")


@pytest.mark.parametrize(
    ("line", "target", "authority"),
    [
        (b"GET http://other.example/v2/?a=b", "/v2/?a=b", "other.example"),
        (b"GET https://other.example:8443", "/", "other.example:8443"),
        (b"GET HTTP://other.example?x", "/?x", "other.example"),
        (b"GET http://[::1]:80/x", "/x", "[::1]:80"),
        (b"OPTIONS *", "*", "example.com"),
        (b"GET /a%2Fb?ns=docker.io", "/a%2Fb?ns=docker.io", "example.com"),
        (b"GET //evil.example/x", "//evil.example/x", "example.com"),
    ],
)
async def test_every_form_of_target_becomes_path_and_authority(line: bytes, target: str, authority: str) -> None:
    async with served(text(b"")) as client:
        for _ in range(2):
            await client.send(line + b" HTTP/1.1\r\nHost: example.com\r\n\r\n")
            assert (await client.response())[0] == 200
        assert {(request.target, request.authority) for request in client.handler.requests} == {(target, authority)}


async def test_connect_is_the_last_request() -> None:
    async with served(text(b"no", 405)) as client:
        await client.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (405, "close")
        assert client.handler.requests[0].authority == "example.com:443"


async def test_names_are_told_as_text_and_framing_is_the_wires() -> None:
    fields = Headers([("etag", '"é"'), ("content-length", "99"), ("connection", "x"), ("date", "never"),
                      ("transfer-encoding", "gzip"), ("docker-content-digest", "d")])  # fmt: skip
    async with served(Response(200, fields, Body([b"body"]))) as client:
        await client.send(GET)
        head = await client.read_until(b"\r\n\r\n")
        assert b'ETag: "\xe9"\r\n' in head
        assert b"Docker-Content-Digest: d\r\n" in head
        assert b"Content-Length: 4\r\n" in head
        assert head.count(b"Date:") == 1
        for absent in (b"99", b"never", b"gzip", b"Connection"):
            assert absent not in head


# --- Expect: 100-continue (RFC 9110 section 10.1.1) ---------------------------------------------

EXPECT = b"PUT /up HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"


async def test_a_waiting_client_may_go_on_when_the_body_is_wanted() -> None:
    async with served(echo) as client:
        for _ in range(2):
            await client.send(EXPECT)
            assert (await client.response())[0] == 100
            await client.send(b"hello world")
            status, fields, body = await client.response()
            assert (status, body) == (200, b"PUT:hello world")
            assert "connection" not in fields


async def test_a_waiting_client_is_not_told_to_go_on_when_the_body_is_not_wanted() -> None:
    async with served(text(b"no", 403)) as client:
        await client.send(EXPECT)
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (403, "close")
        assert await client.read_to_end() == b""


async def test_a_client_that_did_not_wait_is_not_told_to_go_on() -> None:
    async with served(echo) as client:
        await client.send(EXPECT + b"hello world" + EXPECT + b"he")
        assert (await client.response())[2] == b"PUT:hello world"
        await client.send(b"llo world")
        assert (await client.response())[2] == b"PUT:hello world"


# --- bodies that nobody wants -------------------------------------------------------------------


@pytest.mark.parametrize("wire", [PUT, CHUNKED])
async def test_a_small_body_that_nobody_read_is_skipped(wire: bytes) -> None:
    async with served(text(b"no", 403)) as client:
        await client.send(wire + GET)
        await client.send(wire[:-3])
        for _ in range(3):
            assert (await client.response())[0] == 403
        await client.send(wire[-3:] + GET)
        assert (await client.response())[0] == 403
        assert [request.method for request in client.handler.requests] == ["PUT", "GET", "PUT", "GET"]


@pytest.mark.parametrize("wire", [PUT, CHUNKED])
async def test_an_answer_gives_a_small_body_that_nobody_wanted_the_time_to_be_written(wire: bytes) -> None:
    """A client that is answered in the middle of what it writes may never notice (containerd 1.6)."""
    async with served(text(b"no", 401)) as client:
        await client.send(wire[:-3])
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert client.handler.requests
        with pytest.raises(BlockingIOError):
            client.sock._sock.recv(1, socket.MSG_DONTWAIT)
        await client.send(wire[-3:])
        assert (await client.response())[0] == 401


async def test_the_answer_survives_a_large_body_that_nobody_wants() -> None:
    async with served(text(b"no", 403)) as client:
        await client.send(b"PUT /up HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3000000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, bytes(3_000_000))
            status, fields, body = await client.response()
        assert (status, fields["connection"], body) == (403, "close", b"no")
        client.sock.shutdown(trio.socket.SHUT_WR)
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("wire", [PUT, CHUNKED, EXPECT])
async def test_a_body_over_the_limit_is_refused_by_whoever_reads_it(wire: bytes) -> None:
    async def answer(request: Request) -> Response:
        with pytest.raises(TooLarge):
            await read_all(request)
        with pytest.raises(TooLarge):
            await request.body.receive()
        return text(b"too large", 413)

    async with served(answer, Http1Limits(body_bytes=10)) as client:
        await client.send(wire)
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (413, "close")


# --- the end ------------------------------------------------------------------------------------


async def test_an_idle_connection_ends_when_the_server_drains() -> None:
    async with served(text(b"hello")) as client:
        await client.send(GET)
        await client.response()
        client.draining.set()
        assert await client.read_to_end() == b""


async def test_a_request_under_way_is_answered_when_the_server_drains() -> None:
    go_on = trio.Event()

    async def answer(request: Request) -> Response:
        await go_on.wait()
        return text(b"done")

    async with served(answer) as client:
        await client.send(GET)
        await client.handler.started.wait()
        client.draining.set()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        _, fields, body = await client.response()
        assert (fields["connection"], body) == ("close", b"done")
        assert await client.read_to_end() == b""


async def test_a_request_that_comes_as_the_server_drains_is_not_lost() -> None:
    for _ in range(20):
        async with served(text(b"hello")) as client:
            await trio.testing.wait_all_tasks_blocked()
            await client.send(GET)
            client.draining.set()
            answer = await client.read_to_end()
            assert answer == b"" or answer.endswith(b"hello")
            assert bool(answer) == bool(client.handler.requests)


async def test_an_idle_connection_ends_after_a_while_but_not_early() -> None:
    async with served(text(b"hello"), Http1Limits(idle_seconds=0.1)) as client:
        begun = trio.current_time()
        await client.send(GET)
        await client.response()
        assert await client.read_to_end() == b""
        assert trio.current_time() - begun >= 0.1
        assert client.handler.refused == []


async def test_a_slow_answer_is_not_idleness() -> None:
    async def answer(request: Request) -> Response:
        await trio.sleep(0.12)
        return text(b"late")

    async with served(answer, Http1Limits(idle_seconds=0.05)) as client:
        await client.send(GET + GET)
        assert (await client.response())[2] == b"late"
        assert (await client.response())[2] == b"late"
