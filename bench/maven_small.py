"""Small files that are kept, over HTTP/1.1, with one worker: a POM, a checksum, metadata, of a proxy and a group."""

from __future__ import annotations

from functools import partial

from bench.harness import Bench, Row, wrk
from kit.maven_tree import Artifact, MavenServer

_AT_LEAST = 5000


def run(bench: Bench) -> list[Row]:
    """Each at least 5,000 times a second."""
    artifact = Artifact("com.example", "app", "1.0", tuple(f"com.example:lib{n}:1.0" for n in range(20)))
    upstream = MavenServer(bench.fresh("upstream"), [artifact], real=False)
    files = {
        "a POM of a proxy": f"/proxy/{artifact.base}.pom",
        "its .sha1": f"/proxy/{artifact.base}.pom.sha1",
        "the POM through a group": f"/group/{artifact.base}.pom",
        "maven-metadata.xml of the group": "/group/com/example/app/maven-metadata.xml",
    }
    try:
        with bench.ours(_config(upstream)) as server:
            found = bench.interleaved(
                {name: partial(wrk, f"{server.url}{path}", bench.seconds) for name, path in files.items()}
            )
    finally:
        upstream.stop()
    return [
        Row(f"{name}, one worker", f"{rate:,.0f} req/s", target=f"≥ {_AT_LEAST:,}", reached=rate >= _AT_LEAST)
        for name, rate in found.items()
    ]


def _config(upstream: MavenServer) -> str:
    return f"""
[repository.own]
format = "maven"
kind = "local"
[repository.mirror]
format = "maven"
kind = "proxy"
upstream = "{upstream.url}"
path = "/proxy"
ttl = 86400
[repository.all]
format = "maven"
kind = "group"
members = ["own", "mirror"]
path = "/group"
"""
