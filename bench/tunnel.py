"""The raw tunnel against haproxy in mode tcp with splicing, both in front of the same nginx.

One stream of 1 GiB by curl, one worker against one haproxy thread; then new connections a second: wrk
with `Connection: close`, so that every request of a few hundred bytes is a connection of its own through
the tunnel.  That twice: both as they come, with as many workers, and threads, as there are CPUs; and one
worker against one thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.harness import MIB, Bench, Content, Origin, Row, compare, content, download, origin, wrk
from kit.servers import Service, free_port, program


@contextlib.contextmanager
def haproxy(folder: Path, target: int, threads: int, host: str = "127.0.0.1") -> Iterator[int]:
    """haproxy on a port of its own, forwarding to port `target` of `host`."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread {threads}
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen tunnel
  bind 127.0.0.1:{port}
  server origin {host}:{target}
"""
    )
    service = Service("haproxy", [program("haproxy"), "-db", "-f", config], folder)
    try:
        service.wait_for_port(port)
        yield port
    finally:
        service.kill()


def run(bench: Bench) -> list[Row]:
    """At least as fast as haproxy; at least 0.4 of its connections a second."""
    files = content(bench.fresh("files"), bench.size(1024))
    cpus = len(os.sched_getaffinity(0))
    with origin(bench, files) as target:
        rows = _measure(bench, files, target, 1, stream=True)
        return rows if cpus == 1 else rows[:1] + _measure(bench, files, target, cpus, stream=False) + rows[1:]


def _measure(bench: Bench, files: Content, target: Origin, workers: int, *, stream: bool) -> list[Row]:
    port = free_port()
    size = files.blob_bytes
    rows: list[Row] = []
    with haproxy(bench.fresh("haproxy"), target.port, workers) as peer:
        config = f'[[tunnel]]\nlisten = "127.0.0.1:{port}"\nto = "127.0.0.1:{target.port}"\n'
        with bench.ours(config, workers=workers):
            blob, manifest = target.at(files.blob), target.at(files.manifest)

            def via(number: int, url: str) -> str:
                return url.replace(f":{target.port}/", f":{number}/")

            if stream:
                speed = bench.interleaved(
                    {
                        "ours": lambda: download(via(port, blob), size).bytes_per_second,
                        "haproxy": lambda: download(via(peer, blob), size).bytes_per_second,
                    }
                )
                work = f"tunnel, one stream of {size // MIB} MiB"
                rows.append(
                    compare(work, "MiB/s", speed["ours"], ("haproxy", speed["haproxy"]), at_least=1.0, scale=MIB)
                )
            rate = bench.interleaved(
                {
                    "ours": lambda: wrk(via(port, manifest), bench.seconds, 16, "Connection: close"),
                    "haproxy": lambda: wrk(via(peer, manifest), bench.seconds, 16, "Connection: close"),
                }
            )
    work = f"tunnel, new connections, {workers} workers and {workers} threads"
    whole = workers == len(os.sched_getaffinity(0))
    theirs = ("haproxy", rate["haproxy"])
    rows.append(compare(work, "conn/s", rate["ours"], theirs, at_least=0.4 if whole else None))
    return rows
