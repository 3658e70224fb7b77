"""A warm blob of 256 MiB over plain HTTP/1.1, against nginx with sendfile.

One curl at a time, to /dev/null; one worker each.  Both send from the page cache.
"""

from __future__ import annotations

from bench.harness import MIB, Bench, Row, compare, content, download, origin, proxy_of, through


def run(bench: Bench) -> list[Row]:
    """At least as fast as nginx."""
    files = content(bench.fresh("files"), bench.size(256))
    size = files.blob_bytes
    with origin(bench, files) as upstream, bench.ours(proxy_of(upstream.url), workers=1) as server:
        found = bench.interleaved(
            {
                "ours": lambda: download(through(server, files.blob), size).bytes_per_second,
                "nginx": lambda: download(upstream.at(files.blob), size).bytes_per_second,
            }
        )
    work = f"{size // MIB} MiB blob, warm, plain HTTP/1.1"
    return [compare(work, "MiB/s", found["ours"], ("nginx", found["nginx"]), at_least=1.0, scale=MIB)]
