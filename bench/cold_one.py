"""A cold blob of 256 MiB, one client, against curl from upstream directly: how much does passing through cost?

Every round starts a server with an empty folder; one manifest is pulled first, as every client does,
so that code and connections are warm and the blob is not.  Twice: over unlimited loopback, where the
cost of hashing and writing shows, and over a link of 1 Gbit/s (a veth pair with a token bucket), where
a real upstream is.  The first byte's time includes connecting, for both.

The page cache that a round fills has been touched just before: on a virtual machine whose host takes free memory
back (free page reporting), the first touch of 256 MiB can cost more than half a second, more than
receiving, writing, hashing and sending take together.  That figure would be the host's.

The processor time is that of the worker's threads; unlike the speed it hardly depends on what else the machine does.
Beside it stands what the digest alone takes, on one core without a pause: on loopback no program that judges the
bytes before it has sent the last of them is faster, and on two cores the rest of the work has not even its own.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import (
    MIB,
    Bench,
    Content,
    Download,
    Row,
    compare,
    content,
    download,
    origin,
    proxy_of,
    through,
    touch,
)
from bench.link import FAR, gigabit
from kit.netns import world
from kit.servers import Mxart


def run(bench: Bench) -> list[Row]:
    """At least 0.9 of the direct speed; first byte within 5 ms."""
    files = content(bench.fresh("files"), bench.size(256))
    rows = _measure(bench, files, "unlimited loopback", "127.0.0.1", ())
    with world(bench.fresh("world")) as far, gigabit(far):
        rows += _measure(bench, files, "link of 1 Gbit/s", FAR, far.enter)
    return rows


def _measure(bench: Bench, files: Content, link: str, host: str, within: Sequence[str]) -> list[Row]:
    size = files.blob_bytes
    ours: list[Download] = []
    direct: list[Download] = []
    processor: list[float] = []
    with origin(bench, files, host=host, within=within) as upstream:
        for _ in range(bench.rounds):
            direct.append(download(upstream.at(files.blob), size))
            folder = bench.fresh("mxart")
            with bench.ours(proxy_of(upstream.url), workers=1, folder=folder) as server:
                subprocess.run(["curl", "-sf", "-o", "/dev/null", through(server, files.manifest)], check=True)
                touch(folder, 2 * size)
                before = _processor(server)
                ours.append(download(through(server, files.blob), size))
                processor.append(_processor(server) - before)
            shutil.rmtree(folder)
    speed = [statistics.median(each.bytes_per_second for each in found) for found in (ours, direct)]
    first = [statistics.median(each.first_byte for each in found) * 1000 for found in (ours, direct)]
    work = f"cold {size // MIB} MiB blob, one client, {link}"
    late = first[0] - first[1]
    return [
        compare(work, "MiB/s", speed[0], ("direct", speed[1]), at_least=0.9, scale=MIB),
        Row(
            f"{work}: first byte",
            f"{first[0]:.1f} ms",
            f"direct {first[1]:.1f} ms",
            f"{late:+.1f} ms",
            "≤ +5 ms",
            late <= 5,
        ),
        Row(
            f"{work}: processor time",
            f"{statistics.median(processor):.2f} s",
            f"sha256 alone {_digesting(files):.2f} s",
        ),
    ]


def _digesting(files: Content) -> float:
    """Seconds of the processor that the digest of the blob takes."""
    block, hasher = bytes(MIB), hashlib.sha256()
    started = time.thread_time()
    for _ in range(files.blob_bytes // MIB):
        hasher.update(block)
    return time.thread_time() - started


def _processor(server: Mxart) -> float:
    """Seconds that the workers' threads have run (schedstat counts nanoseconds)."""
    tasks = [task for pid in server.workers() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
