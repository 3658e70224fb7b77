"""A worker killed while its thread draws a file: every client has the right bytes or knows that it has not."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from pathlib import Path

import pytest
import trio

from kit.http import Got, get, head, parse
from kit.servers import mxart, wait_until
from kit.upstream import fake_upstream, say

LAYER = random.Random(5).randbytes(24_000_000)  # the same each time
DIGEST = hashlib.sha256(LAYER).hexdigest()
PATH = f"/v2/a/blobs/sha256:{DIGEST}"
CLIENTS = 12


def config(upstream: str) -> str:
    return f'[repository.r]\nformat = "oci"\nkind = "proxy"\nupstream = "{upstream}"\npath = "/r"\n'


def writer(data: Path) -> int:
    """The process that holds the lock on the partial file."""
    files = [path for path in data.rglob("*") if DIGEST in path.name and not path.name.endswith(".notes")]
    inodes = {str(file.stat().st_ino) for file in files}
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[-3].rpartition(":")[2] in inodes:
            return int(fields[-4])
    return 0


def stored(data: Path) -> list[bytes]:
    """What is there under the name of a complete blob."""
    return [path.read_bytes() for path in data.rglob(DIGEST) if "blobs" in path.parts]


@pytest.mark.parametrize("killed_at", [1, 3_000_000, 12_000_000, 20_000_000])
async def test_a_worker_killed_while_it_draws_costs_its_own_clients_at_most(tmp_path: Path, killed_at: int) -> None:
    found: list[Got] = []
    async with fake_upstream() as upstream:
        upstream.on("/v2/", say(b"{}"))
        upstream.on(PATH, say(LAYER))
        with mxart(tmp_path, config(upstream.url), workers=2) as server:
            far = trio.Event()

            async def client() -> None:
                data = bytearray()
                async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                    await stream.send_all(head(f"/v2/r{PATH[3:]}"))
                    try:
                        while chunk := await stream.receive_some(1 << 18):
                            data += chunk
                            if len(data) >= killed_at:
                                far.set()
                    except trio.BrokenResourceError:
                        pass
                found.append(parse(bytes(data)))

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(CLIENTS):
                        nursery.start_soon(client)
                    await far.wait()
                    if pid := writer(server.data):
                        os.kill(pid, signal.SIGKILL)
                again = await get(server.port, f"/v2/r{PATH[3:]}")
            assert (again.status, again.complete, again.body == LAYER) == (200, True, True)
            for got in found:
                assert got.body == LAYER if got.complete else LAYER.startswith(got.body)
            assert len(found) == CLIENTS
            asked = [seen.headers for seen in upstream.requests if (seen.method, seen.path) == ("GET", PATH)]
            starts = [int(fields.get("range", "bytes=0-")[6:-1]) for fields in asked]
            assert starts == sorted(set(starts))  # what is on the disk is not fetched again
            assert len(starts) <= 2
            wait_until(lambda: stored(server.data), "stored")
    assert stored(tmp_path) == [LAYER]
