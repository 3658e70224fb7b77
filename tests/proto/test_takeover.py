"""A connection, or a stream, that is handed over after CONNECT: closed once, told of once, whenever it is cut."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kit import http2_peer, wire
from kit.steps import cancelled_after_each_step
from mxart.body import Body
from mxart.errors import Disconnected
from mxart.message import Request, Response
from mxart.takeover import Duplex, Takeover

CONNECT = b"CONNECT db.test:443 HTTP/1.1\r\nHost: db.test:443\r\n\r\n"
FIELDS = [(":method", "CONNECT"), (":authority", "db.test:443")]


class Echo(Takeover):
    """Says everything back, until the client's end."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.ended = False
        self._sent = 0

    async def run(self, duplex: Duplex) -> None:
        while data := await duplex.receive_some():
            if data == b"break":
                raise Disconnected("it broke")
            await duplex.send_all(data)
            self._sent += len(data)
        await duplex.send_eof()
        self.ended = True

    @property
    def sent(self) -> int:
        return self._sent

    def close(self) -> None:
        self.closed += 1


async def test_over_http1_the_connection_is_the_tunnel_from_then_on() -> None:
    body = Echo()
    async with wire.served(Response(200, body=body)) as client:
        await client.send(CONNECT + b"early")
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert await client.read_exactly(5) == b"early"
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await client.read_exactly(18) == b"GET / HTTP/1.1\r\n\r\n"
        client.sock.shutdown(trio.socket.SHUT_WR)
        assert await client.read_to_end() == b""
    ((request, _, sent),) = client.handler.ends
    assert (request.method, request.target, sent.error, sent.body_bytes) == ("CONNECT", "db.test:443", None, 23)
    assert body.closed == 1


async def test_what_breaks_is_shown_as_a_reset() -> None:
    body = Echo()
    async with wire.served(Response(200, body=body)) as client:
        await client.send(CONNECT)
        await client.read_until(b"\r\n\r\n")
        await client.send(b"break")
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()
    assert client.handler.ends[0][2].error == "it broke"
    body = Echo()

    async def answer(_: Request) -> Response:
        return Response(200, body=body)

    async with http2_peer.served(answer) as served:
        stream = http2_peer.PeerStream(served.peer, await served.peer.request_fields(FIELDS, end=False))
        await stream.send_all(b"break")
        await served.peer.until(lambda: stream.answer.over)
        assert stream.answer.reset is not None
        await served.handler.until(lambda handler: len(handler.told) == 1)
        assert served.handler.told[0][2].error == "it broke"
    assert body.closed == 1


async def test_cut_at_any_step_over_http1_it_is_closed_and_told_of_once() -> None:
    async def once(step: int) -> bool:
        body = Echo()
        async with wire.served(Response(200, body=body), cancel_at=step) as client:
            try:
                for data in (CONNECT[:20], CONNECT[20:], b"one", b"two", b"three"):
                    await client.send(data)
                    await trio.testing.wait_all_tasks_blocked()
                client.sock.shutdown(trio.socket.SHUT_WR)
                await client.read_to_end()
            except OSError:
                pass
        assert body.closed == len(client.handler.ends)
        return body.ended

    assert await cancelled_after_each_step(once) > 3


async def test_over_http2_a_stream_is_the_tunnel_and_the_others_go_on() -> None:
    bodies: list[Echo] = []

    async def answer(request: Request) -> Response:
        if request.method != "CONNECT":
            return Response(200, body=Body([b"plain"]))
        bodies.append(Echo())
        return Response(200, body=bodies[-1])

    async with http2_peer.served(answer) as served:
        stream = http2_peer.PeerStream(served.peer, await served.peer.request_fields(FIELDS, end=False))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"x" * 1_000_000)
            got = b""
            while len(got) < 1_000_000:
                got += await stream.receive_some()
        assert bytes((await served.peer.get()).body) == b"plain"
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await served.handler.until(lambda handler: len(handler.told) == 2)
        ended = next(sent for request, _, sent in served.handler.told if request.method == "CONNECT")
        assert (ended.error, ended.body_bytes) == (None, 1_000_000)
    assert bodies[0].closed == 1


async def test_a_connection_that_ends_at_any_moment_ends_its_tunnels() -> None:
    for moment in range(12):
        body = Echo()

        async def answer(_: Request, body: Echo = body) -> Response:
            return Response(200, body=body)

        async with http2_peer.served(answer) as served:
            stream = http2_peer.PeerStream(served.peer, await served.peer.request_fields(FIELDS, end=False))
            await stream.send_all(b"x")
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            served.scope.cancel()
            await served.done.wait()
        assert body.closed == len(served.handler.told) <= 1
