"""A fake upstream that misbehaves exactly as told: a small HTTP/1.1 server on trio, by hand, so that it can lie.

    async with fake_upstream() as up:
        up.on("/v2/x", say(b"hello"))                        # always
        up.on("/flaky", say(status=503), say(b"there"))      # in turn; the last one stays
        up.on("/blob", say(BIG, reset_after=1000), say(BIG)) # Range is served from the body
        ... up.url, up.count("/blob"), up.requests[0].headers["range"]

Everything not told is 404 with an OCI error body.  Only HTTP/1.1; `tls` is a certificate of trustme.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl

import trio
import trustme

Answer = "Say | Callable[[Seen], Say]"


@dataclass(frozen=True)
class Seen:
    """A request that came. Field names are lower case; the last of several values wins."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int  # which connection it came on, counted from 1

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True)
class Say:
    """An answer, and how to fail while giving it. Counts are of body bytes."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None  # claim another Content-Length than the body has
    chunked: bool = False
    no_length: bool = False  # neither: the body ends with the connection
    ranges: bool = True  # serve `Range: bytes=a-[b]` of a 200 as 206
    close: bool = False  # close after the answer without saying so
    reset_after: int | None = None  # RST after so many bytes; -1: before the head
    close_after: int | None = None  # FIN after so many bytes; -1: before the head
    stall_after: int | None = None  # send no more after so many bytes, keep the connection; -1: not even the head
    step: int = 65536
    gap: float = 0.0  # seconds between steps
    gate: trio.Event | None = field(default=None, compare=False)  # wait for it before the head
    body_gate: trio.Event | None = field(default=None, compare=False)  # wait for it before the body
    raw: bytes | None = None  # instead of everything: these bytes, then close


def say(body: bytes | str = b"", status: int = 200, **more: object) -> Say:
    """A Say; `headers` may be a dict."""
    if isinstance(body, str):
        body = body.encode()
    headers = more.pop("headers", ())
    items = tuple(headers.items()) if isinstance(headers, dict) else tuple(headers)  # type: ignore[call-overload]
    return Say(body, status, items, **more)  # type: ignore[arg-type]


def redirect(to: str, status: int = 307, **more: object) -> Say:
    return say(b"", status, headers={"location": to}, **more)


def html(status: int = 200) -> Say:
    page = b"<!doctype html><title>Please log in</title><h1>Captive portal</h1>"
    return say(page, status, headers={"content-type": "text/html; charset=utf-8"})


def challenge(value: str, status: int = 401) -> Say:
    return say(b'{"errors":[{"code":"UNAUTHORIZED"}]}', status, headers={"www-authenticate": value})


NOT_FOUND = say(
    json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "not here"}]}),
    404,
    headers={"content-type": "application/json"},
)


class FakeUpstream:
    """See the module. All state is there to be read by tests."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme, self.host, self.port = scheme, host, port
        self.requests: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.default: Say | Callable[[Seen], Say] = NOT_FOUND
        self._answers: dict[str, list[Say | Callable[[Seen], Say]]] = {}
        self._given: dict[str, int] = defaultdict(int)
        self._changed = trio.Event()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def on(self, path: str, *answers: Say | Callable[[Seen], Say]) -> None:
        """What to say under a path (without query), in turn; the last one stays."""
        self._answers[path] = list(answers)
        self._given[path] = 0

    def count(self, path: str | None = None, method: str | None = None) -> int:
        return sum(1 for seen in self.requests if path in (None, seen.path) and method in (None, seen.method))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes with requests and connections."""
        while not condition():
            await self._changed.wait()

    def _answer(self, seen: Seen) -> Say:
        answers = self._answers.get(seen.path, [self.default])
        index = min(self._given[seen.path], len(answers) - 1)
        self._given[seen.path] += 1
        answer = answers[index]
        return answer(seen) if callable(answer) else answer

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        self._change()
        try:
            async with stream:
                await self._serve(stream, sock, number)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass
        finally:
            self.open_connections -= 1
            self._change()

    async def _serve(self, stream: trio.abc.Stream, sock: trio.socket.SocketType, number: int) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                more = await stream.receive_some()
                if not more:
                    return
                buffer += more
                if buffer.startswith(b"\x16"):  # a TLS hello on a plain port: what web servers say to it
                    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    return
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            wanted = int(headers.get("content-length", "0"))
            while len(buffer) < wanted:
                more = await stream.receive_some()
                if not more:
                    return
                buffer += more
            body, buffer = buffer[:wanted], buffer[wanted:]
            seen = Seen(method, target, headers, body, number)
            self.requests.append(seen)
            self._change()
            if not await _give(self._answer(seen), seen, stream, sock):
                return


async def _give(answer: Say, seen: Seen, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> bool:
    """Whether the connection goes on."""
    if answer.gate is not None:
        await answer.gate.wait()
    if answer.raw is not None:
        await stream.send_all(answer.raw)
        return False
    answer = _ranged(answer, seen)
    if await _fail(answer, -1, stream, sock):
        return False
    fields = list(answer.headers)
    if answer.chunked:
        fields.append(("transfer-encoding", "chunked"))
    elif not answer.no_length:
        length = len(answer.body) if answer.length is None else answer.length
        fields.append(("content-length", str(length)))
    head = f"HTTP/1.1 {answer.status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    await stream.send_all(head.encode("latin-1") + b"\r\n")
    if seen.method == "HEAD" or answer.status in (204, 304):
        return not answer.close
    if answer.body_gate is not None:
        await answer.body_gate.wait()
    ends = [at for at in (answer.reset_after, answer.close_after, answer.stall_after) if at is not None]
    end = min([len(answer.body), *ends])
    for at in range(0, end, answer.step):
        piece = answer.body[at : min(at + answer.step, end)]
        await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
        if answer.gap:
            await trio.sleep(answer.gap)
    if ends and await _fail(answer, end, stream, sock):
        return False
    if answer.chunked:
        await stream.send_all(b"0\r\n\r\n")
    return not (answer.close or answer.no_length)


async def _fail(answer: Say, at: int, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> bool:
    if answer.stall_after == at:
        while await stream.receive_some():
            pass
        return True
    if answer.reset_after == at:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return True
    return answer.close_after == at


def _ranged(answer: Say, seen: Seen) -> Say:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
    if match is None or answer.status != 200 or not answer.ranges:
        return answer
    condition = seen.headers.get("if-range")
    if condition is not None and condition not in [value for name, value in answer.headers if name.lower() == "etag"]:
        return answer
    total = len(answer.body)
    first, last = int(match[1]), min(int(match[2] or total - 1), total - 1)
    if first > last:
        return replace(answer, body=b"", status=416, headers=(("content-range", f"bytes */{total}"),))
    headers = (*answer.headers, ("content-range", f"bytes {first}-{last}/{total}"))
    return replace(answer, body=answer.body[first : last + 1], status=206, headers=headers)


@asynccontextmanager
async def fake_upstream(
    *,
    tls: trustme.LeafCert | None = None,
    host: str = "127.0.0.1",
    alpn: tuple[str, ...] = ("http/1.1",),
    port: int = 0,
    listen: str = "127.0.0.1",
) -> AsyncIterator[FakeUpstream]:
    """A running fake. Everything it started is gone when the block ends."""
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(list(alpn))
        tls.configure_cert(context)
    listeners = await trio.open_tcp_listeners(port, host=listen)
    port = listeners[0].socket.getsockname()[1]
    fake = FakeUpstream("https" if tls is not None else "http", host, port)

    async def handle(stream: trio.SocketStream) -> None:
        if context is None:
            await fake.serve(stream, stream.socket)
        else:
            secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            try:
                await secured.do_handshake()
            except trio.BrokenResourceError:
                await trio.aclose_forcefully(stream)
                return
            await fake.serve(secured, stream.socket)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield fake
        nursery.cancel_scope.cancel()
