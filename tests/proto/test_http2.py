"""HTTP/2 as a client sees it that behaves."""

import os

import trio

from kit.http2_peer import plain_answer, served
from mxart.body import Body
from mxart.message import Headers, Request, Response


async def test_a_request_is_answered() -> None:
    async with served(plain_answer) as s:
        answer = await s.peer.get("/v2/?n=1")
        assert (answer.status, bytes(answer.body), answer.ended) == (200, b"/v2/?n=1", True)
        assert answer.headers["content-length"] == "8"
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["date"].endswith(" GMT")
        request = s.handler.requests[0]
        assert (request.method, request.target, request.authority, request.version) == (
            "GET",
            "/v2/?n=1",
            "mx.example",
            "2",
        )
        assert await request.body.receive() == b""
        await s.handler.until(lambda h: len(h.told) == 1)
        sent = s.handler.told[0][2]
        assert sent.error is None
        assert sent.body_bytes == 8
        assert sent.first_byte is not None
        assert sent.started <= sent.first_byte <= sent.finished


async def test_many_requests_one_after_the_other_and_at_once() -> None:
    async with served(plain_answer) as s:
        for n in range(20):
            assert (await s.peer.get(f"/{n}")).body == f"/{n}".encode()
        streams = [await s.peer.request(f"/{n}") for n in range(100)]
        for n, stream in enumerate(streams):
            assert (await s.peer.answer(stream)).body == f"/{n}".encode()


async def test_a_handler_that_waits_holds_up_no_other() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        if request.target == "/slow":
            await go.wait()
        return await plain_answer(request)

    async with served(answer) as s:
        slow = await s.peer.request("/slow")
        for n in range(5):
            assert (await s.peer.get(f"/{n}")).status == 200
        go.set()
        assert (await s.peer.answer(slow)).body == b"/slow"


async def test_head_is_answered_with_the_length_alone() -> None:
    async with served(plain_answer) as s:
        answer = await s.peer.get("/abc", "HEAD")
        assert (answer.headers["content-length"], answer.body) == ("4", b"")


async def test_an_upload_arrives_however_large() -> None:
    async def answer(request: Request) -> Response:
        total = 0
        while data := await request.body.receive():
            total += len(data)
        return Response(201, Headers(), Body([str(total).encode()]))

    async with served(answer) as s:
        stream = await s.peer.request("/up", "PUT", end=False)
        await s.peer.body(stream, os.urandom(3 << 20), end=True)
        assert (await s.peer.answer(stream)).body == str(3 << 20).encode()
