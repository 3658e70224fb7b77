"""The tunnel between real sockets."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.socket import SocketType
from trio.testing import wait_all_tasks_blocked

from kit.descriptors import open_files
from kit.wire import tcp_pair
from mxart.errors import Disconnected
from mxart.proto.tunnel import TunnelCounts, splice

MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


@dataclass
class Tunnel:
    """A client and a target with a tunnel between them."""

    client: SocketType
    target: SocketType
    scope: trio.CancelScope
    counts: TunnelCounts = field(default_factory=TunnelCounts)
    ended: trio.Event = field(default_factory=trio.Event)
    error: str | None = None


@asynccontextmanager
async def tunnel(idle: float = 60.0, buffers: int = 0) -> AsyncIterator[Tunnel]:
    inner_client, client = tcp_pair(buffers, buffers)
    inner_target, target = tcp_pair(buffers, buffers)
    made = Tunnel(client, target, trio.CancelScope())

    async def run() -> None:
        with inner_client, inner_target, made.scope:
            try:
                assert await splice(inner_client, inner_target, idle, made.counts) is made.counts
            except Disconnected as error:
                made.error = str(error)
        made.ended.set()

    with client, target:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield made
            made.scope.cancel()


async def send(sock: SocketType, data: bytes, *, end: bool = True) -> None:
    view = memoryview(data)
    while view:
        view = view[await sock.send(view) :]
    if end:
        sock.shutdown(socket.SHUT_WR)


async def read_all(sock: SocketType, size: int = 65536) -> bytes:
    parts = []
    while part := await sock.recv(size):
        parts.append(part)
    return b"".join(parts)


def reset(sock: SocketType) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_question_and_answer() -> None:
    async with tunnel() as t:
        await send(t.client, b"question", end=False)
        assert await t.target.recv(100) == b"question"
        await send(t.target, b"answer", end=False)
        assert await t.client.recv(100) == b"answer"
        t.client.shutdown(socket.SHUT_WR)
        assert await t.target.recv(100) == b""
        t.target.shutdown(socket.SHUT_WR)
        assert await t.client.recv(100) == b""
        await t.ended.wait()
    assert (t.counts.up, t.counts.down, t.error) == (8, 6, None)


async def test_peeked_bytes_arrive_first() -> None:
    inner_client, client = tcp_pair()
    inner_target, target = tcp_pair()
    with client, target, inner_client, inner_target:
        await client.send(b"hello")
        assert await inner_client.recv(100, socket.MSG_PEEK) == b"hello"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(splice, inner_client, inner_target, 60)
            assert await target.recv(100) == b"hello"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [0, 1, 131_071, 131_072, 131_073, 20 * MEGABYTE])
async def test_both_directions_at_once_byte_for_byte(size: int) -> None:
    up, down = os.urandom(size), os.urandom(size)
    got: dict[str, bytes] = {}
    async with tunnel() as t:

        async def read(name: str, sock: SocketType) -> None:
            got[name] = await read_all(sock)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, t.client, up)
            nursery.start_soon(send, t.target, down)
            nursery.start_soon(read, "up", t.target)
            nursery.start_soon(read, "down", t.client)
        await t.ended.wait()
    assert got == {"up": up, "down": down}
    assert (t.counts.up, t.counts.down, t.error) == (size, size, None)


async def test_the_answer_goes_on_after_the_question_has_ended() -> None:
    """Half-close: rsync, some databases and `nc -N` live on it."""
    data = os.urandom(3 * MEGABYTE)
    async with tunnel() as t:
        await send(t.client, b"all of it")
        assert await read_all(t.target) == b"all of it"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, t.target, data)
            assert await read_all(t.client) == data
        await t.ended.wait()
    assert t.error is None


async def test_a_receiver_that_stalls_slows_the_sender_down_and_loses_nothing() -> None:
    data = os.urandom(8 * MEGABYTE)
    async with tunnel(buffers=65536) as t, trio.open_nursery() as nursery:
        nursery.start_soon(send, t.client, data)
        await wait_all_tasks_blocked(0.01)
        assert t.counts.up < 3 * MEGABYTE  # a pipe and some socket buffers
        assert await read_all(t.target, 10_000) == data


async def test_a_stalled_direction_does_not_hold_the_other() -> None:
    async with tunnel(buffers=65536) as t, trio.open_nursery() as nursery:
        nursery.start_soon(send, t.client, bytes(4 * MEGABYTE))
        await wait_all_tasks_blocked(0.01)
        await send(t.target, b"meanwhile", end=False)
        assert await t.client.recv(100) == b"meanwhile"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bulk", [0, 1 * MEGABYTE], ids=["copying", "splicing"])
@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_reset_is_passed_on_as_a_reset(who: str, bulk: int) -> None:
    async with tunnel() as t:
        left, right = (t.client, t.target) if who == "client" else (t.target, t.client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(left, bytes(bulk), end=False))
            for _ in range(bulk // 1000):
                await receive_exactly(right, 1000)
        reset(left)
        with pytest.raises(ConnectionResetError):
            await right.recv(100)
        await t.ended.wait()
    assert t.error is not None
    assert t.error.startswith(f"the {who} broke the connection: ")


async def receive_exactly(sock: SocketType, count: int) -> None:
    while count:
        count -= len(await sock.recv(count))


async def test_a_client_that_asked_and_was_killed_is_noticed_while_the_target_thinks() -> None:
    """After its FIN nobody reads from it any more; only epoll tells."""
    async with tunnel() as t:
        await send(t.client, b"question")
        assert await read_all(t.target) == b"question"
        reset(t.client)
        await t.ended.wait()
        with pytest.raises(BrokenPipeError):  # what send(2) says of a reset after the other's FIN
            await t.target.send(b"answer")
    assert t.error is not None
    assert t.error.startswith("the client broke the connection")


async def test_a_sender_that_is_killed_is_noticed_while_the_receiver_stalls() -> None:
    async with tunnel(buffers=65536) as t, trio.open_nursery() as nursery:

        async def send_until_closed() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await send(t.client, bytes(40 * MEGABYTE))

        nursery.start_soon(send_until_closed)
        await wait_all_tasks_blocked(0.01)
        reset(t.client)
        await t.ended.wait()
    assert t.error is not None
    assert t.error.startswith("the client broke the connection")


async def test_one_side_closes_altogether_while_the_other_still_takes_its_bytes() -> None:
    """Both FINs have gone one way and the other is stuck: epoll says HUP for ever, and must not be listened to."""
    data = os.urandom(4 * MEGABYTE)
    async with tunnel(buffers=65536) as t, trio.open_nursery() as nursery:
        t.target.shutdown(socket.SHUT_WR)
        assert await t.client.recv(1) == b""
        nursery.start_soon(send, t.client, data)
        await wait_all_tasks_blocked(0.01)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        await wait_all_tasks_blocked(0.05)  # would never come if the tunnel spun
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.5
        assert await read_all(t.target) == data
        await t.ended.wait()
    assert (t.error, t.counts.up) == (None, len(data))


async def test_silence_ends_it_and_neither_side_takes_that_for_an_end() -> None:
    async with tunnel(idle=0.03) as t:
        await t.ended.wait()
        for side in (t.client, t.target):
            with pytest.raises(ConnectionResetError):
                await side.recv(1)
    assert t.error == "nothing moved through the tunnel for 0.03 s"


async def test_bytes_in_one_direction_keep_both_alive() -> None:
    async with tunnel(idle=0.2) as t:
        started = trio.current_time()
        while trio.current_time() < started + 0.4:
            await send(t.target, b".", end=False)
            assert await t.client.recv(1) == b"."
        assert not t.ended.is_set()


@pytest.mark.parametrize("bulk", [0, 10, 4 * MEGABYTE], ids=["idle", "copying", "splicing"])
async def test_cancelled_at_any_stage_it_resets_both_sides(bulk: int) -> None:
    async with tunnel(buffers=65536) as t, trio.open_nursery() as nursery:

        async def send_until_reset() -> None:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await send(t.client, bytes(10 * bulk))

        if bulk > 10:
            nursery.start_soon(send_until_reset)
        elif bulk:
            await t.client.send(bytes(bulk))
        await wait_all_tasks_blocked(0.01)
        t.scope.cancel()
        await t.ended.wait()
        with pytest.raises(ConnectionResetError):
            await read_all(t.target)


async def test_without_descriptors_for_a_pipe_it_goes_on_copying() -> None:
    data = os.urandom(4 * MEGABYTE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with tunnel() as t:
        await wait_all_tasks_blocked()
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files(), hard))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, t.client, data)
                assert await read_all(t.target) == data
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert t.error is None


async def test_many_small_tunnels_at_once() -> None:
    async def one(number: int) -> None:
        data = os.urandom(number * 1000)
        async with tunnel() as t, trio.open_nursery() as nursery:
            nursery.start_soon(send, t.client, data)
            assert await read_all(t.target) == data

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)


async def test_bulk_in_one_tunnel_and_the_end_of_another_hold_up_no_third() -> None:
    """One task moves the bytes of all."""
    async with tunnel() as busy, tunnel() as broken, tunnel() as t, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await busy.client.send(bytes(MEGABYTE))

        nursery.start_soon(flood)
        nursery.start_soon(read_all, busy.target, MEGABYTE)
        for number in range(100):
            if number == 50:
                reset(broken.client)
                await broken.ended.wait()
            await send(t.client, b"%d" % number, end=False)
            assert await t.target.recv(100) == b"%d" % number
        assert busy.counts.up > MEGABYTE
        nursery.cancel_scope.cancel()
    assert broken.error is not None
    assert (t.error, busy.error) == (None, None)
