"""How much memory does a worker take, idle and under 500 slow readers of one large blob?

The readers (`slow_readers`, a process of its own) take 1 MB/s each from a blob of 1 GiB that is
already kept, over plain HTTP/1.1; then over TLS, only shown.  Resident memory is VmRSS, the
largest worker; what 500 readers add is the difference, while all of them are in mid-body.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.harness import MIB, Bench, Content, Row, content, download, origin, proxy_of, resident, through


def run(bench: Bench) -> list[Row]:
    """Below 60 MB; less than 40 MB more."""
    files = content(bench.fresh("files"), bench.size(1024))
    readers = 50 if bench.quick else 500
    rows = []
    with origin(bench, files) as upstream:
        idle, added = _readers(bench, files, upstream.url, readers, tls=False)
        work = f"memory: {readers} readers of a {files.blob_bytes // MIB} MiB blob at 1 MB/s add, a worker"
        rows.append(Row("memory: idle worker", f"{idle / 1e6:.1f} MB", target="< 60 MB", reached=idle < 60e6))
        rows.append(Row(work, f"{added / 1e6:.1f} MB", target="< 40 MB", reached=added < 40e6))
        _, added = _readers(bench, files, upstream.url, readers, tls=True)
        rows.append(Row(f"{work}, over TLS", f"{added / 1e6:.1f} MB"))
    return rows


def _readers(bench: Bench, files: Content, upstream: str, readers: int, *, tls: bool) -> tuple[int, int]:
    """The largest worker's memory when idle, and what the readers add to it."""
    with bench.ours(proxy_of(upstream), workers=2, tls=tls) as server:
        idle = max(resident(pid) for pid in server.workers())
        url = through(server, files.blob)
        download(url, files.blob_bytes)
        before = {pid: resident(pid) for pid in server.workers()}
        script = Path(__file__).with_name("slow_readers.py")
        command = [sys.executable, script, url, str(readers), "1000000", "3" if bench.quick else "10"]
        reading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert reading.stdout is not None
        added = 0
        for line in reading.stdout:  # one line a second: how many are in mid-body
            if int(line) == readers:
                added = max(added, *(resident(pid) - was for pid, was in before.items()))
        assert reading.wait(60) == 0
        return idle, added
