"""Pushes blobs and a manifest as cheaply as can be: `push_load.py`, told what to do as JSON on standard input.

The same for every server: digests are known before, bytes go from a file by sendfile(2), a thread has a connection that
is kept.  `way` is how a blob is sent: "patch" as docker, podman and skopeo do (POST, PATCH with chunks of
32 KiB, closing PUT without a body), "put" as containerd does (POST, PUT with the whole body).  The answer on standard
output: seconds from the first connection to the manifest's answer, and those of every closing PUT.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

_CHUNK = 32 << 10


class Connection:
    """One kept connection, HTTP/1.1."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        self._where = (host, port)
        self._common = "".join(f"{name}: {value}\r\n" for name, value in {"Host": f"{host}:{port}", **headers}.items())
        self._sock: socket.socket | None = None
        self._kept = b""

    def begin(self, method: str, path: str, headers: str = "", *, more: bool = False) -> socket.socket:
        """Send a request's head."""
        if self._sock is None:
            self._sock = socket.create_connection(self._where)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"{method} {path} HTTP/1.1\r\n{self._common}{headers}\r\n"
        self._sock.sendall(head.encode(), socket.MSG_MORE if more else 0)
        return self._sock

    def answer(self, *expected: int, body: bool = True) -> dict[str, str]:
        """Read an answer to its end; its headers, names in lower case. `body`: whether one comes (not after HEAD)."""
        assert self._sock is not None
        data = self._kept
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        lines = data[:end].decode().split("\r\n")
        rest = data[end + 4 :]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", "0")) if body else 0
        while len(rest) < length:
            rest += self._more()
        self._kept = rest[length:]
        status = int(lines[0].split()[1])
        assert status in expected, (lines, rest[:500])
        if headers.get("connection", "").lower() == "close":
            self._sock.close()
            self._sock = None
        return headers

    def _more(self) -> bytes:
        assert self._sock is not None
        piece = self._sock.recv(65536)
        assert piece, "the server closed the connection in the middle of an answer"
        return piece


class Load:
    """All of one push."""

    def __init__(self, asked: dict) -> None:
        parts = urlsplit(asked["url"])
        self._where = (parts.hostname or "", parts.port or 80)
        self._base = f"{parts.path}/v2/{asked['repository']}"
        self._headers = {"Authorization": asked["authorization"]} if asked["authorization"] else {}
        self._asked = asked
        self._blobs: SimpleQueue[dict] = SimpleQueue()
        for blob in asked["blobs"]:
            self._blobs.put(blob)
        self.closing: list[float] = []
        self._failed: list[BaseException] = []

    def run(self) -> float:
        """Seconds for everything."""
        started = time.perf_counter()
        threads = [threading.Thread(target=self._some) for _ in range(self._asked["parallel"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        if manifest := self._asked["manifest"]:
            connection = self._connect()
            data = manifest["text"].encode()
            type_and_length = f"Content-Type: {manifest['type']}\r\nContent-Length: {len(data)}\r\n"
            connection.begin("PUT", f"{self._base}/manifests/{manifest['tag']}", type_and_length).sendall(data)
            connection.answer(201)
        return time.perf_counter() - started

    def _connect(self) -> Connection:
        return Connection(*self._where, self._headers)

    def _some(self) -> None:
        """What one thread does."""
        try:
            connection = self._connect()
            while True:
                try:
                    blob = self._blobs.get_nowait()
                except Empty:
                    return
                self._push(connection, blob)
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            self._failed.append(error)

    def _push(self, connection: Connection, blob: dict) -> None:
        digest, size = blob["digest"], blob["size"] * blob["repeat"]
        connection.begin("HEAD", f"{self._base}/blobs/{digest}")
        connection.answer(404, body=False)
        connection.begin("POST", f"{self._base}/blobs/uploads/", "Content-Length: 0\r\n")
        where = _local(connection.answer(202)["location"])
        stream = "Content-Type: application/octet-stream\r\n"
        if self._asked["way"] == "put":
            started = time.perf_counter()
            length = f"{stream}Content-Length: {size}\r\n"
            _send(connection.begin("PUT", _with_digest(where, digest), length), blob, chunked=False)
        else:
            sock = connection.begin("PATCH", where, f"{stream}Transfer-Encoding: chunked\r\n", more=True)
            _send(sock, blob, chunked=True)
            where = _local(connection.answer(202)["location"])
            started = time.perf_counter()
            connection.begin("PUT", _with_digest(where, digest), "Content-Length: 0\r\n")
        connection.answer(201)
        self.closing.append(time.perf_counter() - started)


def _local(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _with_digest(path: str, digest: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"


def _send(sock: socket.socket, blob: dict, *, chunked: bool) -> None:
    size = blob["size"]
    file = os.open(blob["path"], os.O_RDONLY)
    try:
        for _ in range(blob["repeat"]):
            offset = 0
            while offset < size:
                piece = min(_CHUNK, size - offset) if chunked else size - offset
                if chunked:
                    sock.sendall(f"{piece:x}\r\n".encode(), socket.MSG_MORE)
                end = offset + piece
                while offset < end:
                    offset += os.sendfile(sock.fileno(), file, offset, end - offset)
                if chunked:
                    sock.sendall(b"\r\n", socket.MSG_MORE)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
    finally:
        os.close(file)


if __name__ == "__main__":
    load = Load(json.loads(sys.stdin.read()))
    seconds = load.run()
    sys.stdout.write(json.dumps({"seconds": seconds, "closing": load.closing}) + "\n")
