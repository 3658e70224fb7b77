"""Requests that real build tools sent, byte for byte, and a client that sends them again.

A recording in tests/clients/recorded is text: for each request the connection that it came on (`# 1`), its head with
the line ends of a text file, its body in base64 (`+ ...`, whatever framing was on the wire included) and the status
that answered it (`= 201`).  The server that was recorded wanted a login for everything, as `LOGIN`.
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "clients" / "recorded"
LOGIN = ("alice", "correct-horse-battery")


@dataclass(frozen=True)
class Exchange:
    """One request, and what it was answered."""

    connection: int
    head: bytes
    body: bytes
    status: int

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def waits(self) -> bool:
        """Whether it wants to be told to go on before it sends the body."""
        return b"\r\nexpect:" in self.head.lower()


def recorded(name: str) -> list[Exchange]:
    """A recording's requests, in order."""
    return [_exchange(text) for text in (FOLDER / f"{name}.txt").read_text().split("\n\n")]


def _exchange(text: str) -> Exchange:
    first, *lines = text.strip().split("\n")
    head = [line for line in lines if line[:2] not in ("+ ", "= ")]
    body = b"".join(base64.b64decode(line[2:]) for line in lines if line.startswith("+ "))
    status = next(int(line[2:]) for line in lines if line.startswith("= "))
    return Exchange(int(first[2:]), "\r\n".join([*head, "", ""]).encode("latin-1"), body, status)


@dataclass(frozen=True)
class Answer:
    """What came. `told`: the interim statuses before it, so `(100,)` where the client was told to go on."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    told: tuple[int, ...] = ()


class Replay:
    """Sends exchanges to a port of ours, each on the connection that it came on; a closed one is opened again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: dict[int, socket.socket] = {}

    def send(self, exchange: Exchange, *, pieces: int = 1 << 20) -> Answer:
        """One request, `pieces` bytes at a time; the whole answer. Fails the test after ten seconds of silence."""
        sock = self._open.get(exchange.connection) or socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._open[exchange.connection] = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _send(sock, exchange.head, pieces)
        told: list[int] = []
        if exchange.waits:
            status, reason, fields, rest = _head(sock)
            assert not rest or status != 100, rest
            if status == 100:
                told.append(status)
                _send(sock, exchange.body, pieces)
                status, reason, fields, rest = _head(sock)
        else:
            _send(sock, exchange.body, pieces)
            status, reason, fields, rest = _head(sock)
        length = 0 if exchange.method == "HEAD" or status in (204, 304) else int(fields.get("content-length", 0))
        assert "transfer-encoding" not in fields, fields
        while len(rest) < length:
            data = sock.recv(1 << 16)
            assert data, f"{exchange.path}: the body ends after {len(rest)} of {length} bytes"
            rest += data
        assert len(rest) == length, f"{exchange.path}: more than the body came: {rest[length:]!r}"
        if fields.get("connection", "").lower() == "close":
            self._open.pop(exchange.connection).close()
        return Answer(status, reason, fields, rest, tuple(told))

    def close(self) -> None:
        for sock in self._open.values():
            sock.close()


@contextlib.contextmanager
def replaying(port: int) -> Iterator[Replay]:
    made = Replay(port)
    try:
        yield made
    finally:
        made.close()


def _send(sock: socket.socket, data: bytes, pieces: int) -> None:
    for start in range(0, len(data), pieces):
        sock.sendall(data[start : start + pieces])


def _head(sock: socket.socket) -> tuple[int, str, dict[str, str], bytes]:
    """Status, reason and fields of the next answer, and what came behind its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1 << 16)
        assert more, f"the server closed after {data!r}"
        data += more
    top, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    version, status, reason = f"{first} ".split(" ", 2)
    assert version == "HTTP/1.1", first
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return int(status), reason.strip(), fields, rest
