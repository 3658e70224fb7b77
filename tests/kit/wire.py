"""Real socket pairs, a handler that is told what to answer, and a server that counts on them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from kit.descriptors import open_files
from kit.steps import CancelAtStep
from mxart.body import Body
from mxart.message import Headers, Peer, Request, Response, Sent
from mxart.proto.draining import Draining
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.plain import PlainTransport

PEER = Peer("127.0.0.1", 40000, "127.0.0.1", 8080)


def tcp_pair(receive_buffer: int = 0, send_buffer: int = 0) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """Both ends of a TCP connection over loopback: the server's and the client's. 0: the kernel's own buffer sizes."""
    with socket.socket() as listener:
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    for end in (server, client):
        end.setblocking(False)
    return trio.socket.from_stdlib_socket(server), trio.socket.from_stdlib_socket(client)


Answer = Callable[[Request], Awaitable[Response]]


def text(data: bytes, status: int = 200) -> Response:
    return Response(status, Headers([("content-type", "text/plain")]), Body([data]))


class FakeHandler:
    """Answers as it is told, and keeps what it was told about how that went."""

    def __init__(self, answer: Answer | Response) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        self.refused: list[tuple[int, str]] = []
        self.ends: list[tuple[Request, Response | None, Sent]] = []
        self.started = trio.Event()
        self.cancelled = 0

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        self.started.set()
        if isinstance(self._answer, Response):
            return self._answer
        try:
            return await self._answer(request)
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        self.refused.append((status, message))
        return text(message.encode(), status)

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        self.ends.append((request, response, sent))


class FakeSource:
    """A file that grows when it is told to."""

    def __init__(self, path: Path, total: int | None = None) -> None:
        self._path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.total = total
        self.closed = 0
        self.waiting = trio.Event()
        self._there = path.stat().st_size
        self._whole = False
        self._broken: Exception | None = None
        self._changed = trio.Event()

    def grow(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
        self._there += len(data)
        self._wake()

    def finish(self) -> None:
        self._whole = True
        self._wake()

    def fail(self, error: Exception) -> None:
        self._broken = error
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def fileno(self) -> int:
        return self.fd

    def ready(self, offset: int) -> int:
        if self._broken is not None:
            raise self._broken
        return max(offset, self._there)

    async def available(self, offset: int) -> int:
        while (end := self.ready(offset)) == offset and not self._whole:
            self.waiting.set()
            await self._changed.wait()
        return end

    def close(self) -> None:
        self.closed += 1
        if self.closed == 1:
            os.close(self.fd)


class Client:
    """The client's end of a connection that is being served."""

    def __init__(self, sock: trio.socket.SocketType, handler: FakeHandler, draining: Draining) -> None:
        self.sock = sock
        self.handler = handler
        self.draining = draining
        self.buffer = b""

    async def send(self, data: bytes, step: int = 0) -> None:
        """Whole, or `step` bytes at a time."""
        for start in range(0, len(data), step or len(data) or 1):
            left = data[start : start + (step or len(data))]
            while left:
                left = left[await self.sock.send(left) :]

    async def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = await self.sock.recv(65536)
            assert data, f"the server closed after {self.buffer!r}"
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    async def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.sock.recv(65536)
            assert data, f"the server closed after {self.buffer!r}"
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    async def read_to_end(self) -> bytes:
        """Everything until the server's FIN. Raises ConnectionResetError if it resets."""
        while data := await self.sock.recv(65536):
            self.buffer += data
        found, self.buffer = self.buffer, b""
        return found

    async def response(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, fields by lower-case name, and the unframed body."""
        head = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        fields = {name.lower(): value for name, value in fields.items()}
        if method == "HEAD" or status in (100, 204, 304):
            return status, fields, b""
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await self.read_until(b"\r\n"))[:-2], 16):
                body += await self.read_exactly(size)
                await self.read_until(b"\r\n")
            await self.read_until(b"\r\n")
            return status, fields, body
        if "content-length" in fields:
            return status, fields, await self.read_exactly(int(fields["content-length"]))
        return status, fields, await self.read_to_end()


@asynccontextmanager
async def served(
    answer: Answer | Response,
    limits: Http1Limits | None = None,
    *,
    progress_seconds: float = 5.0,
    receive_buffer: int = 0,
    send_buffer: int = 0,
    initial: bytes = b"",
    cancel_at: int = 0,
) -> AsyncIterator[Client]:
    """A client of a connection served by `serve_http1`. Leaving closes the client and waits for the server's end.

    `cancel_at`: cancel the server's side at that step of its tasks.
    """
    before = open_files()
    server, sock = tcp_pair(receive_buffer, send_buffer)
    handler, draining = FakeHandler(answer), Draining()
    transport = PlainTransport(server, PEER, progress_seconds)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            instrument = CancelAtStep(nursery, cancel_at)

            async def serve() -> None:
                with instrument.scope:
                    await serve_http1(transport, handler, limits or Http1Limits(), draining, initial)

            if cancel_at:
                trio.lowlevel.add_instrument(instrument)
            nursery.start_soon(serve)
            try:
                yield Client(sock, handler, draining)
            finally:
                sock.close()
                if cancel_at:
                    trio.lowlevel.remove_instrument(instrument)
    assert len(handler.ends) == len(handler.requests), "finished() is called once for each request"
    assert open_files() <= before, "no descriptor is left open"
