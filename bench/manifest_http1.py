"""A manifest by tag, warm, over HTTP/1.1: how many a second does one worker answer?

What a cluster asks all day: `GET /v2/<name>/manifests/<tag>` for a tag that is fresh.  wrk on one
thread with 16 connections.  Ours runs one worker; Debian's docker-registry, with a small
image in its filesystem store, may use every core; nginx serves the same bytes as ours as a static file with one worker.
"""

from __future__ import annotations

from bench.harness import MIB, REPOSITORY, Bench, Row, compare, content, origin, proxy_of, through, wrk
from kit.registry import OCI_MANIFEST, Registry, image, running, tar


def run(bench: Bench) -> list[Row]:
    """At least 4 times docker-registry's requests a second."""
    files = content(bench.fresh("files"), MIB)
    small = image(tar({"etc/hello": b"hello\n"}))
    registry = Registry(bench.fresh("root"), bench.fresh("registry"))
    accept = f"Accept: {OCI_MANIFEST}"  # docker-registry denies what the client does not say it takes
    with (
        origin(bench, files) as upstream,
        running(registry),
        bench.ours(proxy_of(upstream.url), workers=1) as server,
    ):
        registry.publish_image(REPOSITORY, "1", small)
        theirs = f"{registry.url}/v2/{REPOSITORY}/manifests/1"
        found = bench.interleaved(
            {
                "ours": lambda: wrk(through(server, files.manifest), bench.seconds, 16, accept),
                "docker-registry": lambda: wrk(theirs, bench.seconds, 16, accept),
                "nginx": lambda: wrk(upstream.at(files.manifest), bench.seconds, 16, accept),
            }
        )
    work = "manifest by tag, warm, 16 connections, HTTP/1.1, one worker"
    return [
        compare(work, "req/s", found["ours"], ("docker-registry", found["docker-registry"]), at_least=4),
        compare(f"{work}, beside", "req/s", found["ours"], ("nginx", found["nginx"])),
    ]
