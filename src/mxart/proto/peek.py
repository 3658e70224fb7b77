"""Look at a connection's first bytes without taking them.

Theory of operation.  `recv(MSG_PEEK)` leaves the bytes in the kernel, so that OpenSSL can read the hello
straight from the descriptor, and a tunnel can splice from the very first byte.  The price: a socket with
unread bytes is readable, so waiting for *more* of them would return at once and spin.  Hence
SO_RCVLOWAT: the kernel calls the socket readable only when that many bytes are there (epoll heeds it
for TCP since Linux 4.17), or when the peer has finished or reset, which must be told apart: the bytes stay the
same, and poll(2) says POLLRDHUP.  The mark is put back to 1 before anybody else reads.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import TypeVar

import trio
from trio.socket import SocketType

from mxart.errors import Disconnected

T = TypeVar("T")

_FIRST_LOOK = 4096  # bytes: nearly every hello and request line is shorter


async def peek_until(
    sock: socket.socket | SocketType,
    decide: Callable[[bytes], T | None],
    *,
    deadline: float,
    max_bytes: int,
    missing: Callable[[bytes], int] | None = None,
) -> T:
    """Wait until `decide` makes something of the first bytes, and return that. Nothing is consumed.

    The socket is non-blocking; with one that is not trio's, bytes that are there cost no round of the scheduler.
    `decide` sees all bytes from the start each time; what it raises goes up.  After it gave None, `missing` may
    tell how many more bytes are needed at least.  `deadline` is of `trio.current_time()`, the caller's for all
    that it does before the connection is in use.  Raises Disconnected when the peer leaves, resets, lets the
    deadline pass, or sends `max_bytes` that decide nothing.  Cancellation leaves the socket as it was.
    """
    seen, wanted = 0, 1
    raised_mark = False
    try:
        while True:
            data = await _peek(sock, min(max_bytes, max(_FIRST_LOOK, 2 * seen, wanted)), deadline)
            decided = decide(data) if data else None
            if decided is not None:
                return decided
            if not data or (len(data) <= seen and _peer_finished(sock)):
                raise Disconnected("the client left before it said what it wants")
            if len(data) >= max_bytes:
                raise Disconnected(f"the first {max_bytes} bytes do not say what the client wants")
            seen = len(data)
            wanted = min(max_bytes, seen + (1 if missing is None else max(1, missing(data))))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            raised_mark = True
            await _wait_readable(sock, deadline)
    except OSError as error:
        raise Disconnected(f"the client left before it said what it wants: {error.strerror}") from error
    finally:
        if raised_mark and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def consume(sock: socket.socket | SocketType, count: int) -> None:
    """Take exactly `count` bytes that have been peeked at. Raises Disconnected. Does not wait for the peer."""
    while count > 0:
        try:
            taken = len(sock.recv(count) if isinstance(sock, socket.socket) else await sock.recv(count))
        except OSError as error:
            raise Disconnected(f"the client left: {error.strerror}") from error
        if taken == 0:
            raise Disconnected("the client left")
        count -= taken


async def _peek(sock: socket.socket | SocketType, size: int, deadline: float) -> bytes:
    """All bytes that are there, waiting for the first one only."""
    while isinstance(sock, socket.socket):
        try:
            return sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            await _wait_readable(sock, deadline)
    with trio.CancelScope(deadline=deadline):
        return await sock.recv(size, socket.MSG_PEEK)
    raise Disconnected(_TOO_SLOW)


async def _wait_readable(sock: socket.socket | SocketType, deadline: float) -> None:
    with trio.CancelScope(deadline=deadline):
        await trio.lowlevel.wait_readable(sock)
        return
    raise Disconnected(_TOO_SLOW)


_TOO_SLOW = "the client took too long to say what it wants"


def _peer_finished(sock: socket.socket | SocketType) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
