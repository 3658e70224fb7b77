"""DNS over TCP (RFC 7766): messages behind their lengths, answered in whatever order the answers come.

A connection reads on while earlier questions wait, up to a number of them; then its client waits.  What a
client may hold is bounded: connections in all and by address, the time without a question, the time in which it
has to take an answer.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections import Counter

import trio

from mxart.server.dns import Responder, Seldom, Waiting
from mxart.server.dns_udp import plain

log = logging.getLogger("mxart.dns")

_CONNECTIONS = 256
_OF_ONE = 32
_IDLE_SECONDS = 10.0  # RFC 7766 section 6.2.3: a few seconds; and longer than any answer takes
_SEND_SECONDS = 5.0
_PIPELINED = 16
_PAUSE = 0.1  # seconds before accepting again when the system has no room


class TcpServer:
    """The TCP side of one worker."""

    def __init__(
        self,
        responder: Responder,
        *,
        connections: int = _CONNECTIONS,
        of_one: int = _OF_ONE,
        idle: float = _IDLE_SECONDS,
    ) -> None:
        """`connections` in all and `of_one` address; `idle` in seconds."""
        self._responder = responder
        self._most = connections
        self._most_of_one = of_one
        self._idle = idle
        self._by_client: Counter[str] = Counter()
        self._reading: set[trio.CancelScope] = set()
        self._draining = False
        self._full = Seldom()

    def drain(self) -> None:
        """Take no more questions; those under way are answered. Cancel `accept` first."""
        self._draining = True
        for scope in self._reading:
            scope.cancel()

    async def accept(self, shared: socket.socket, nursery: trio.Nursery) -> None:
        """Accept until cancelled; a connection is a task of `nursery`. `shared` is non-blocking and borrowed."""
        with shared.dup() as listener:
            while True:
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(listener)
                    continue
                except OSError as error:
                    if self._full.due() is not None:
                        log.warning("dns: cannot accept: %s", error.strerror)
                    await trio.sleep(_PAUSE)
                    continue
                self._begin(sock, plain(address[0]), nursery)
                await trio.lowlevel.checkpoint()

    def _begin(self, sock: socket.socket, client: str, nursery: trio.Nursery) -> None:
        if not self._responder.may_ask(client):
            sock.close()
            return
        if self._by_client.total() >= self._most or self._by_client[client] >= self._most_of_one:
            if self._full.due() is not None:
                log.warning("dns: too many TCP connections; last from %s", client)
            sock.close()
            return
        self._by_client[client] += 1
        nursery.start_soon(self._connection, trio.socket.from_stdlib_socket(sock), client)

    async def _connection(self, sock: trio.socket.SocketType, client: str) -> None:
        try:
            with sock:
                await _Connection(self._responder, sock, client).serve(self)
        except Exception:
            log.exception("dns: the connection of %s failed", client)
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    async def read(self, sock: trio.socket.SocketType) -> bytes | None:
        """The next message; None at the end of the questions, however it comes."""
        if self._draining:
            return None
        with trio.move_on_after(self._idle) as scope:
            self._reading.add(scope)
            try:
                head = await _exactly(sock, 2)
                return await _exactly(sock, struct.unpack("!H", head)[0]) if head else None
            except OSError as error:
                log.debug("dns: reading: %s", error)
            finally:
                self._reading.discard(scope)
        return None


class _Connection:
    def __init__(self, responder: Responder, sock: trio.socket.SocketType, client: str) -> None:
        self._responder = responder
        self._sock = sock
        self._client = client
        self._writing = trio.Lock()
        self._slots = trio.Semaphore(_PIPELINED)
        self._broken = False

    async def serve(self, server: TcpServer) -> None:
        async with trio.open_nursery() as nursery:
            while not self._broken:
                wire = await server.read(self._sock)
                if not wire:
                    break  # the answers under way still go out
                found = self._responder.now(wire, self._client, udp=False)
                if isinstance(found, Waiting):
                    await self._slots.acquire()
                    nursery.start_soon(self._later, found)
                elif found is not None:
                    await self._send(found)

    async def _later(self, waiting: Waiting) -> None:
        try:
            await self._send(await self._responder.later(waiting, self._client, udp=False))
        finally:
            self._slots.release()

    async def _send(self, wire: bytes) -> None:
        """One answer after the other. A client that does not take one in time, or has gone, gets no more."""
        async with self._writing:
            rest = struct.pack("!H", len(wire)) + wire
            try:
                with trio.move_on_after(_SEND_SECONDS):
                    while rest and not self._broken:
                        rest = rest[await self._sock.send(rest) :]
            except OSError:
                pass
            if rest and not self._broken:
                self._broken = True
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)  # whoever reads from it sees its end


async def _exactly(sock: trio.socket.SocketType, count: int) -> bytes:
    """So many bytes, or fewer at the end of the stream. Raises OSError."""
    data = b""
    while len(data) < count:
        piece = await sock.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return data
