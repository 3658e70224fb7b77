"""A push goes on where it was, whatever is killed: a worker, or the whole program, in the middle or at its end."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from kit.http import Got, get, head
from kit.servers import Mxart, mxart, wait_until

LAYER = random.Random(9).randbytes(24_000_000)  # the same each time
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
BLOB = f"/v2/team/app/blobs/{DIGEST}"
OWN = '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'


class Pusher:
    """A client that pushes one layer, and believes what the server says of how far it is."""

    def __init__(self, server: Mxart) -> None:
        self.server = server
        password = (server.data / "admin-password").read_text().strip()
        self._login = {"authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}
        self.location = ""

    async def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Got:
        headers = {**self._login, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return await get(self.server.port, target, method=method, headers=headers, body=body)

    async def begin(self) -> None:
        got = await self.ask("POST", "/v2/team/app/blobs/uploads/", b"")
        assert got.status == 202
        self.location = got.headers["location"]

    async def offset(self) -> int:
        """How many bytes the server has."""
        got = await self.ask("GET", self.location)
        assert got.status == 204, got
        return int(got.headers["range"].rpartition("-")[2]) + 1 if got.headers["range"] != "0-0" else 0

    async def send_until_cut(self, start: int, *, pauses_at: int, then: Callable[[], None]) -> None:
        """A PATCH with the rest, as far as it goes; `then` is called when so much was sent."""
        fields = {**self._login, "content-length": str(len(LAYER) - start)}
        fields["content-range"] = f"{start}-{len(LAYER) - 1}"
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.server.port) as stream:
                await stream.send_all(head(self.location, method="PATCH", headers=fields))
                await stream.send_all(LAYER[start:pauses_at])
                then()
                await stream.send_all(LAYER[pauses_at:])
                await stream.receive_some(100)
        except trio.BrokenResourceError:
            pass

    async def finish(self) -> int:
        """Send what is missing, and close; returns where it went on from."""
        start = await self.offset()
        if start < len(LAYER):
            got = await self.ask("PATCH", self.location, LAYER[start:], content_range=f"{start}-{len(LAYER) - 1}")
            assert got.status == 202, got
            self.location = got.headers["location"]
        got = await self.ask("PUT", f"{self.location}?digest={DIGEST}", b"")
        assert got.status == 201, got
        return start

    async def check(self) -> None:
        got = await self.ask("GET", BLOB)
        assert (got.status, got.complete, got.body == LAYER) == (200, True, True)


def kill_writer(data: Path) -> None:
    """Kill the worker that is at the upload, as soon as one is."""
    os.kill(wait_until(lambda: writer(data), "a worker at the upload"), signal.SIGKILL)


def writer(data: Path) -> int:
    """The process that is at the upload; 0 if none is."""
    inodes = {str(path.stat().st_ino) for path in data.rglob("uploads/*.state")}
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[-3].rpartition(":")[2] in inodes:
            return int(fields[-4])
    return 0


@pytest.mark.parametrize("sent", [1, 12_000_000, 23_000_000])
async def test_a_worker_killed_in_the_middle_of_a_push_costs_what_was_on_the_way(tmp_path: Path, sent: int) -> None:
    with mxart(tmp_path, OWN, workers=2) as server:
        pusher = Pusher(server)
        with trio.fail_after(60):
            await pusher.begin()
            await pusher.send_until_cut(0, pauses_at=sent, then=lambda: kill_writer(server.data))
            assert await pusher.finish() <= sent
            await pusher.check()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_push_outlives_the_program(tmp_path: Path, how: signal.Signals) -> None:
    server = Mxart(tmp_path, OWN, workers=2)
    pusher = Pusher(server)
    with trio.fail_after(90):
        await pusher.begin()
        half = len(LAYER) // 2
        got = await pusher.ask("PATCH", pusher.location, LAYER[:half], content_range=f"0-{half - 1}")
        assert got.status == 202
        if how is signal.SIGTERM:
            server.stop()
        else:
            server.service.kill()
        with mxart(tmp_path, OWN, workers=2) as again:
            pusher.server = again
            assert await pusher.finish() == half
            await pusher.check()


@pytest.mark.parametrize("turn", range(3))
async def test_a_worker_killed_while_it_closes_a_push_leaves_it_done_or_still_to_do(tmp_path: Path, turn: int) -> None:
    with mxart(tmp_path, OWN, workers=2) as server:
        pusher = Pusher(server)
        with trio.fail_after(60):
            await pusher.begin()
            got = await pusher.ask("PATCH", pusher.location, LAYER)
            assert got.status == 202
            answers: list[Got] = []

            async def close() -> None:
                answers.append(await pusher.ask("PUT", f"{pusher.location}?digest={DIGEST}", b""))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(close)
                for _ in range(5 * turn):
                    await trio.lowlevel.checkpoint()
                for pid in workers(server):
                    os.kill(pid, signal.SIGKILL)
            if answers[0].status != 201:  # not told: it does it again, from wherever the server is
                state = await pusher.ask("GET", pusher.location)
                if state.status == 404:
                    await pusher.begin()
                await pusher.finish()
            await pusher.check()


def workers(server: Mxart) -> list[int]:
    """The processes below the program's own."""
    found = []
    for path in Path(f"/proc/{server.service.pid}/task").glob("*/children"):
        found += [int(pid) for pid in path.read_text().split()]
    return found
