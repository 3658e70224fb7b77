"""Full TLS handshakes a second against nginx, both with a certificate on a P-256 key.

Several `openssl s_time -new` at once: each connects, shakes hands anew, and cuts the connection, without a request.
It says of every handshake whether a session was resumed; none may be.  It offers no ALPN, so that a connection is one
of HTTP/1.1 that ends before its first request.

A client's handshake costs the processor more than a server's, so on one machine the clients take their share of the
rate.  The rows that are only shown count what the servers' processes used, and nothing else.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from bench.harness import Bench, Row, compare, server_certificate
from kit.servers import Service, free_port, nginx, program

_VERSIONS = {"TLS 1.3": "-tls1_3", "TLS 1.2": "-tls1_2"}


@contextmanager
def _peer(bench: Bench, workers: int) -> Iterator[tuple[Service, int]]:
    folder, port = bench.fresh("nginx"), free_port()
    certificate, key = server_certificate(folder)
    service = nginx(
        folder,
        f"""server {{
          listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
          ssl_certificate {certificate}; ssl_certificate_key {key};
        }}""",
        port=port,
        workers=workers,
    )
    try:
        yield service, port
    finally:
        service.kill()


def run(bench: Bench) -> list[Row]:
    """At least 0.7 of nginx, with one process each and with one for each CPU."""
    cpus = len(os.sched_getaffinity(0))
    rows = []
    for workers in sorted({1, cpus}):
        with _peer(bench, workers) as (service, port), bench.ours("", workers=workers, tls=True) as server:
            for name, option in _VERSIONS.items():
                if workers == 1 or name == "TLS 1.3":
                    processes = "one worker" if workers == 1 else f"{workers} workers"
                    rows += _measure(
                        bench,
                        f"{name} handshakes, full, no request, {processes}",
                        option,
                        ours=(server.port, server.workers()),
                        theirs=(port, _children(service.pid)),
                    )
    return rows


def _measure(
    bench: Bench, work: str, option: str, *, ours: tuple[int, list[int]], theirs: tuple[int, list[int]]
) -> list[Row]:
    costs: dict[str, list[float]] = {"ours": [], "nginx": []}

    def measure(name: str, port: int, processes: list[int]) -> Callable[[], float]:
        def one() -> float:
            used, begun = _used(processes), perf_counter()
            count = _connect(port, option, bench.seconds)
            elapsed = perf_counter() - begun  # s_time ends at a full second
            costs[name].append((_used(processes) - used) / count)
            return count / elapsed

        return one

    rate = bench.interleaved({"ours": measure("ours", *ours), "nginx": measure("nginx", *theirs)})
    cost = {name: statistics.median(found[1:]) for name, found in costs.items()}
    return [
        compare(work, "/s", rate["ours"], ("nginx", rate["nginx"]), at_least=0.7),
        compare(f"{work}: per second of the server's CPU", "", 1 / cost["ours"], ("nginx", 1 / cost["nginx"])),
    ]


def _connect(port: int, option: str, seconds: int) -> int:
    """How many handshakes clients enough for all CPUs made."""
    command = [program("openssl"), "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(seconds), option]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    count = 0
    try:
        for client in clients:
            text, _ = client.communicate(timeout=60)
            found = re.search(r"^(\S*)\n*\s*(\d+) connections in [0-9.]+s;", text, re.MULTILINE)
            assert found, text
            assert client.returncode == 0, text
            assert "r" not in found[1], "a session was resumed"
            count += int(found[2])
    finally:
        for client in clients:
            client.kill()
            client.wait()
    return count


def _used(processes: list[int]) -> float:
    """Seconds that these processes have run on a CPU."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in processes) / 1e9


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
