"""The byte streams to other servers: plain TCP and TLS, made for speed in one direction.

Theory of operation
-------------------
A download is one long receive.  Both wires take what the kernel has, up to 256 KiB, in one call and
hand it on without looking; that alone is several times faster than reading 64 KiB through layers of
buffers.  TLS goes through a pair of memory BIOs: a big piece of ciphertext is put in, and records of
at most 16 KiB are taken out until there are no more, all without going back to the event loop.

A body is sent while its answer is listened for: one task may send while another receives.

Cancelling a receive loses nothing.  Cancelling a send may leave half a message on the wire; the wire is
then torn, and every later call raises.  Errors are OSError and ssl.SSLError, mapped by the callers.
"""

from __future__ import annotations

import os
import select
import ssl
from typing import Protocol, cast

import trio

RECEIVE_BYTES = 262144


class Wire(Protocol):
    """One connection's bytes."""

    @property
    def alpn(self) -> str:
        """What was negotiated: "h2", "http/1.1" or ""."""
        ...

    async def receive_some(self, max_bytes: int) -> bytes:
        """The next bytes; b"" when the peer has finished. TLS may give a little more than `max_bytes`."""
        ...

    def read_into(self, buffer: memoryview, wait: float) -> int:
        """For a thread, while no task receives: fill `buffer` from its front, waiting at most `wait` seconds.

        Returns 0 if nothing came, and at the end: `receive_some` tells which.
        """
        ...

    async def send_all(self, data: bytes) -> None: ...

    def is_readable(self) -> bool:
        """Whether something arrived that nobody asked for: on an idle connection, mostly its end."""
        ...

    def close(self) -> None:
        """Close at once. Idempotent."""
        ...


class PlainWire:
    """TCP. Owns the socket."""

    alpn = ""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._torn = False

    async def receive_some(self, max_bytes: int) -> bytes:
        return await self._sock.recv(max_bytes)

    def read_into(self, buffer: memoryview, wait: float) -> int:
        fd = self._sock.fileno()
        try:
            return os.readv(fd, [buffer])
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(wait * 1000):
                return 0
        try:
            return os.readv(fd, [buffer])
        except BlockingIOError:
            return 0

    async def send_all(self, data: bytes) -> None:
        if self._torn:
            raise ConnectionAbortedError("an earlier message was cut off")
        self._torn = True
        rest = memoryview(data)
        while rest:
            rest = rest[await self._sock.send(rest) :]
        self._torn = False

    def is_readable(self) -> bool:
        return self._sock.is_readable()

    def close(self) -> None:
        self._sock.close()


class TlsWire:
    """TLS, as a client, over another wire, which it owns. Call `handshake` first."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, host: str) -> None:
        self._wire = wire
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._scratch: memoryview | None = None  # for ciphertext
        self._sender = trio.Lock()  # what a receive has to say must not fall into the middle of a send

    @property
    def alpn(self) -> str:
        return self._tls.selected_alpn_protocol() or ""

    async def handshake(self) -> None:
        """Verify who is there. Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLError:
                # The alert tells the peer why we leave; whether it gets there is its own affair.
                await self._flush()
                raise
            else:
                await self._flush()
                return

    async def receive_some(self, max_bytes: int) -> bytes:
        records: list[bytes] = []
        size = 0
        while True:
            try:
                while size < max_bytes:
                    record = self._tls.read(16384)
                    if not record:
                        break
                    records.append(record)
                    size += len(record)
            except ssl.SSLWantReadError:
                if not records:
                    await self._flush()  # a key update may want an answer
                    await self._feed()
                    continue
            except ssl.SSLError:
                if not records:
                    raise  # else what came before the error first; it comes again
            return records[0] if len(records) == 1 else b"".join(records)

    def read_into(self, buffer: memoryview, wait: float) -> int:
        filled = self._decrypt_into(buffer)
        if not filled and not self._out.pending:
            if self._scratch is None:
                self._scratch = memoryview(bytearray(RECEIVE_BYTES))
            if count := self._wire.read_into(self._scratch, wait):
                self._in.write(self._scratch[:count])
                filled = self._decrypt_into(buffer)
        return filled

    def _decrypt_into(self, buffer: memoryview) -> int:
        filled = 0
        try:
            while filled < len(buffer):
                # With a buffer it is the number of bytes, and any writable buffer will do (ssl.SSLSocket.read).
                count = cast("int", self._tls.read(len(buffer) - filled, buffer[filled:]))
                if not count:
                    break
                filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            if not filled:
                raise  # else what came before the error first; it comes again
        return filled

    async def send_all(self, data: bytes) -> None:
        self._tls.write(data)  # a memory BIO takes everything
        await self._flush()

    def is_readable(self) -> bool:
        # A body that was read to its last byte may leave the rest of a record inside OpenSSL.
        return bool(self._tls.pending() or self._in.pending) or self._wire.is_readable()

    def close(self) -> None:
        # Without close_notify: nothing that we sent depends on it, and it must not wait.
        self._wire.close()

    async def _feed(self) -> None:
        data = await self._wire.receive_some(RECEIVE_BYTES)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        if self._out.pending:
            async with self._sender:
                if data := self._out.read():
                    await self._wire.send_all(data)
