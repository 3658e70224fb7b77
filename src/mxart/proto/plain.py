"""Plain TCP as a transport: sendfile(2), and no wait that is not needed.

Theory of operation.  Each call first tries the system call on the non-blocking socket, and asks
trio to wait only when the kernel says EAGAIN.  A connection that never meets EAGAIN (a fast client
that pipelines, a download over loopback) would so hold the loop for good; therefore every attempt
counts, and after a few of them, or a few milliseconds, the task gives way once, before its next
system call: never after one, so that a cancelled receive has taken nothing from the socket.

A slow reader is not a stalled one.  The kernel calls a socket writable only when a good part of its
buffer is free, which at 1 KB/s can take many minutes; so when the wait runs out, the number of
bytes that the peer has not acknowledged yet decides whether something moved.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from time import perf_counter

import trio

from mxart.errors import BodyBroken, Disconnected
from mxart.message import Peer

_STEP = 1 << 20  # bytes that one sendfile(2) may move while the loop waits
_BURST = 64  # system calls in a row without giving way,
_BURST_SECONDS = 0.002  # and how long they may last together
_LINGER_SECONDS = 2.0  # how long a closed connection waits for the client's own end
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds: close(2) sends RST (socket(7), tcp(7))

_REASONS = {
    errno.ECONNRESET: "the peer reset the connection",
    errno.EPIPE: "the peer closed the connection",
    errno.ETIMEDOUT: "the peer stopped acknowledging",
    errno.ECONNABORTED: "the connection was aborted",
    errno.EHOSTUNREACH: "the peer cannot be reached any more",
    errno.ENETUNREACH: "the peer cannot be reached any more",
    errno.ENOTCONN: "the peer is gone",
    errno.EBADF: "the connection is closed here",
}
_FILE_ERRORS = frozenset({errno.EIO, errno.EINVAL, errno.EOVERFLOW})  # sendfile(2): about the file, not the peer


def disconnected(error: OSError) -> Disconnected:
    """What an error of a socket means."""
    return Disconnected(_REASONS.get(error.errno or 0) or f"the connection failed: {error.strerror or error}")


class PlainTransport:
    """A connected TCP socket. Takes the socket over: `sock` must not be used any more; trio's is detached.

    `progress_seconds`: how long a receive, or a send, may go without a byte moving.
    """

    protocol = ""

    def __init__(self, sock: socket.socket | trio.socket.SocketType, peer: Peer, progress_seconds: float) -> None:
        self.peer = peer
        if isinstance(sock, socket.socket):
            self._sock = sock
        else:
            self._sock = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self._sock.setblocking(False)
        if self._sock.family in (socket.AF_INET, socket.AF_INET6):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._progress_seconds = progress_seconds
        self._calls = 0
        self._since = perf_counter()

    async def receive_some(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        seconds = self._progress_seconds if timeout is None else timeout
        if self._calls >= _BURST or perf_counter() - self._since > _BURST_SECONDS:
            await self._give_way()
        self._calls += 1
        while True:
            try:
                return self._sock.recv(max_bytes)
            except BlockingIOError:
                pass
            except OSError as error:
                raise disconnected(error) from None
            if not await self._wait(trio.lowlevel.wait_readable, seconds):
                raise Disconnected(f"the peer sent nothing for {seconds:g} s")

    def receive_into(self, buffer: memoryview, wait: float) -> int:
        """As `transport.Drawable` says."""
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            pass
        except OSError as error:
            raise disconnected(error) from None
        try:
            poll = select.poll()
            poll.register(self._sock.fileno(), select.POLLIN)
            return self._sock.recv_into(buffer) if poll.poll(wait * 1000) else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            raise disconnected(error) from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._calls >= _BURST or perf_counter() - self._since > _BURST_SECONDS:
            await self._give_way()
        self._calls += 1
        sent = 0
        left: bytes | bytearray | memoryview = data
        while True:
            try:
                sent += self._sock.send(left)
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise disconnected(error) from None
            if sent == len(data):
                return
            left = memoryview(data)[sent:]

    def send_nowait(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        self._calls += 1
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return data
        except OSError as error:
            raise disconnected(error) from None
        return b"" if sent == len(data) else memoryview(data)[sent:]

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """As the protocol says; raises BodyBroken if the file ends early or cannot be read."""
        end = offset + count
        while offset < end:
            if self._calls >= _BURST or perf_counter() - self._since > _BURST_SECONDS:
                await self._give_way()
            self._calls += 1
            try:
                moved = os.sendfile(self._sock.fileno(), fd, offset, min(_STEP, end - offset))
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                if error.errno in _FILE_ERRORS:
                    raise BodyBroken(f"the file cannot be read: {error.strerror}") from None
                raise disconnected(error) from None
            if moved == 0:
                raise BodyBroken(f"the file ends at {offset}, {end - offset} bytes too early")
            offset += moved

    async def send_eof(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise disconnected(error) from None

    async def aclose(self) -> None:
        """Send FIN, then read what the client still sends until its own FIN, for two seconds at most.

        Closing a socket with unread bytes sends RST, and an RST may take the last response away
        from the client before it was read (RFC 9112 section 9.6).  When cancelled the wait is still
        done, being bounded.
        """
        if self._sock.fileno() < 0:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
            with trio.move_on_after(_LINGER_SECONDS, shield=True):
                while await self.receive_some(timeout=_LINGER_SECONDS):
                    pass
        except (OSError, Disconnected):
            pass  # gone already: there is nobody to be polite to
        finally:
            self._close()

    def abort(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def _give_way(self) -> None:
        await trio.lowlevel.checkpoint()
        self._rested()

    def _rested(self) -> None:
        self._calls = 0
        self._since = perf_counter()

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]], seconds: float) -> bool:
        """False when `seconds` passed first."""
        try:
            if seconds == math.inf:  # a cancel scope is the dearest part of a wait: enter none that does nothing
                await wait(self._sock)
                self._rested()
                return True
            with trio.move_on_after(seconds) as scope:
                await wait(self._sock)
        except (trio.ClosedResourceError, OSError):
            raise Disconnected(_REASONS[errno.EBADF]) from None
        self._rested()
        return not scope.cancelled_caught

    async def _writable(self) -> None:
        pending = self._unacknowledged()
        while not await self._wait(trio.lowlevel.wait_writable, self._progress_seconds):
            before, pending = pending, self._unacknowledged()
            if pending >= before:
                raise Disconnected(f"the peer took nothing for {self._progress_seconds:g} s")

    def _unacknowledged(self) -> int:
        """Bytes sent that the peer has not taken yet (SIOCOUTQ, tcp(7))."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError as error:
            raise disconnected(error) from None
