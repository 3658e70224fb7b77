"""Raw TCP from one socket to another, both ways, in the kernel.

Theory of operation.  A `_Flow` is one direction: a synchronous machine that moves bytes until the kernel says EAGAIN.
One task a run of trio, the `Mover`, waits on an epoll descriptor of its own for all tunnels at once, and lets the
flows move; the task of a tunnel sleeps until the mover wakes it at the end.  So a tunnel costs no descriptor and one
switch of tasks, and it is noticed what a task that reads could not: a peer that resets while nobody reads from it,
because epoll reports errors unasked.  The sockets are registered once, for edges (EPOLLET): a flow remembers what it
was told until the kernel says EAGAIN.

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
from time import perf_counter

import trio
from msgspec import Struct
from trio.socket import SocketType

from mxart.errors import Disconnected

Sock = socket.socket | SocketType
"""A connected, non-blocking TCP socket."""

_BULK = 1 << 17  # bytes in one direction after which a pipe pays off
_BUFFER = 1 << 16  # bytes copied at a time before that
_PIPE = 1 << 20  # bytes; what an unprivileged process may ask for (proc(5), pipe-max-size)
_LEAST_PIPE = 1 << 16  # below this copying is faster
_ROUND = 1 << 22  # bytes a flow may move before the other one gets its turn
_HOLD_SECONDS = 0.002  # how long the tunnels may keep the loop while nothing makes them wait
_AT_ONCE = 64  # sockets asked about together
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds: close(2) sends RST (socket(7), tcp(7))
_READING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_BOTH = _READING | select.EPOLLOUT
_MOVE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class TunnelCounts(Struct):
    """Bytes delivered so far: `up` from the client to the target, `down` back."""

    up: int = 0
    down: int = 0


async def splice(client: Sock, target: Sock, idle_seconds: float, counts: TunnelCounts | None = None) -> TunnelCounts:
    """Connect two TCP sockets until both directions have ended, and return how much went through.

    `counts` is kept up to date where it is given, so that it tells even after a failure.  Raises Disconnected when a
    side resets, or nothing moved either way for `idle_seconds`.  The sockets stay the caller's to close; after an
    error or cancellation both have been reset.
    """
    tunnel = _Tunnel(client, target, idle_seconds, TunnelCounts() if counts is None else counts)
    try:
        for side in (client, target):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.CancelScope(deadline=trio.current_time() + idle_seconds) as tunnel.scope:
            await mover().carry(tunnel)
        if tunnel.scope.cancelled_caught:
            raise Disconnected(f"nothing moved through the tunnel for {idle_seconds:g} s")
    except BaseException:
        _reset(client)
        _reset(target)
        raise
    finally:
        tunnel.close()
    return tunnel.counts


class _Tunnel:
    """Both directions, and the task that waits for their end."""

    __slots__ = ("_armed", "_idle_seconds", "client", "counts", "down", "error", "scope", "target", "task", "up")

    def __init__(self, client: Sock, target: Sock, idle_seconds: float, counts: TunnelCounts) -> None:
        self.client, self.target = client.fileno(), target.fileno()
        self.up = _Flow(("the client", "the target"), client, target)
        self.down = _Flow(("the target", "the client"), target, client)
        self.scope: trio.CancelScope | None = None
        self.task: trio.lowlevel.Task | None = None  # None: there is nobody to wake
        self.error: Exception | None = None  # what it is to raise
        self.counts = counts
        self._idle_seconds = idle_seconds
        self._armed = -math.inf

    @property
    def done(self) -> bool:
        return self.up.done and self.down.done

    def heed(self, descriptor: int, events: int) -> None:
        """Take note of what epoll tells about a socket."""
        incoming, outgoing = (self.up, self.down) if descriptor == self.client else (self.down, self.up)
        if events & select.EPOLLERR:
            incoming.broken = True
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
            incoming.readable = True
        if events & (select.EPOLLRDHUP | select.EPOLLHUP):
            incoming.ending = True
        if events & select.EPOLLOUT:
            outgoing.writable = True

    def move(self) -> bool:
        """Move what can be moved without waiting. True if there may be more. Raises Disconnected."""
        up, down = self.up, self.down
        try:
            unfinished = up.move() | down.move()
        finally:
            self.counts.up, self.counts.down = up.moved, down.moved
        # Moving a deadline is dear for what happens so often: now and then is enough, if it is not early.
        now = trio.current_time()
        if self.scope is not None and now > self._armed + self._idle_seconds / 16:
            self._armed = now
            self.scope.deadline = now + self._idle_seconds * 17 / 16
        return unfinished

    def close(self) -> None:
        self.up.close()
        self.down.close()


class Mover:
    """Moves the bytes of all tunnels of one run of trio."""

    def __init__(self) -> None:
        self._watch = select.epoll()
        self._tunnels: dict[int, _Tunnel] = {}  # by either socket

    async def carry(self, tunnel: _Tunnel) -> None:
        """Wait until a tunnel has ended. Raises Disconnected."""
        tunnel.up.readable = True  # most clients have spoken by now: their words go without a wake-up
        tunnel.move()
        tunnel.task = trio.lowlevel.current_task()
        sides = ((tunnel.client, tunnel.down), (tunnel.target, tunnel.up))
        try:
            for descriptor, outgoing in sides:
                self._tunnels[descriptor] = tunnel
                # It tells what has come since, too.
                self._watch.register(descriptor, _READING if outgoing.writable else _BOTH)
                outgoing.watch = self._watch

            def abort(_: object) -> trio.lowlevel.Abort:
                tunnel.task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
            if tunnel.error is not None:
                raise tunnel.error
        finally:
            for descriptor, _ in sides:
                if self._tunnels.pop(descriptor, None) is not None:
                    with suppress(OSError):
                        self._watch.unregister(descriptor)

    async def run(self) -> None:
        """Until the end of all."""
        with self._watch:
            pending: dict[_Tunnel, None] = {}
            since = 0.0
            while True:
                if not pending:
                    await trio.lowlevel.wait_readable(self._watch.fileno())
                    since = perf_counter()
                for descriptor, events in self._watch.poll(0, _AT_ONCE):
                    told = self._tunnels.get(descriptor)
                    if told is not None:
                        told.heed(descriptor, events)
                        pending[told] = None
                for tunnel in tuple(pending):
                    if not self._step(tunnel):
                        del pending[tunnel]
                    if perf_counter() - since > _HOLD_SECONDS:
                        await trio.lowlevel.checkpoint()
                        since = perf_counter()

    def _step(self, tunnel: _Tunnel) -> bool:
        """Whether it has more to do."""
        task = tunnel.task
        if task is None:
            return False
        try:
            if tunnel.move():
                return True
            if not tunnel.done:
                return False
        except Exception as error:  # noqa: BLE001  # its own task raises it
            tunnel.error = error
        tunnel.task = None
        trio.lowlevel.reschedule(task)
        return False


_movers: trio.lowlevel.RunVar[Mover] = trio.lowlevel.RunVar("tunnels")


def mover() -> Mover:
    """The one of this run of trio, with its descriptor; the first tunnel starts it, and it stays to the end."""
    try:
        return _movers.get()
    except LookupError:
        made = Mover()
        _movers.set(made)
        trio.lowlevel.spawn_system_task(made.run, name="tunnels")
        return made


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
        "_source",
        "_to",
        "_way",
        "broken",
        "done",
        "ending",
        "moved",
        "readable",
        "watch",
        "writable",
    )

    def __init__(self, way: tuple[str, str], source: Sock, sink: Sock) -> None:
        self._source = source
        self._sink = sink
        self._way = way  # names of source and sink, for errors
        self._from, self._to = source.fileno(), sink.fileno()
        self.readable = False  # as far as is known: reading, or writing, is worth a try
        self.writable = True
        self.broken = False  # epoll says so of the source
        self.watch: select.epoll | None = None  # that has the sink, and must be asked to tell of room there
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
        if self.broken:
            self._check()
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
            if self.watch is not None:
                self.watch.modify(self._to, _BOTH)
                self.watch = None
        except OSError as error:
            raise Disconnected(f"{self._way[1]} broke the connection: {error.strerror}") from None
        else:
            self.moved += count

    def _check(self) -> None:
        """Raises Disconnected if the source's connection is broken, whatever the flow is waiting for."""
        self.broken = False
        number = self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
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


def _reset(sock: Sock) -> None:
    """Close with RST. Idempotent."""
    if sock.fileno() >= 0:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
