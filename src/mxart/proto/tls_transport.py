"""A connection with TLS as a transport: pyOpenSSL on a non-blocking socket, driven by trio.

Theory of operation.  OpenSSL reads and writes the descriptor itself; no byte passes through Python but the
plain text.  A call that cannot go on says which way it is stuck, the task waits for that, and calls again.

Which way is not always one's own: a peer may send half a KeyUpdate (RFC 8446 section 4.6.3), and then SSL_write wants
to *read* the rest first, while the reading task waits for the very same thing.  trio lets one task wait for one
direction of one descriptor, so `_Readiness` lets the first comer wait in the kernel and parks the others until it
is woken or gives up; then all try again.  No wake-up is lost: whoever is woken calls OpenSSL before it waits again,
and OpenSSL never reads past the record it needs (read-ahead is off), so application data stays where epoll sees it.

SSL_write seals and writes record after record until all is out or the socket is full; then it keeps the record that it
could not write, in sealed form, and how many it wrote before, and the retry must pass the same bytes again, if at
another address (moving buffer).  That is what lets all connections of a worker send files through one scratch
buffer, which is filled again after every wait.  pread into that buffer instead of a mapping: a file that is cut short
under a mapping kills the process (SIGBUS).  The buffer is small enough to stay in the processor's cache.

As in `plain`: a call is tried first (but for the receive from a peer that was seen to send little and then wait for
the answer); a task that never has to wait gives way now and then, before its next call and never after one that took
bytes; and a slow reader is not a stalled one, which the count of unacknowledged bytes tells apart.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter

import trio
from OpenSSL import SSL

from mxart.errors import BodyBroken, Disconnected
from mxart.message import Peer

STEP = 1 << 17  # bytes sealed at a time: 0.05 ms of a modern core
CLOSE_SECONDS = 2.0  # how long a closed connection waits for the client's own end

_RECORD = 1 << 14  # bytes of plain text in a TLS record at the most: SSL_read gives no more at a time
_SHORT = 1 << 10  # bytes; after two records with less the peer is taken to wait for our answer to each
_SHORT_IN_A_ROW = 2
_BURST_SECONDS = 0.002  # how long one task may keep the loop while nothing makes it wait
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds: close(2) sends RST (socket(7), tcp(7))

# What OpenSSL calls it, and what the log of a server calls it. pyOpenSSL passes nothing on but the text.
_REASONS = {
    "unsupported protocol": "the client speaks no TLS from version 1.2 on",
    "no shared cipher": "the client offers no cipher suite that is served",
    "no suitable signature algorithm": "the client takes no signature that the certificate could make",
    "no suitable key share": "the client offers no key exchange that is served",
    "http request": "the client speaks plain HTTP",
    "wrong version number": "the client stopped speaking TLS",
    "tlsv1 alert unknown ca": "the client does not trust the CA (alert unknown ca)",
    "ssl/tls alert bad certificate": "the client refuses the certificate (alert bad certificate)",
    "ssl/tls alert certificate unknown": "the client does not trust the certificate (alert certificate unknown)",
    "ssl/tls alert certificate expired": "the client finds the certificate expired: are the clocks right?",
    "ssl/tls alert handshake failure": "the client found nothing in common (alert handshake failure)",
    "tlsv1 alert protocol version": "the client wants another version of TLS (alert protocol version)",
    "tlsv1 alert user cancelled": "the client gave up (alert user canceled)",
}


def explain(error: SSL.Error) -> str:
    """An error of OpenSSL in words for the log."""
    match error:
        case SSL.ZeroReturnError():
            return "the client closed the connection"
        case SSL.SysCallError(args=(int(number), *_)) if number > 0:
            return f"the connection broke: {os.strerror(number)}"
        case SSL.SysCallError():
            return "the client left without a word"
    queue = error.args[0] if error.args else []
    reason = str(queue[-1][2]) if queue else "no reason given"
    return _REASONS.get(reason, reason)


async def linger(sock: socket.socket) -> None:
    """Send FIN and throw away what still comes until the peer's own, so that our last bytes are not lost to a reset.

    The caller bounds the time, and closes the socket.
    """
    with suppress(OSError, trio.ClosedResourceError):  # gone already: nothing is left to be polite about
        sock.shutdown(socket.SHUT_WR)
        while True:
            await trio.lowlevel.wait_readable(sock)
            if not sock.recv(65536):
                return


def reset(sock: socket.socket) -> None:
    """Close with RST. Idempotent."""
    if sock.fileno() >= 0:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        _close(sock)


def _close(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()


class _Readiness:
    """Lets several tasks wait for one direction of a descriptor; see the theory above."""

    __slots__ = ("_busy", "_lot", "_wait")

    def __init__(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._wait = wait
        self._busy = False
        self._lot: trio.lowlevel.ParkingLot | None = None

    async def wait(self, sock: socket.socket) -> None:
        """Return when it may be worth another try. Cancellation of the one that waits wakes the others."""
        if self._busy:
            if self._lot is None:
                self._lot = trio.lowlevel.ParkingLot()
            await self._lot.park()
            return
        self._busy = True
        try:
            await self._wait(sock)
        finally:
            self._busy = False
            if self._lot is not None:
                self._lot.unpark_all()


class TlsTransport:
    """proto.transport.Transport over TLS. Made by `tls.TlsServer`."""

    def __init__(
        self,
        sock: socket.socket,
        connection: SSL.Connection,
        peer: Peer,
        *,
        progress_seconds: float,
        scratch: memoryview,
    ) -> None:
        """`scratch` is shared by all transports of a worker; what is in it does not outlast an await."""
        self.peer = peer
        name = connection.get_alpn_proto_negotiated()
        self.protocol = "http/1.1" if name.startswith(b"http/1.") else name.decode("ascii")
        self._sock = sock
        self._connection = connection
        self._progress_seconds = progress_seconds
        self._scratch = scratch
        self._readable = _Readiness(trio.lowlevel.wait_readable)
        self._writable = _Readiness(trio.lowlevel.wait_writable)
        self._peer_finished = False
        self._short = 0  # records in a row that held little
        self._since = perf_counter()  # when this connection's tasks last let others run

    async def receive_some(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        seconds = self._progress_seconds if timeout is None else timeout
        deadline: float | None = None
        if self._short >= _SHORT_IN_A_ROW:
            # Nothing is left in OpenSSL, so the kernel tells of whatever comes: no try is needed, and it would be vain.
            deadline = math.inf if seconds == math.inf else trio.current_time() + seconds
            if not await self._wait(self._readable, deadline):
                raise Disconnected(f"the peer sent nothing for {seconds:g} s")
        else:
            await self._give_way()
        while True:
            self._check_open()
            try:
                data = self._connection.recv(min(max_bytes, _RECORD))
            except SSL.WantReadError:
                stuck = self._readable
            except SSL.WantWriteError:
                stuck = self._writable
            except SSL.Error as error:
                return self._end_of_input(error)
            else:
                self._short = self._short + 1 if len(data) < min(max_bytes, _SHORT) else 0
                return data
            # One deadline over all tries: records that carry no data (KeyUpdate) are no progress.
            if deadline is None:
                deadline = trio.current_time() + seconds
            if not await self._wait(stuck, deadline):
                raise Disconnected(f"the peer sent nothing for {seconds:g} s")

    def receive_into(self, buffer: memoryview, wait: float) -> int:
        """As `transport.Drawable` says. OpenSSL is the thread's alone: nobody sends while a body is received."""
        filled = self._open_into(buffer)
        if not filled:
            poll = select.poll()
            poll.register(self._sock.fileno(), select.POLLIN)
            if poll.poll(wait * 1000):
                filled = self._open_into(buffer)
        return filled

    def _open_into(self, buffer: memoryview) -> int:
        """Open all records that are there, as far as there is room."""
        filled = 0
        try:
            while filled < len(buffer):
                filled += self._connection.recv_into(buffer[filled:], min(len(buffer) - filled, _RECORD))
        except (SSL.WantReadError, SSL.WantWriteError, SSL.ZeroReturnError):
            pass  # `receive_some` waits for what is wanted, or tells of the end
        except SSL.Error as error:
            if not filled:  # else what came before it first; it comes again
                raise Disconnected(explain(error)) from None
        return filled

    def _end_of_input(self, error: SSL.Error) -> bytes:
        if isinstance(error, SSL.ZeroReturnError):
            self._peer_finished = True
            return b""
        raise Disconnected(explain(error)) from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) <= STEP:
            await self._send(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), STEP):
            await self._send(view[start : start + STEP])

    def send_nowait(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        # Records that are not out yet are OpenSSL's; it wants to be called again with all of the data.
        return b"" if len(data) <= STEP and self._try_write(data) is None else data

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        await self._give_way()
        while (stuck := self._try_write(data)) is not None:
            await self._until_moving(stuck)

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """As the protocol says; raises BodyBroken if the file ends early or cannot be read."""
        end = offset + count
        while offset < end:
            await self._give_way()
            step = self._scratch[: min(STEP, end - offset)]
            _fill(step, fd, offset)
            while (stuck := self._try_write(step)) is not None:
                await self._until_moving(stuck)
                _fill(step, fd, offset)  # others have used the buffer meanwhile
            offset += len(step)

    def _try_write(self, data: bytes | bytearray | memoryview) -> _Readiness | None:
        """Seal and write; None when all is with the kernel, else what to wait for before the same call again."""
        self._check_open()
        if not len(data):
            return None  # SSL_write of nothing is undefined
        try:
            self._connection.send(data)
        except SSL.WantWriteError:
            return self._writable
        except SSL.WantReadError:
            return self._readable
        except SSL.Error as error:
            raise Disconnected(explain(error)) from None
        return None

    async def send_eof(self) -> None:
        self._check_open()
        await self._notify_close()
        with suppress(OSError):  # gone: whoever receives is told so
            self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            with trio.CancelScope(relative_deadline=CLOSE_SECONDS, shield=True):
                await self._say_goodbye()
        finally:
            _close(self._sock)

    async def _say_goodbye(self) -> None:
        await self._notify_close()
        if not self._peer_finished:
            await linger(self._sock)

    async def _notify_close(self) -> None:
        while True:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                await self._writable.wait(self._sock)
            except SSL.Error:
                break  # broken already, or in the middle of a record: FIN alone has to tell
            else:
                break

    def abort(self) -> None:
        reset(self._sock)

    def _check_open(self) -> None:
        # OpenSSL knows the number of the descriptor only, and that may belong to another connection by now.
        if self._sock.fileno() < 0:
            raise Disconnected("the connection is closed here")

    async def _give_way(self) -> None:
        if perf_counter() - self._since > _BURST_SECONDS:
            await trio.lowlevel.checkpoint()
            self._since = perf_counter()

    async def _wait(self, stuck: _Readiness, deadline: float) -> bool:
        """False when the deadline passed first."""
        try:
            if deadline == math.inf:  # a cancel scope is the dearest part of a wait: enter none that does nothing
                await stuck.wait(self._sock)
                cancelled = False
            else:
                with trio.CancelScope(deadline=deadline) as scope:
                    await stuck.wait(self._sock)
                cancelled = scope.cancelled_caught
        except (trio.ClosedResourceError, OSError):
            raise Disconnected("the connection is closed here") from None
        self._since = perf_counter()
        return not cancelled

    async def _until_moving(self, stuck: _Readiness) -> None:
        """Wait before another write. Raises Disconnected when the peer took nothing for the progress time."""
        pending = self._unacknowledged()
        while not await self._wait(stuck, trio.current_time() + self._progress_seconds):
            before, pending = pending, self._unacknowledged()
            if pending >= before:
                raise Disconnected(f"the peer took nothing for {self._progress_seconds:g} s")

    def _unacknowledged(self) -> int:
        """Bytes sent that the peer has not taken yet (SIOCOUTQ, tcp(7))."""
        self._check_open()
        return int(struct.unpack("i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _fill(step: memoryview, fd: int, offset: int) -> None:
    try:
        filled = os.preadv(fd, [step], offset)
    except OSError as error:
        raise BodyBroken(f"the file cannot be read: {error.strerror}") from None
    if filled < len(step):
        raise BodyBroken(f"the file ends at {offset + filled}, {len(step) - filled} bytes too early")
