"""A registry to push to that misbehaves exactly as told: small, in the test's own loop, HTTP/1.1 by hand.

async with fake_target() as target:
    target.cuts = [100_000]                  # the next PATCH breaks after so many bytes; they are kept
    target.on("PATCH", say(status=429))      # the next PATCH is answered so, its body unread
    ... target.url, target.blobs, target.manifests, target.asked("PATCH")
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import trio

from kit.upstream import Say, Seen


@dataclass
class _Upload:
    name: str
    data: bytearray = field(default_factory=bytearray)


class FakeTarget:
    """What it holds, and how it lies. All of it is there for tests to read and set."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[Seen] = []
        self.received = 0  # bytes of blobs
        self.uploads: dict[str, _Upload] = {}
        self.blobs: dict[str, bytes] = {}  # by "name@digest"
        self.manifests: dict[str, tuple[str, bytes]] = {}  # by "name:tag" and "name@digest": media type, bytes
        self.cuts: list[int] = []
        self.forgets = False  # what a cut PATCH has brought
        self.answers_lost = 0  # this many blobs are kept without a word: the connection is reset
        self.lists_referrers = True
        self.mounts = True
        self.location: Callable[[str], str] = str  # from the path of an upload
        self.open_connections = 0
        self._told: dict[str, list[Say | Callable[[Seen], Say | None]]] = {}
        self._changed = trio.Event()

    def on(self, method: str, *answers: Say | Callable[[Seen], Say | None]) -> None:
        """Answers in turn to the next requests of a method, before their bodies are read; None: as a registry does."""
        self._told[method] = list(answers)

    def asked(self, method: str) -> list[Seen]:
        return [seen for seen in self.requests if seen.method == method]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes with requests, bytes and connections."""
        while not condition():
            await self._changed.wait()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open_connections += 1
        try:
            async with stream:
                await self._serve(stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open_connections -= 1
            self.change()

    async def _serve(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                more = await stream.receive_some()
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            seen = Seen(method, target, headers, b"", 0)
            self.requests.append(seen)
            self.change()
            told = self._told.get(method, [])
            answer = told.pop(0) if told else None
            if callable(answer):
                answer = answer(seen)
            length = int(headers.get("content-length", "0"))
            if answer is not None:
                await self._say(stream, answer)
                if length:
                    return  # the body is not read
                continue
            body = bytearray(buffer[:length])
            buffer = buffer[length:]
            cut = self.cuts.pop(0) if method == "PATCH" and self.cuts else None
            while len(body) < length and (cut is None or len(body) < cut):
                more = await stream.receive_some()
                if not more:
                    cut = len(body)
                    break
                body += more
                self.change()
            if cut is not None and len(body) >= cut:
                if not self.forgets:
                    self._append(seen, bytes(body[:cut]))
                _reset(stream)
                return
            answer = self._answer(seen, bytes(body))
            if self.answers_lost and method == "PUT" and answer.status == 201:
                self.answers_lost -= 1
                _reset(stream)
                return
            await self._say(stream, answer)

    async def _say(self, stream: trio.SocketStream, answer: Say) -> None:
        fields = [*answer.headers, ("content-length", str(len(answer.body)))]
        if answer.status == 204:
            fields.pop()
        text = "".join(f"{name}: {value}\r\n" for name, value in fields)
        head = f"HTTP/1.1 {answer.status} Whatever\r\n{text}\r\n".encode("latin-1")
        await stream.send_all(head + (b"" if self.requests[-1].method == "HEAD" else answer.body))

    # A registry.

    def _append(self, seen: Seen, data: bytes) -> Say | None:
        upload = self.uploads.get(seen.path)
        if upload is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        start = re.match(r"(\d+)-", seen.headers.get("content-range", ""))
        if start is not None and int(start[1]) != len(upload.data):
            return _error(416, "RANGE_INVALID")
        upload.data += data
        self.received += len(data)
        self.change()
        return None

    def _answer(self, seen: Seen, body: bytes) -> Say:
        match = re.fullmatch(r"/v2/(.+?)/(blobs/uploads|blobs|manifests|referrers)/(.*)", seen.path)
        if match is None:
            return _error(404, "NAME_UNKNOWN")
        name, kind, reference = match.groups()
        if kind == "blobs/uploads":
            return self._upload(seen, name, reference, body)
        if kind == "blobs":
            found = self.blobs.get(f"{name}@{reference}")
            return _error(404, "BLOB_UNKNOWN") if found is None else Say(found)
        if kind == "referrers":
            if not self.lists_referrers:
                return _error(404, "UNSUPPORTED")
            index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
            return Say(index, headers=(("content-type", "application/vnd.oci.image.index.v1+json"),))
        mark = "@" if ":" in reference else ":"
        if seen.method == "PUT":
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            kept = (seen.headers.get("content-type", ""), body)
            self.manifests[f"{name}{mark}{reference}"] = self.manifests[f"{name}@{digest}"] = kept
            return Say(b"", 201, (("docker-content-digest", digest),))
        manifest = self.manifests.get(f"{name}{mark}{reference}")
        if manifest is None:
            return _error(404, "MANIFEST_UNKNOWN")
        digest = f"sha256:{hashlib.sha256(manifest[1]).hexdigest()}"
        return Say(manifest[1], 200, (("content-type", manifest[0]), ("docker-content-digest", digest)))

    def _upload(self, seen: Seen, name: str, reference: str, body: bytes) -> Say:
        query = parse_qs(seen.target.partition("?")[2])
        if seen.method == "POST":
            if self.mounts and "mount" in query:
                found = self.blobs.get(f"{query['from'][0]}@{query['mount'][0]}")
                if found is not None:
                    self.blobs[f"{name}@{query['mount'][0]}"] = found
                    return Say(b"", 201)
            path = f"/v2/{name}/blobs/uploads/{len(self.uploads)}"
            self.uploads[path] = _Upload(name)
            return Say(b"", 202, (("location", self.location(path)),))
        upload = self.uploads.get(seen.path)
        if upload is None or (refused := self._append(seen, body)) is not None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN") if upload is None else refused or _error(500, "")
        reached = (("location", self.location(seen.path)), ("range", f"0-{max(len(upload.data) - 1, 0)}"))
        if seen.method == "GET":
            return Say(b"", 204, reached)
        if seen.method == "PATCH":
            return Say(b"", 202, reached)
        if seen.method == "DELETE":
            del self.uploads[seen.path]
            return Say(b"", 204)
        digest = query["digest"][0]
        if digest != f"sha256:{hashlib.sha256(upload.data).hexdigest()}":
            return _error(400, "DIGEST_INVALID")
        self.blobs[f"{name}@{digest}"] = bytes(upload.data)
        del self.uploads[seen.path]
        return Say(b"", 201)


def _error(status: int, code: str) -> Say:
    return Say(json.dumps({"errors": [{"code": code, "message": "as told"}]}).encode(), status)


def _reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@asynccontextmanager
async def fake_target() -> AsyncIterator[FakeTarget]:
    """A running fake. Everything it started is gone when the block ends."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = FakeTarget(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, target.serve, listeners)
        yield target
        nursery.cancel_scope.cancel()
