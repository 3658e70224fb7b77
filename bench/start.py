"""From the command to the ready line, with two workers: the first start in an empty folder, and a later one.

As installed: with its bytecode, which pip makes, and a checkout may lack (PYTHONDONTWRITEBYTECODE).  The processor
time is what supervisor and workers have used by then; unlike the speed it hardly depends on what else the machine does.
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import mxart
from bench.harness import Bench, Row


def run(bench: Bench) -> list[Row]:
    """Within 0.7 s."""
    compileall.compile_dir(Path(mxart.__file__).parent, quiet=1)
    used = bench.fresh("used")
    _start(used)  # and fills the caches
    first, later = [], []
    for _ in range(bench.rounds):
        first.append(_start(bench.fresh("data")))
        later.append(_start(used))
    return [*_rows("first", first), *_rows("later", later)]


def _rows(name: str, found: Iterable[tuple[float, float]]) -> list[Row]:
    seconds, processor = (statistics.median(each) for each in zip(*found, strict=True))
    work = f"start: ready line, {name} start, TLS"
    return [
        Row(work, f"{seconds:.2f} s", target="≤ 0.7 s", reached=seconds <= 0.7),
        Row(f"{work}: processor time", f"{processor:.2f} s"),
    ]


def _start(data: Path) -> tuple[float, float]:
    """Seconds until the ready line, and of the processor; then it is stopped and must end well."""
    command = [sys.executable, "-m", "mxart", "--data", str(data), "--listen", "127.0.0.1:0", "--workers", "2", "--tls"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - started
    processor = _processor(process.pid)
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert line.startswith(b"mxart ready: "), error.decode(errors="replace")
    assert process.returncode == 0, error.decode(errors="replace")
    return seconds, processor


def _processor(supervisor: int) -> float:
    """Seconds that a process and its children have run (schedstat counts nanoseconds)."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    pids = [str(supervisor), *children]
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9
