"""`mxart gc` over 100,000 blobs while images are pulled: does anybody notice?

Half of the blobs have a name that no manifest needs any more, half have none at all; all are old enough to go.
Meanwhile a warm manifest is pulled at a steady pace, 400 times a second over 4 connections, far from what the
server can do, so that a pause shows and a queue of the load's own does not.  Two workers, and gc in a process of its
own, as from a shell; two cores for everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Bench, Row
from bench.pushing import OWN, REPOSITORY, Target, as_admin, layer, push

_RATE = 400
_DAYS = 2 * 86400.0


@dataclass(frozen=True)
class _Pulls:
    """What the pulls measured, in seconds."""

    count: int
    median: float
    p99: float
    worst: float


def run(bench: Bench) -> list[Row]:
    """The 99th percentile at most twice the usual."""
    blobs = 10_000 if bench.quick else 100_000
    folder = bench.fresh("mxart")
    with bench.ours(OWN, folder=folder) as server:
        push(Target(server.url, as_admin(server)), [layer(bench.fresh("layers"), 1 << 10)], way="put")
        data = server.data
    _strew(data, blobs)
    with bench.ours(OWN, workers=2, folder=folder) as server:
        url = f"{server.url}/v2/{REPOSITORY}/manifests/1"
        _finish(_start(url), 1)  # the first ones find cold code
        usual = _finish(_start(url), 2 if bench.quick else 10)
        pulling = _start(url)
        started = time.perf_counter()
        command = [sys.executable, "-m", "mxart", "--data", data, "--config", folder / "mxart.toml"]
        done = subprocess.run(
            [*command, "gc", "--grace", "0"], capture_output=True, text=True, timeout=600, check=False
        )
        took = time.perf_counter() - started
        while_it_ran = _finish(pulling, 0)
        assert done.returncode == 0, done.stderr
    left = sum(1 for path in (data / "store" / "blobs").rglob("*") if path.is_file())
    assert left <= 3, f"{left} blobs are left"
    work = f"warm manifest, {_RATE} pulls/s, while gc takes {blobs:,} blobs away"
    ratio = while_it_ran.p99 / usual.p99
    return [
        Row(
            f"{work}: 99th percentile",
            f"{while_it_ran.p99 * 1000:.2f} ms",
            f"usual {usual.p99 * 1000:.2f} ms",
            f"{ratio:.2f}",
            "≤ 2",
            ratio <= 2,
        ),
        Row(f"{work}: worst", f"{while_it_ran.worst * 1000:.1f} ms", f"usual {usual.worst * 1000:.1f} ms"),
        Row(f"{work}: gc itself", f"{took:.1f} s, {blobs / took:,.0f} blobs/s"),
    ]


def _start(url: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("paced_pulls.py")
    return subprocess.Popen(
        [sys.executable, script, url, str(_RATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _finish(pulling: subprocess.Popen[str], seconds: float) -> _Pulls:
    time.sleep(seconds)
    out, _ = pulling.communicate(timeout=60)
    assert pulling.returncode == 0
    return _Pulls(**json.loads(out))


def _strew(data: Path, count: int) -> None:
    """Blobs as the store and its catalog would have them after so many pushes and deletes."""
    old = time.time() - _DAYS
    rows = []
    for number in range(count):
        content = b"%d" % number
        digest = hashlib.sha256(content).hexdigest()
        path = data / "store" / "blobs" / "sha256" / digest[:2] / digest
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (old, old))
        if number % 2:
            rows.append((f"{REPOSITORY}/blobs/sha256:{digest}", f"sha256:{digest}", len(content), old, old))
    catalog = sqlite3.connect(data / "catalog.sqlite")
    with catalog:
        (owner, package) = catalog.execute(
            "SELECT repository, id FROM packages WHERE name = ?", (REPOSITORY,)
        ).fetchone()
        catalog.executemany(
            "INSERT INTO files (repository, package, path, digest, size, media_type, etag, last_modified, origin,"
            f" created, validated) VALUES ({owner}, {package}, ?, ?, ?, 'application/octet-stream', '', '', '', ?, ?)",
            rows,
        )
    catalog.close()
