"""Clients that break the rules: each gets its answer and no more, and nothing is left behind."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.wire import served, text
from mxart.body import Body
from mxart.errors import BadRequest, Disconnected
from mxart.message import Headers, Request, Response
from mxart.proto.heads import MEMO_BYTES
from mxart.proto.http1 import Http1Limits

GET = b"GET /v2/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
HOST = b"Host: example.com\r\n"


async def echo(request: Request) -> Response:
    body = b""
    try:
        while data := await request.body.receive():
            body += data
    except BadRequest as error:
        return text(error.message.encode(), 400)
    return text(body)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@example.com\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : example.com\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: first\r\n" + HOST + b"\r\n", 400),
        (b"GET v2/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET ftp://example.com/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http:///path HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://user:pw@example.com/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 50 + b"\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    ],
)
async def test_what_is_not_a_request_is_refused_and_the_connection_closed(wire: bytes, status: int, step: int) -> None:
    async with served(echo) as client:
        try:
            await client.send(wire + GET, step)
        except OSError:
            assert step == 1  # refused before it was all sent
        got, fields, body = await client.response()
        assert (got, fields["connection"]) == (status, "close")
        assert [body] == [message.encode() for _, message in client.handler.refused]
        assert client.handler.requests == [], "nothing after it is believed"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 100_000,
        b"A" * 100_000,
    ],
)
async def test_a_head_over_the_limit_is_refused(head: bytes) -> None:
    async with served(echo, Http1Limits(header_bytes=4000)) as client:
        await client.send(head)
        assert (await client.response())[0] == 431


async def test_a_head_remembered_elsewhere_is_still_measured_here() -> None:
    wire = b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 2000 + b"\r\n\r\n"
    for limit, status in ((65536, 200), (65536, 200), (1000, 431)):
        async with served(echo, Http1Limits(header_bytes=limit)) as client:
            await client.send(wire)
            assert (await client.response())[0] == status


async def test_a_request_hidden_in_a_remembered_head_is_read_as_always() -> None:
    # To h11 the bare line feeds end the first head; to a careless reader it goes on to the CR LF CR LF.
    wire = b"GET /first HTTP/1.1\nHost: a\n\nGET /second HTTP/1.1\r\nHost: b\r\n\r\n"
    async with served(echo) as client:
        for _ in range(3):
            await client.send(wire)
            await client.response()
            await client.response()
        assert [request.target for request in client.handler.requests] == ["/first", "/second"] * 3


@pytest.mark.parametrize("size", [MEMO_BYTES - 1, MEMO_BYTES, MEMO_BYTES + 1, MEMO_BYTES + 2, MEMO_BYTES + 3])
async def test_heads_around_the_size_that_is_remembered(size: int) -> None:
    wire = b"GET / HTTP/1.1\r\n" + HOST + b"A: "
    wire += b"a" * (size - len(wire) - 4) + b"\r\n\r\n"
    async with served(echo) as client:
        await client.send(wire * 3)
        for _ in range(3):
            assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    "chunk", [b"x\r\n", b"-1\r\n", b"5\r\nhello!!", b"ffffffffffffffffffffff\r\n", b"1 \x00\r\na\r\n"]
)
async def test_broken_chunks_are_told_to_the_reader(chunk: bytes) -> None:
    async with served(echo) as client:
        await client.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + GET)
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (400, "close")
        assert len(client.handler.requests) == 1


async def test_a_slow_head_runs_into_its_deadline_however_busy_it_looks() -> None:
    async with served(echo, Http1Limits(head_seconds=0.1)) as client:
        begun = trio.current_time()
        await client.send(b"GET / HTTP/1.1\r\n")
        with trio.move_on_after(5):
            while b"408" not in client.buffer:
                await client.send(b"A: b\r\n")
                with trio.move_on_after(0.02):
                    client.buffer += await client.sock.recv(65536)
        assert client.buffer.startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - begun >= 0.1


async def test_empty_lines_for_ever_are_a_slow_head_too() -> None:
    async with served(echo, Http1Limits(head_seconds=0.05)) as client:
        await client.send(b"\r\n")
        assert (await client.response())[0] == 408


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\x00b", "snow ☃", "x\x0bx"])
@pytest.mark.parametrize("name", ["location", "etag"])
async def test_no_field_value_can_split_a_response(name: str, value: str) -> None:
    body = Body([b"x"])
    async with served(Response(200, Headers([(name, value)]), body)) as client:
        await client.send(GET)
        raw = await client.read_to_end()
        assert raw.startswith(b"HTTP/1.1 500 ")
        assert b"Cookie" not in raw
        assert client.handler.ends[0][2].error is not None


@pytest.mark.parametrize("name", ["a b", "a:b", "", "a\r\nb", "é"])
async def test_no_field_name_can_either(name: str) -> None:
    async with served(Response(200, Headers([(name, "value")]))) as client:
        await client.send(GET)
        assert (await client.response())[0] == 500


async def test_a_handler_that_breaks_its_promise_is_a_500() -> None:
    async def answer(request: Request) -> Response:
        raise RuntimeError("a bug")

    async with served(answer) as client:
        await client.send(GET)
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (500, "close")
        _, response, sent = client.handler.ends[0]
        assert response is not None
        assert response.status == 500
        assert sent.error == "RuntimeError('a bug')"


@pytest.mark.parametrize(
    "wire",
    [
        GET,
        b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_truncated_anywhere_nothing_is_left_behind(wire: bytes) -> None:
    async def answer(request: Request) -> Response:
        try:
            return await echo(request)
        except Disconnected as error:
            return text(str(error).encode(), 400)

    for cut in range(len(wire)):
        async with served(answer) as client:  # counts descriptors, and the calls of finished()
            await client.send(wire[:cut])
            client.sock.shutdown(trio.socket.SHUT_WR)
            got = await client.read_to_end()
        assert b" 200 " not in got
        assert len(client.handler.requests) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"GET / HTTP/1.1\r\n",
                b"HEAD /x HTTP/1.0\r\n",
                HOST,
                b"A: b\r\n",
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b"\r\n",
                b"\n",
                b"\x00",
                b"abc",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
            ]
        ),
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_any_mixture_ends_in_order(parts: list[bytes], step: int) -> None:
    async def conversation() -> None:
        async with served(echo, Http1Limits(idle_seconds=5, head_seconds=5)) as client:
            try:
                await client.send(b"".join(parts), step)
                client.sock.shutdown(trio.socket.SHUT_WR)
                await client.read_to_end()
            except OSError:
                pass  # closed before everything was sent

    trio.run(conversation)


async def test_a_client_that_pipelines_and_never_reads_is_cut_off() -> None:
    async with served(text(b"x" * 60_000), progress_seconds=0.2, receive_buffer=4096, send_buffer=4096) as client:
        with contextlib.suppress(OSError):
            while True:
                await client.send(GET * 100)
    assert len(client.handler.requests) < 100
    assert "took nothing" in (client.handler.ends[-1][2].error or "")
