"""Raw TCP from one socket to another, both ways, in the kernel.

Theory of operation.  One task serves both directions.  A `_Flow` is one direction: a synchronous machine that moves
bytes until the kernel says EAGAIN.  Between two rounds the task sleeps on an epoll descriptor of its own that holds
both sockets; trio sees only that one.  Against two tasks in a nursery this costs less for a short connection, and it
notices what they could not: a peer that resets while nobody reads from it, because epoll reports errors unasked.  The
sockets are registered once, for edges (EPOLLET): a flow remembers what it was told until the kernel says EAGAIN.

A flow begins by copying through a small buffer, which is all that most connections ever need, and makes a pipe once
there is bulk: then splice(2) moves pages from socket to pipe to socket, and no byte enters this process.  It takes in
more only when all it had has gone out, so a slow receiver slows its sender down.

How it ends: the end of one direction is passed on as FIN (half-close) and the other goes on; after both the tunnel is
done.  Anything else, a reset, silence for too long, cancellation, resets both sides: nobody may take a cut
connection for a finished one.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import trio
from trio.socket import SocketType

from mxart.errors import Disconnected

_BULK = 1 << 17  # bytes in one direction after which a pipe pays off
_BUFFER = 1 << 16  # bytes copied at a time before that
_PIPE = 1 << 20  # bytes; what an unprivileged process may ask for (proc(5), pipe-max-size)
_LEAST_PIPE = 1 << 16  # below this copying is faster
_ROUND = 1 << 22  # bytes a flow may move before the other one gets its turn
_HOLD_SECONDS = 0.002  # how long a tunnel may keep the loop while nothing makes it wait
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds: close(2) sends RST (socket(7), tcp(7))
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_MOVE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


@dataclass(slots=True)
class TunnelCounts:
    """Bytes delivered so far: `up` from the client to the target, `down` back."""

    up: int = 0
    down: int = 0


async def splice(
    client: SocketType, target: SocketType, idle_seconds: float, counts: TunnelCounts | None = None
) -> TunnelCounts:
    """Connect two TCP sockets until both directions have ended, and return how much went through.

    `counts` is kept up to date where it is given, so that it tells even after a failure.  Raises Disconnected when a
    side resets, or nothing moved either way for `idle_seconds`.  The sockets stay the caller's to close; after an
    error or cancellation both have been reset.
    """
    counts = TunnelCounts() if counts is None else counts
    up = _Flow(("the client", "the target"), client, target)
    down = _Flow(("the target", "the client"), target, client)
    watch = select.epoll()
    try:
        for side in (client, target):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.CancelScope(deadline=trio.current_time() + idle_seconds) as scope:
            await _run(watch, up, down, counts, scope, idle_seconds)
        if scope.cancelled_caught:
            raise Disconnected(f"nothing moved through the tunnel for {idle_seconds:g} s")
    except BaseException:
        _reset(client)
        _reset(target)
        raise
    finally:
        counts.up, counts.down = up.moved, down.moved
        watch.close()
        up.close()
        down.close()
    return counts


async def _run(
    watch: select.epoll, up: _Flow, down: _Flow, counts: TunnelCounts, scope: trio.CancelScope, idle_seconds: float
) -> None:
    client, target = up.source, down.source
    client_fd = client.fileno()
    watch.register(client_fd, _EDGES)
    watch.register(target.fileno(), _EDGES)
    since = perf_counter()
    armed = -math.inf
    while True:
        for descriptor, events in watch.poll(0):
            incoming, outgoing = (up, down) if descriptor == client_fd else (down, up)
            if events & select.EPOLLERR:
                incoming.check()
            if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
                incoming.readable = True
            if events & (select.EPOLLRDHUP | select.EPOLLHUP):
                incoming.ending = True
            if events & select.EPOLLOUT:
                outgoing.writable = True
        unfinished = up.move() | down.move()
        counts.up, counts.down = up.moved, down.moved
        if up.done and down.done:
            return
        if not unfinished:
            # Moving a deadline is dear for what happens so often: now and then is enough, if it is not early.
            now = trio.current_time()
            if now > armed + idle_seconds / 16:
                armed = now
                scope.deadline = now + idle_seconds * 17 / 16
            await trio.lowlevel.wait_readable(watch.fileno())
            since = perf_counter()
        elif perf_counter() - since > _HOLD_SECONDS:
            await trio.lowlevel.checkpoint()
            since = perf_counter()


class _Flow:
    """One direction. Owns its pipe, not the sockets."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_from",
        "_pipe",
        "_piped",
        "_pipes",
        "_sink",
        "_to",
        "_way",
        "done",
        "ending",
        "moved",
        "readable",
        "source",
        "writable",
    )

    def __init__(self, way: tuple[str, str], source: SocketType, sink: SocketType) -> None:
        self.source = source
        self._sink = sink
        self._way = way  # names of source and sink, for errors
        self._from, self._to = source.fileno(), sink.fileno()
        self.readable = False  # as far as is known: reading, or writing, is worth a try
        self.writable = True
        self.ending = False  # FIN has arrived, behind what is still to be read
        self._buffer: memoryview | None = None  # taken in by copying, not yet out
        self._pipes = True  # as long as no pipe was refused
        self._pipe: tuple[int, int] | None = None  # reading end, writing end
        self._piped = 0  # bytes in the pipe
        self._ended = False  # the source has been read to its end
        self.moved = 0
        self.done = False  # and the end was passed on

    def move(self) -> bool:
        """Move what can be moved without waiting. True if it stopped only to let others have their turn.

        Raises Disconnected.
        """
        limit = self.moved + _ROUND
        while not self.done:
            if self._piped or self._buffer is not None:
                if not self.writable:
                    return False
                self._give()
            elif self._ended:
                with suppress(OSError):  # a reset is noticed anyway, and there is nobody to tell otherwise
                    self._sink.shutdown(socket.SHUT_WR)
                self.done = True
            elif not self.readable:
                return False
            elif self.moved >= limit:
                return True
            else:
                self._take()
        return False

    def _take(self) -> None:
        if self._pipe is None and self._pipes and self.moved >= _BULK:
            self._pipe = _new_pipe()
            self._pipes = self._pipe is not None
        try:
            if self._pipe is not None:
                self._piped = os.splice(self._from, self._pipe[1], _PIPE, flags=_MOVE)
                self._ended = self._piped == 0
            elif data := os.read(self._from, _BUFFER):
                self._buffer = memoryview(data)
                # Less than asked for means that there is no more (epoll(7), question 9), but for the end.
                self.readable = self.ending or len(data) == _BUFFER
            else:
                self._ended = True
        except BlockingIOError:
            self.readable = False
        except OSError as error:
            raise Disconnected(f"{self._way[0]} broke the connection: {error.strerror}") from None

    def _give(self) -> None:
        try:
            if self._buffer is not None:
                count = os.write(self._to, self._buffer)
                self._buffer = self._buffer[count:] if count < len(self._buffer) else None
            else:
                assert self._pipe is not None
                count = os.splice(self._pipe[0], self._to, self._piped, flags=_MOVE)
                self._piped -= count
        except BlockingIOError:
            self.writable = False
        except OSError as error:
            raise Disconnected(f"{self._way[1]} broke the connection: {error.strerror}") from None
        else:
            self.moved += count

    def check(self) -> None:
        """Raises Disconnected if the source's connection is broken, whatever the flow is waiting for."""
        number = self.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise Disconnected(f"{self._way[0]} broke the connection: {os.strerror(number)}")

    def close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None


def _new_pipe() -> tuple[int, int] | None:
    """A large pipe; None if the system has none to give, or only one so small that copying is faster."""
    try:
        ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    # Refused when this user's pipes take too much memory already (pipe(7), pipe-user-pages-soft).
    with suppress(OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
    if fcntl.fcntl(ends[1], fcntl.F_GETPIPE_SZ) < _LEAST_PIPE:
        os.close(ends[0])
        os.close(ends[1])
        return None
    return ends


def _reset(sock: SocketType) -> None:
    """Close with RST. Idempotent."""
    if sock.fileno() >= 0:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
