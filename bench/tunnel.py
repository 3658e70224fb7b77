"""The raw tunnel against haproxy in mode tcp with splicing, both in front of the same nginx.

One stream of 1 GiB by curl; then new connections a second: wrk with `Connection: close`, so that
every request of a few hundred bytes is a connection of its own through the tunnel.  One worker, one
haproxy thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.harness import MIB, Bench, Row, compare, content, download, origin, wrk
from kit.servers import Service, free_port, program


@contextlib.contextmanager
def haproxy(folder: Path, target: int) -> Iterator[int]:
    """haproxy on a port of its own, forwarding to `target`."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen tunnel
  bind 127.0.0.1:{port}
  server origin 127.0.0.1:{target}
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
    size = files.blob_bytes
    port = free_port()
    with origin(bench, files) as target, haproxy(bench.fresh("haproxy"), target.port) as peer:
        config = f'[[tunnel]]\nlisten = "127.0.0.1:{port}"\nto = "127.0.0.1:{target.port}"\n'
        with bench.ours(config, workers=1):
            blob, manifest = target.at(files.blob), target.at(files.manifest)

            def via(number: int, url: str) -> str:
                return url.replace(f":{target.port}/", f":{number}/")

            stream = bench.interleaved(
                {
                    "ours": lambda: download(via(port, blob), size).bytes_per_second,
                    "haproxy": lambda: download(via(peer, blob), size).bytes_per_second,
                }
            )
            rate = bench.interleaved(
                {
                    "ours": lambda: wrk(via(port, manifest), bench.seconds, 16, "Connection: close"),
                    "haproxy": lambda: wrk(via(peer, manifest), bench.seconds, 16, "Connection: close"),
                }
            )
    work = f"tunnel, one stream of {size // MIB} MiB"
    return [
        compare(work, "MiB/s", stream["ours"], ("haproxy", stream["haproxy"]), at_least=1.0, scale=MIB),
        compare("tunnel, new connections", "conn/s", rate["ours"], ("haproxy", rate["haproxy"]), at_least=0.4),
    ]
