"""Clients that deploy to a running server, each on one connection, as Maven's do; and a process full of them.

As a program it deploys so many versions at once: its arguments are a port, a password, what to deploy (`release`,
`build`, `literal`), a seed and a count.  It writes a line for each that was acknowledged whole.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import time
from collections.abc import Iterable

import trio

from kit.http import Got, head, parse
from kit.maven import jar, listing, pom, sums

PACKAGE = "org/example/app"
SNAPSHOT = "1.0-SNAPSHOT"


class Line:
    """A client's connection, kept alive. Use it in `async with`."""

    def __init__(self, port: int, password: str, root: str = "/maven") -> None:
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        self._fields = {"connection": "keep-alive", "authorization": f"Basic {login}"}
        self._port = port
        self._root = root

    async def __aenter__(self) -> Line:
        self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Got:
        """One request. Raises BrokenResourceError where the server dies in the middle."""
        fields = dict(self._fields)
        if body is not None:
            fields["content-length"] = str(len(body))
        await self._stream.send_all(head(f"{self._root}/{path}", method=method, headers=fields) + (body or b""))
        data = bytearray()
        while (end := _end(data)) is None or len(data) < end:
            chunk = await self._stream.receive_some(1 << 16)
            if not chunk:
                raise trio.BrokenResourceError("the server has closed the connection")
            data += chunk
        return parse(bytes(data))

    async def put(self, path: str, data: bytes) -> None:
        """A file with the checksums that wagon sends. AssertionError where it is refused."""
        said = sums(data)
        for name, body in ((path, data), *((f"{path}.{sum_}", said[sum_].encode()) for sum_ in ("sha1", "md5"))):
            got = await self.ask("PUT", name, body)
            assert got.status in (200, 201), (name, got)


def _end(data: bytearray) -> int | None:
    """Where an answer ends whose head is there."""
    top, separator, _ = bytes(data).partition(b"\r\n\r\n")
    if not separator:
        return None
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", top)
    return len(top) + 4 + (int(length[1]) if length else 0)


async def deploy_release(line: Line, version: str) -> None:
    """A version as `mvn deploy` sends it: files, then the list with this version in it."""
    base = f"{PACKAGE}/{version}/app-{version}"
    await line.put(f"{base}.jar", jar(version))
    await line.put(f"{base}.pom", pom(version=version))
    await _finish(line, f"{PACKAGE}/maven-metadata.xml", version)


async def deploy_build(line: Line, stamp: str) -> str:
    """A build of a snapshot, whose number follows from the list that is read first. Returns its version."""
    path = f"{PACKAGE}/{SNAPSHOT}/maven-metadata.xml"
    got = await line.ask("GET", path)
    number = int(found[1]) if (found := re.search(rb"<buildNumber>(\d+)<", got.body)) else 0
    value = f"1.0-{stamp}-{number + 1}"
    base = f"{PACKAGE}/{SNAPSHOT}/app-{value}"
    await line.put(f"{base}.jar", jar(value))
    await line.put(f"{base}.pom", pom(version=SNAPSHOT, mark=value))
    snapshot = f"<snapshot><timestamp>{stamp}</timestamp><buildNumber>{number + 1}</buildNumber></snapshot>"
    said = f"<artifactId>app</artifactId><version>{SNAPSHOT}</version><versioning>{snapshot}</versioning>"
    await line.put(path, f"<metadata>{said}</metadata>".encode())
    await _finish(line, f"{PACKAGE}/maven-metadata.xml", SNAPSHOT)
    return value


async def deploy_literal(line: Line, mark: str) -> None:
    """A snapshot under the name that leaves its build to the server."""
    await line.put(f"{PACKAGE}/{SNAPSHOT}/app-{SNAPSHOT}.jar", jar(mark))


async def _finish(line: Line, path: str, version: str) -> None:
    """Read the list, add a line, send it back: whoever did that at the same time is overwritten, if we are believed."""
    got = await line.ask("GET", path)
    known = re.findall(rb"<version>([^<]+)</version>", got.body) if got.status == 200 else []
    await line.put(path, listing(*dict.fromkeys((*(text.decode() for text in known), version))))


async def main(port: int, password: str, what: str, seed: int, count: int) -> None:
    """See the module."""

    async def one(number: int) -> None:
        async with Line(port, password) as line:
            name = f"{seed}.{number}"
            if what == "release":
                await deploy_release(line, name)
            elif what == "build":
                stamp = time.strftime("%Y%m%d.%H%M%S", time.gmtime(1_700_000_000 + seed * 1000 + number))
                name = await deploy_build(line, stamp)
            else:
                await deploy_literal(line, name)
            os.write(1, f"{name}\n".encode())

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


def command(port: int, password: str, what: str, seed: int, count: int) -> list[str]:
    """How a process of these is started."""
    return [sys.executable, "-m", "kit.deploys", str(port), password, what, str(seed), str(count)]


def lines_of(data: Iterable[bytes]) -> list[str]:
    """What such processes have acknowledged, whole lines only."""
    return [line for piece in data for line in piece.decode().split("\n")[:-1]]


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
