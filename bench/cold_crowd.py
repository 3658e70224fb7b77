"""A cold blob and 32 clients at once, two workers: is upstream asked once, and does anybody wait?

Upstream paces each connection, so that a second download would show in its log and the link, not the
processor, decides the time.  The single client is measured the same way, on a server of its own.
"""

from __future__ import annotations

import subprocess

from bench.harness import (
    MIB,
    Bench,
    Content,
    Download,
    Row,
    content,
    curl_command,
    curl_told,
    origin,
    proxy_of,
    through,
)

_CLIENTS = 32


def run(bench: Bench) -> list[Row]:
    """Exactly one GET; the slowest within 1.5 times the single one."""
    files = content(bench.fresh("files"), bench.size(128))
    single, _ = _crowd(bench, files, 1)
    crowd, gets = _crowd(bench, files, _CLIENTS)
    slowest = max(each.seconds for each in crowd)
    alone = single[0].seconds
    work = f"cold {files.blob_bytes // MIB} MiB blob, {_CLIENTS} clients at once, 2 workers"
    return [
        Row(f"{work}: upstream GETs", str(gets), target="1", reached=gets == 1),
        Row(
            f"{work}: slowest",
            f"{slowest:.2f} s",
            f"single {alone:.2f} s",
            f"{slowest / alone:.2f}",
            "≤ 1.5",
            slowest <= 1.5 * alone,
        ),
    ]


def _crowd(bench: Bench, files: Content, clients: int) -> tuple[list[Download], int]:
    """What each client measured, and how often upstream was asked for the blob."""
    with (
        origin(bench, files, rate=files.blob_bytes // (1 if bench.quick else 4)) as upstream,
        bench.ours(proxy_of(upstream.url), workers=2) as server,
    ):
        command = curl_command(through(server, files.blob))
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(clients)
        ]
        found = []
        for process in running:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            found.append(curl_told(out, files.blob_bytes))
        return found, upstream.gets(files.blob)
