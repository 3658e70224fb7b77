"""The same blob over TLS, against nginx: TLS 1.3, the same cipher and kind of key. HTTP/1.1; HTTP/2 is only shown."""

from __future__ import annotations

from bench.harness import MIB, Bench, Row, compare, content, download, origin, proxy_of, through


def run(bench: Bench) -> list[Row]:
    """At least 0.95 of nginx."""
    files = content(bench.fresh("files"), bench.size(256))
    size = files.blob_bytes
    rows = []
    with (
        origin(bench, files) as upstream,
        origin(bench, files, tls=True) as peer,
        bench.ours(proxy_of(upstream.url), workers=1, tls=True) as server,
    ):
        for version, target in (("--http1.1", 0.95), ("--http2", None)):
            found = bench.interleaved(
                {
                    "ours": lambda v=version: download(through(server, files.blob), size, v).bytes_per_second,
                    "nginx": lambda v=version: download(peer.at(files.blob), size, v).bytes_per_second,
                }
            )
            work = f"{size // MIB} MiB blob, warm, TLS, HTTP/{'1.1' if version == '--http1.1' else '2'}"
            rows.append(compare(work, "MiB/s", found["ours"], ("nginx", found["nginx"]), at_least=target, scale=MIB))
    return rows
