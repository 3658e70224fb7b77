"""Clients that leave, in every phase; and connections that are cancelled at every step."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.steps import cancelled_after_each_step
from kit.wire import Client, FakeSource, served, text
from mxart.body import Body, Span
from mxart.errors import BodyBroken, Disconnected
from mxart.message import Headers, Request, Response

GET = b"GET /v2/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
PUT = b"PUT /up HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def leave(client: Client) -> None:
    client.sock.close()


async def for_ever(request: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError("never")


@pytest.mark.parametrize("go", [reset, leave])
@pytest.mark.parametrize("more", [b"", GET, GET[:10], PUT])
async def test_a_client_that_leaves_cancels_its_handler(go: object, more: bytes) -> None:
    assert callable(go)
    async with served(for_ever) as client:
        await client.send(GET + more)
        await client.handler.started.wait()
        go(client)
    assert client.handler.cancelled == 1
    _, response, sent = client.handler.ends[0]
    assert (response, sent.error, sent.first_byte) == (None, "the client left before the answer was there", None)


async def test_a_client_that_leaves_after_its_body_cancels_its_handler() -> None:
    async def answer(request: Request) -> Response:
        await request.body.receive()
        return await for_ever(request)

    async with served(answer) as client:
        await client.send(PUT)
        assert (await client.response())[0] == 100
        await client.send(b"0123456789")
        leave(client)
    assert client.handler.cancelled == 1


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_noticed_by_the_reader() -> None:
    async def answer(request: Request) -> Response:
        assert await request.body.receive() == b"01234"
        with pytest.raises(Disconnected):
            await request.body.receive()
        return text(b"nobody hears this", 400)

    async with served(answer) as client:
        await client.send(PUT + b"01234")
        await client.handler.started.wait()
        leave(client)
    assert len(client.handler.ends) == 1


async def test_a_client_that_stalls_in_its_body_is_noticed_by_the_reader() -> None:
    async def answer(request: Request) -> Response:
        with pytest.raises(Disconnected):
            await request.body.receive()
        return text(b"too slow", 408)

    async with served(answer, progress_seconds=0.05) as client:
        await client.send(PUT)
        assert (await client.response())[0] == 100
        status, fields, _ = await client.response()
        assert (status, fields["connection"]) == (408, "close")


async def test_requests_sent_ahead_of_a_waiting_handler_are_not_lost() -> None:
    go_on = trio.Event()

    async def answer(request: Request) -> Response:
        await go_on.wait()
        return text(request.target.encode())

    async with served(answer) as client:
        await client.send(GET)
        await client.handler.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(5):
            await client.send(GET.replace(b"/v2/", b"/%d" % number))
            await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        for expected in (b"/v2/", b"/0", b"/1", b"/2", b"/3", b"/4"):
            assert (await client.response())[2] == expected


async def test_reading_ahead_of_a_waiting_handler_is_bounded() -> None:
    go_on = trio.Event()

    async def answer(request: Request) -> Response:
        await go_on.wait()
        return text(b"at last")

    async with served(answer) as client:
        await client.send(GET)
        await client.handler.started.wait()
        sent = 0
        with trio.move_on_after(0.5):
            while sent < 100_000_000:
                sent += await client.sock.send(bytes(65536))
        assert sent < 50_000_000, "the kernel's buffers fill up instead of ours"
        go_on.set()
        assert (await client.response())[2] == b"at last"
        assert (await client.response())[0] == 400


@pytest.mark.parametrize("go", [reset, leave])
async def test_a_client_that_leaves_during_a_long_answer_ends_it(go: object, tmp_path: Path) -> None:
    assert callable(go)
    path = tmp_path / "blob"
    path.write_bytes(bytes(20_000_000))
    source = FakeSource(path, 20_000_000)
    async with served(Response(200, Headers(), Body([Span(source, 0, 20_000_000)]))) as client:
        await client.send(GET)
        await client.read_exactly(100_000)
        go(client)
    _, _, sent = client.handler.ends[0]
    assert sent.error is not None
    assert 0 < sent.body_bytes < 20_000_000
    assert source.closed == 1


async def test_a_body_that_cannot_be_finished_is_visibly_short(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 1000)
    source = FakeSource(path, 5000)
    async with served(Response(200, Headers(), Body([Span(source, 0, 5000)]))) as client:
        await client.send(GET + GET)
        await client.read_until(b"\r\n\r\n")
        await client.read_exactly(1000)
        await source.waiting.wait()
        source.fail(BodyBroken("upstream sent something else"))
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()
        assert len(client.handler.requests) == 1
    assert client.handler.ends[0][2].error == "upstream sent something else"
    assert source.closed == 1


async def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    data = bytes(range(256)) * 400
    path.write_bytes(data)
    source = FakeSource(path, len(data))
    async with served(
        Response(200, Headers(), Body([Span(source, 0, len(data))])),
        progress_seconds=0.3,
        receive_buffer=4096,
        send_buffer=65536,
    ) as client:
        await client.send(GET)
        await client.read_until(b"\r\n\r\n")
        got = client.buffer
        begun = trio.current_time()
        while len(got) < len(data):
            await trio.sleep(0.01)
            got += await client.sock.recv(1024)
        assert got == data
        assert trio.current_time() - begun > 0.7, "longer than several progress timeouts"


# --- cancellation -------------------------------------------------------------------------------


async def test_cancelled_at_any_step_everything_is_let_go(tmp_path: Path) -> None:
    """One connection through every phase: idle, slow head, body, waiting handler, growing answer, closing."""
    path = tmp_path / "growing"

    async def once(cancel_at: int) -> bool:
        path.write_bytes(b"a" * 100)
        source = FakeSource(path, 300_000)
        cleanups = 0

        async def answer(request: Request) -> Response:
            nonlocal cleanups
            try:
                while await request.body.receive():
                    pass
                await trio.lowlevel.checkpoint()
            finally:
                cleanups += 1
            return Response(200, Headers(), Body([b"x", Span(source, 0, 300_000)]))

        finished = True
        async with served(answer, receive_buffer=4096, send_buffer=4096, cancel_at=cancel_at) as client:
            try:
                await client.send(PUT[:20])
                await trio.testing.wait_all_tasks_blocked()
                await client.send(PUT[20:])
                assert (await client.response())[0] == 100
                await client.send(b"01234")
                await trio.testing.wait_all_tasks_blocked()
                await client.send(b"56789")
                await client.read_until(b"\r\n\r\n")
                source.grow(bytes(299_900))
                source.finish()
                await client.read_exactly(300_001)
                client.sock.shutdown(trio.socket.SHUT_WR)
                assert await client.read_to_end() == b""
            except (OSError, AssertionError):
                finished = False
        assert cleanups == len(client.handler.requests)
        for _, response, _ in client.handler.ends:
            assert response is None or source.closed == 1
        source.close()
        return finished

    assert await cancelled_after_each_step(once) > 15
