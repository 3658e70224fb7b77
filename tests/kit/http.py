"""A client that believes nothing: it says what came, and whether that was all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import trio


@dataclass(frozen=True)
class Got:
    """What a server answered. `complete`: the body ended where the head said it would."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool


async def get(
    port: int, target: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> Got:
    """One request on a connection of its own, read to its end however it ends."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    if body is not None:
        headers = {"content-length": str(len(body)), **(headers or {})}
    async with stream:
        data, broken = bytearray(), False
        with contextlib.suppress(trio.BrokenResourceError):  # it may have been answered all the same
            await stream.send_all(head(target, method=method, headers=headers) + (body or b""))
        try:
            while chunk := await stream.receive_some(1 << 18):
                data += chunk
        except trio.BrokenResourceError:
            broken = True
    return parse(bytes(data), broken=broken, headless=method == "HEAD")


def head(target: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> bytes:
    fields = {"host": "mxart.test", "connection": "close", **(headers or {})}
    return (f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode()


def parse(data: bytes, *, broken: bool = False, headless: bool = False) -> Got:
    top, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return Got(0, {}, data, complete=False)
    first, *lines = top.decode("latin-1").split("\r\n")
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if headless:
        return Got(int(first.split()[1]), fields, body, complete=not broken)
    if fields.get("transfer-encoding") == "chunked":
        body, ended = _unchunk(body)
        return Got(int(first.split()[1]), fields, body, complete=ended)
    return Got(int(first.split()[1]), fields, body, complete=len(body) == int(fields.get("content-length", len(body))))


def _unchunk(data: bytes) -> tuple[bytes, bool]:
    out = bytearray()
    while True:
        size, separator, data = data.partition(b"\r\n")
        if not separator:
            return bytes(out), False
        length = int(size, 16)
        if length == 0:
            return bytes(out), True
        out += data[:length]
        if len(data) < length + 2:
            return bytes(out), False
        data = data[length + 2 :]
