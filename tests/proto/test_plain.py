from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.descriptors import open_files
from kit.wire import PEER, tcp_pair
from mxart.errors import BodyBroken, Disconnected
from mxart.proto.plain import PlainTransport
from mxart.proto.transport import Transport


async def read_to_end(sock: trio.socket.SocketType) -> bytes:
    got = bytearray()
    while data := await sock.recv(1 << 20):
        got += data
    return bytes(got)


async def test_bytes_pass_both_ways_and_small_ones_at_once() -> None:
    before = open_files()
    server, client = tcp_pair()
    transport: Transport = PlainTransport(server, PEER, 5)
    await client.send(b"ping")
    assert await transport.receive_some() == b"ping"
    await transport.send_all(b"pong")
    assert await client.recv(10) == b"pong"
    assert transport.protocol == ""
    assert transport.peer is PEER
    client.shutdown(socket.SHUT_WR)
    assert await transport.receive_some() == b""
    await transport.aclose()
    await transport.aclose()
    transport.abort()
    assert await client.recv(10) == b""
    client.close()
    assert open_files() == before


async def test_more_than_the_kernel_holds_arrives_in_order() -> None:
    server, client = tcp_pair(receive_buffer=4096, send_buffer=4096)
    transport = PlainTransport(server, PEER, 5)
    data = os.urandom(3_000_000)
    got = b""

    async def read() -> None:
        nonlocal got
        got = await read_to_end(client)
        client.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await transport.send_all(data[:1_000_000])
        await transport.send_all(memoryview(data)[1_000_000:2_000_000])
        await transport.send_all(bytearray(data[2_000_000:]))
        await transport.aclose()
    assert got == data


async def test_a_file_is_sent_from_any_offset(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(data)
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    got = b""

    async def read() -> None:
        nonlocal got
        got = await read_to_end(client)
        client.close()

    with (tmp_path / "file").open("rb") as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await transport.send_file(file.fileno(), 17, 4_000_000)
            await transport.aclose()
    assert got == data[17:4_000_017]


async def test_a_file_that_ends_early_is_a_broken_body(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    with (tmp_path / "file").open("rb") as file, pytest.raises(BodyBroken, match="4 bytes too early"):
        await transport.send_file(file.fileno(), 0, 9)
    transport.abort()
    client.close()


async def test_the_end_of_the_peer_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    PlainTransport(client, PEER, 5).abort()
    with pytest.raises(Disconnected, match="reset"):
        await transport.receive_some()
    with pytest.raises(Disconnected, match="the peer closed"):
        await transport.send_all(b"x")
    with (tmp_path / "file").open("rb") as file, pytest.raises(Disconnected, match="the peer closed"):
        await transport.send_file(file.fileno(), 0, 100)
    transport.abort()
    for attempt in (transport.receive_some(), transport.send_all(b"x")):
        with pytest.raises(Disconnected, match="closed here"):
            await attempt


async def test_what_the_kernel_does_not_take_at_once_is_given_back() -> None:
    server, client = tcp_pair(receive_buffer=4096, send_buffer=4096)
    transport = PlainTransport(server, PEER, 5)
    assert not transport.send_nowait(b"small")
    data = bytes(range(256)) * 40_000
    rest = transport.send_nowait(data)
    assert 0 < len(rest) < len(data)
    while len(left := transport.send_nowait(rest)) < len(rest):  # the kernel hands on in its own time
        rest = left
    got = b""

    async def read() -> None:
        nonlocal got
        got = await read_to_end(client)
        client.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await transport.send_all(rest)
        await transport.aclose()
    assert got == b"small" + data
    with pytest.raises(Disconnected, match="closed here"):
        transport.send_nowait(b"x")


async def test_abort_is_seen_as_a_reset_even_after_data() -> None:
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    await transport.send_all(b"half of it")
    transport.abort()
    with pytest.raises(ConnectionResetError):
        await read_to_end(client)
    client.close()


async def test_abort_ends_a_wait_of_another_task() -> None:
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    told: list[str] = []

    async def wait() -> None:
        try:
            await transport.receive_some()
        except Disconnected as error:
            told.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.abort()
    assert told == ["the connection is closed here"]
    client.close()


async def test_an_answer_is_not_lost_though_the_request_was_not_read() -> None:
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    await client.send(b"a body that nobody reads" * 1000)
    await transport.send_all(b"the answer")
    got = b""

    async def read() -> None:
        nonlocal got
        got = await read_to_end(client)  # a reset would raise here
        client.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.aclose)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
    assert got == b"the answer"


async def test_silence_ends_a_receive() -> None:
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 0.05)
    with pytest.raises(Disconnected, match=r"sent nothing for 0\.05 s"):
        await transport.receive_some()
    with pytest.raises(Disconnected, match=r"sent nothing for 0\.01 s"):
        await transport.receive_some(timeout=0.01)
    await client.send(b"late")
    assert await transport.receive_some() == b"late", "nothing was lost"
    transport.abort()
    client.close()


async def test_a_peer_that_takes_nothing_ends_a_send(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(20_000_000))
    for from_file in (False, True):
        server, client = tcp_pair(receive_buffer=4096, send_buffer=4096)
        transport = PlainTransport(server, PEER, 0.1)
        with (tmp_path / "file").open("rb") as file:
            if from_file:
                sending = transport.send_file(file.fileno(), 0, 20_000_000)
            else:
                sending = transport.send_all(bytes(20_000_000))
            with pytest.raises(Disconnected, match=r"took nothing for 0\.1 s"):
                await sending
        transport.abort()
        client.close()


async def test_a_peer_that_takes_a_little_is_waited_for() -> None:
    """So little that the socket does not become writable within the progress timeout, but something moves."""
    server, client = tcp_pair(receive_buffer=4096, send_buffer=1_000_000)
    transport = PlainTransport(server, PEER, 0.3)
    size = 2_100_000
    done = trio.Event()

    async def send() -> None:
        await transport.send_all(bytes(size))
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        begun = trio.current_time()
        got = 0
        while trio.current_time() < begun + 1.3:
            await trio.sleep(0.02)
            got += len(await client.recv(2048))
        assert not done.is_set(), "the test's own assumption: the buffers are full all the time"
        while got < size:
            got += len(await client.recv(1 << 20))
    assert done.is_set()
    transport.abort()
    client.close()


async def test_a_connection_that_never_waits_lets_others_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    await client.send(bytes(1000))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with (tmp_path / "file").open("rb") as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            for number in range(999):
                turns_before = turns
                await transport.receive_some(1)
                if number % 300 == 299:
                    assert turns > 3
            for _ in range(300):
                await transport.send_all(b"x")
            after_sends = turns
            for _ in range(300):
                await transport.send_file(file.fileno(), 0, 10)
            assert turns > after_sends > turns_before
            nursery.cancel_scope.cancel()
    transport.abort()
    client.close()


async def test_a_cancelled_receive_loses_nothing() -> None:
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 5)
    got = b""
    for _ in range(300):
        await client.send(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            got += await transport.receive_some()
        with trio.move_on_after(0):
            got += await transport.receive_some()
    client.shutdown(socket.SHUT_WR)
    while data := await transport.receive_some():
        got += data
    assert got == b"x" * 300
    transport.abort()
    client.close()


async def test_closing_is_bounded_and_done_even_when_cancelled() -> None:
    before = open_files()
    server, client = tcp_pair()
    transport = PlainTransport(server, PEER, 60)

    async def flood() -> None:
        try:
            while True:
                await client.send(bytes(65536))
        except OSError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        begun = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert trio.current_time() - begun < 3
    client.close()
    assert open_files() == before
