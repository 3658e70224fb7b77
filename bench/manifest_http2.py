"""The same manifest over HTTP/2 on TLS, against nginx.

h2load on one thread with 16 connections, one stream each, so that as many requests are under way as
over HTTP/1.1; then ten streams each.  TLS 1.3 with the same cipher for both; one worker each.
"""

from __future__ import annotations

from bench.harness import MIB, Bench, Row, compare, content, h2load, origin, proxy_of, through


def run(bench: Bench) -> list[Row]:
    """At least 0.15 of nginx."""
    files = content(bench.fresh("files"), MIB)
    rows = []
    with (
        origin(bench, files) as upstream,
        origin(bench, files, tls=True) as peer,
        bench.ours(proxy_of(upstream.url), workers=1, tls=True) as server,
    ):
        for streams, target in ((1, 0.15), (10, None)):
            found = bench.interleaved(
                {
                    "ours": lambda n=streams: h2load(through(server, files.manifest), bench.seconds, streams=n),
                    "nginx": lambda n=streams: h2load(peer.at(files.manifest), bench.seconds, streams=n),
                }
            )
            work = f"same over HTTP/2 on TLS, {streams} stream{'s' if streams > 1 else ''} each"
            rows.append(compare(work, "req/s", found["ours"], ("nginx", found["nginx"]), at_least=target))
    return rows
