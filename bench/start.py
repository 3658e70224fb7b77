"""From the command to the ready line, with two workers: the first start in an empty folder, and a later one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.harness import Bench, Row


def run(bench: Bench) -> list[Row]:
    """Within 0.7 s."""
    folders = iter([bench.fresh("data") for _ in range(bench.rounds + 1)])
    used = bench.fresh("used")
    _start(used, tls=True)
    found = bench.interleaved(
        {"first": lambda: _start(next(folders), tls=True), "later": lambda: _start(used, tls=True)}
    )
    return [
        Row(f"start: ready line, {name} start, TLS", f"{seconds:.2f} s", target="≤ 0.7 s", reached=seconds <= 0.7)
        for name, seconds in found.items()
    ]


def _start(data: Path, *, tls: bool) -> float:
    """Seconds until the ready line; then it is stopped and must end well."""
    command = [sys.executable, "-m", "mxart", "--data", str(data), "--listen", "127.0.0.1:0", "--workers", "2"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *(["--tls"] if tls else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - started
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert line.startswith(b"mxart ready: "), error.decode(errors="replace")
    assert process.returncode == 0, error.decode(errors="replace")
    return seconds
