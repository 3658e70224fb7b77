"""Bytes between a stream of an HTTP connection and a TCP socket, both ways, by copying.

What splice(2) cannot do: one side is framed or sealed by this program.  Each direction reads more only when
what it had is gone, so a slow receiver slows its sender down.  The end of one direction is passed on, and the other
goes on.  Whatever else happens, a reset, silence for too long, cancellation, resets the socket, and is
raised to whoever owns the stream, so that nobody takes a cut connection for a finished one.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from trio.socket import SocketType

from mxart.errors import Disconnected
from mxart.proto.tunnel import TunnelCounts
from mxart.takeover import Duplex

_READ = 65536
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds: close(2) sends RST (socket(7), tcp(7))


async def bridge(
    duplex: Duplex,
    sock: SocketType,
    idle_seconds: float | None,
    counts: TunnelCounts,
    *,
    linger_seconds: float = math.inf,
) -> None:
    """Carry bytes until both directions have ended. `counts.up` are those to the socket.

    `linger_seconds`: for how long the stream may go on when the socket has ended; it counts as ended after that.
    Raises Disconnected when a side breaks, or nothing moved for `idle_seconds` (None: it may be silent for ever); then,
    and when cancelled, the socket has been reset.  The stream stays the caller's.
    """
    failed: list[Disconnected] = []
    try:
        with trio.CancelScope() as scope:
            armed = -math.inf

            def moved() -> None:
                # Moving a deadline is dear for what happens so often: now and then is enough, if it is not early.
                nonlocal armed
                if idle_seconds is not None and (now := trio.current_time()) > armed + idle_seconds / 16:
                    armed = now
                    scope.deadline = now + idle_seconds * 17 / 16

            moved()
            async with trio.open_nursery() as nursery:

                async def run(direction: _Direction) -> None:
                    try:
                        await direction(duplex, sock, counts, moved)
                    except Disconnected as error:
                        failed.append(error)
                        nursery.cancel_scope.cancel()

                nursery.start_soon(run, _up)
                await run(_down)
                nursery.cancel_scope.deadline = trio.current_time() + linger_seconds
        if failed:
            raise failed[0]
        if scope.cancelled_caught:
            raise Disconnected(f"nothing moved through the tunnel for {idle_seconds:g} s")
    except BaseExceptionGroup as group:
        _reset(sock)
        await raise_alone(group)
        raise
    except BaseException:
        _reset(sock)
        raise


async def raise_alone(group: BaseExceptionGroup) -> None:
    """Raise Cancelled instead of a nursery's group of nothing else; return if there is more in it."""
    if group.split(trio.Cancelled)[1] is None:
        await trio.lowlevel.checkpoint_if_cancelled()


_Direction = Callable[[Duplex, SocketType, TunnelCounts, Callable[[], None]], Awaitable[None]]


async def _up(duplex: Duplex, sock: SocketType, counts: TunnelCounts, moved: Callable[[], None]) -> None:
    while data := await duplex.receive_some():
        moved()
        left = memoryview(data)
        while left:
            try:
                sent = await sock.send(left)
            except OSError as error:
                raise _broken(error) from None
            left = left[sent:]
            counts.up += sent
            moved()
    with suppress(OSError):  # a reset is noticed by the other direction
        sock.shutdown(socket.SHUT_WR)


async def _down(duplex: Duplex, sock: SocketType, counts: TunnelCounts, moved: Callable[[], None]) -> None:
    while True:
        try:
            data = await sock.recv(_READ)
        except OSError as error:
            raise _broken(error) from None
        if not data:
            break
        moved()
        await duplex.send_all(data)
        counts.down += len(data)
        moved()
    await duplex.send_eof()


def _broken(error: OSError) -> Disconnected:
    return Disconnected(f"the target broke the connection: {os.strerror(error.errno or 0)}")


def _reset(sock: SocketType) -> None:
    if sock.fileno() >= 0:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
