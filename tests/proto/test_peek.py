"""Peeking at real sockets: nothing is taken, nothing spins, nothing waits longer than it may."""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kit.descriptors import open_files
from kit.wire import tcp_pair
from mxart.errors import Disconnected
from mxart.proto.peek import consume, peek_until
from mxart.proto.proxy_header import parse_proxy_header


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


class Ten:
    """Decides on ten bytes, and counts how often it was asked."""

    def __init__(self, *, tells: bool = False) -> None:
        self.asked = 0
        self.missing = self._missing if tells else None

    def decide(self, data: bytes) -> bytes | None:
        self.asked += 1
        return data[:10] if len(data) >= 10 else None

    def _missing(self, data: bytes) -> int:
        return 10 - len(data)


def soon() -> float:
    return trio.current_time() + 5


def as_accepted(sock: trio.socket.SocketType) -> socket.socket:
    """The same connection as a socket that is not trio's."""
    raw = socket.socket(fileno=sock.detach())
    raw.setblocking(False)
    return raw


@pytest.mark.parametrize("own", [False, True])
async def test_bytes_that_come_one_by_one_are_looked_at_and_left(own: bool) -> None:
    accepted, theirs = tcp_pair()
    ours = accepted if own else as_accepted(accepted)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ten = Ten()
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            async def peek() -> None:
                assert await peek_until(ours, ten.decide, deadline=soon(), max_bytes=100) == b"0123456789"

            nursery.start_soon(peek)
            for byte in b"0123456789abc":
                await theirs.send(bytes([byte]))
                await wait_all_tasks_blocked()
        assert ten.asked == 10
        assert await peek_until(ours, lambda data: data, deadline=soon(), max_bytes=100) == b"0123456789abc"
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_whoever_knows_how_much_is_missing_is_not_woken_before() -> None:
    ours, theirs = tcp_pair()
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ten = Ten(tells=True)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: peek_until(ours, ten.decide, deadline=soon(), max_bytes=100, missing=ten.missing)
            )
            for byte in b"0123456789":
                await theirs.send(bytes([byte]))
                await wait_all_tasks_blocked()
        assert ten.asked == 2


async def test_waiting_for_more_does_not_spin() -> None:
    ours, theirs = tcp_pair()
    ten = Ten()
    with ours, theirs:
        await theirs.send(b"half")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with pytest.raises(Disconnected, match="too long"):
            await peek_until(ours, ten.decide, deadline=trio.current_time() + 0.1, max_bytes=100)
        assert ten.asked == 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.05
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_more_than_the_first_look_takes() -> None:
    ours, theirs = tcp_pair()
    data = bytes(60_000)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.SocketStream(theirs).send_all, data)
            found = await peek_until(
                ours, lambda seen: len(seen) if len(seen) == len(data) else None, deadline=soon(), max_bytes=65536
            )
        assert found == len(data)


@pytest.mark.parametrize("sent", [b"", b"half"])
async def test_a_silent_client_meets_the_deadline(sent: bytes) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        await theirs.send(sent)
        with pytest.raises(Disconnected, match="too long"):
            await peek_until(ours, Ten().decide, deadline=trio.current_time() + 0.02, max_bytes=100)


@pytest.mark.parametrize("sent", [b"", b"half"])
@pytest.mark.parametrize("later", [False, True])
async def test_a_client_that_leaves_is_noticed_at_once(sent: bytes, later: bool) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs, trio.fail_after(2):
        await theirs.send(sent)
        if not later:
            theirs.shutdown(socket.SHUT_WR)
        async with trio.open_nursery() as nursery:

            async def peek() -> None:
                with pytest.raises(Disconnected, match="left before"):
                    await peek_until(ours, Ten().decide, deadline=soon(), max_bytes=100)

            nursery.start_soon(peek)
            await wait_all_tasks_blocked()
            if later:
                theirs.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("sent", [b"", b"half"])
async def test_a_reset_is_noticed_at_once(sent: bytes) -> None:
    ours, theirs = tcp_pair()
    with ours, trio.fail_after(2):
        await theirs.send(sent)
        async with trio.open_nursery() as nursery:

            async def peek() -> None:
                with pytest.raises(Disconnected):
                    await peek_until(ours, Ten().decide, deadline=soon(), max_bytes=100)

            nursery.start_soon(peek)
            await wait_all_tasks_blocked()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()


async def test_a_client_that_said_enough_and_left_is_still_served() -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        await theirs.send(b"0123456789")
        theirs.shutdown(socket.SHUT_WR)
        assert await peek_until(ours, Ten().decide, deadline=soon(), max_bytes=100) == b"0123456789"


async def test_a_flood_that_decides_nothing_ends_at_the_bound() -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        await theirs.send(bytes(50_000))
        with pytest.raises(Disconnected, match="first 20000 bytes"):
            await peek_until(ours, lambda _: None, deadline=soon(), max_bytes=20_000)


async def test_what_the_decision_raises_goes_up_and_the_mark_is_put_back() -> None:
    ours, theirs = tcp_pair()

    def decide(data: bytes) -> None:
        if len(data) > 4:
            raise ValueError("wrong")

    with ours, theirs:
        await theirs.send(b"half")
        async with trio.open_nursery() as nursery:

            async def peek() -> None:
                with pytest.raises(ValueError, match="wrong"):
                    await peek_until(ours, decide, deadline=soon(), max_bytes=100)

            nursery.start_soon(peek)
            await wait_all_tasks_blocked()
            await theirs.send(b"x")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_cancelled_it_leaves_the_socket_as_it_was() -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        await theirs.send(b"half")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: peek_until(ours, Ten().decide, deadline=soon(), max_bytes=100))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        assert await ours.recv(10) == b"half"


@pytest.mark.parametrize("own", [False, True])
async def test_a_proxy_header_is_taken_and_not_a_byte_more(own: bool) -> None:
    """From a socket of trio's, or from the one that accept(2) gave."""
    accepted, theirs = tcp_pair()
    ours = accepted if own else as_accepted(accepted)
    with ours, theirs:
        await theirs.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n")
        header = await peek_until(ours, parse_proxy_header, deadline=soon(), max_bytes=100)
        await consume(ours, header.consumed)
        assert await peek_until(ours, lambda data: data, deadline=soon(), max_bytes=100) == b"GET / HTTP/1.1\r\n"
        await consume(ours, 16)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(Disconnected):
            await consume(ours, 1)
