from __future__ import annotations

from pathlib import Path

from kit.wire import FakeSource, served, text
from mxart.body import Body, Span
from mxart.message import Headers, Request, Response

GET = b"GET /v2/ HTTP/1.1\r\nHost: example.com\r\n\r\n"


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


async def test_head_tells_the_length_and_sends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 1000)
    source = FakeSource(path, 1000)

    async def answer(request: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 0, 1000)]))

    async with served(answer) as client:
        await client.send(GET.replace(b"GET", b"HEAD"))
        status, fields, _ = await client.response("HEAD")
        assert (status, fields["content-length"]) == (200, "1000")
        assert source.closed == 1
        assert client.buffer == b""
