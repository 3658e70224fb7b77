"""Maven builds three modules with an empty local repository: from us, warm, and from nginx over the same tree.

What a build on a new machine waits for: some 600 requests of small files and as many of their checksums, most of them
one after the other.  The client's own work is most of it on both sides.
"""

from __future__ import annotations

import shutil
import time

from bench.harness import Bench, Row
from kit.maven_command import Maven
from kit.maven_project import write_build
from kit.maven_tree import MavenServer

_VERSIONS = ("3.8", "3.9")
"""By wagon, which asks for each checksum; by the resolver, which takes them from the answer's fields."""


def run(bench: Bench) -> list[Row]:
    """At most 1.15 times nginx."""
    upstream = MavenServer(bench.fresh("upstream"))
    rows = []
    try:
        with bench.ours(_proxy_of(upstream), workers=2) as server:
            for version in _VERSIONS:
                found = bench.interleaved(
                    {
                        "ours": lambda of=version: _build(bench, f"{server.url}/maven", of),
                        "nginx": lambda of=version: _build(bench, upstream.url, of),
                    }
                )
                ratio = found["ours"] / found["nginx"]
                work = f"mvn {version} verify of three modules, empty local repository, warm"
                figures = (f"{found['ours']:.2f} s", f"nginx {found['nginx']:.2f} s")
                rows.append(Row(work, *figures, f"{ratio:.2f}", "≤ 1.15", ratio <= 1.15))
    finally:
        upstream.stop()
    return rows


def _proxy_of(upstream: MavenServer) -> str:
    return f"""
[repository.mirror]
format = "maven"
kind = "proxy"
upstream = "{upstream.url}"
path = "/maven"
ttl = 86400
"""


def _build(bench: Bench, url: str, version: str) -> float:
    """Seconds of a build on a new machine."""
    folder = bench.fresh("client")
    maven = Maven(folder / "maven", url, version=version)
    build = write_build(folder / "build", "1.0")
    started = time.perf_counter()
    maven.run("verify", cwd=build)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds
