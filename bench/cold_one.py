"""A cold blob of 256 MiB, one client, against curl from upstream directly: how much does passing through cost?

Every round starts a server with an empty folder; one manifest is pulled first, as every client does,
so that code and connections are warm and the blob is not.  Twice: over unlimited loopback, where the
cost of hashing and writing shows, and over a link of 1 Gbit/s (a veth pair with a token bucket), where
a real upstream is.  The first byte's time includes connecting, for both.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence

from bench.harness import MIB, Bench, Content, Download, Row, compare, content, download, origin, proxy_of, through
from bench.link import FAR, gigabit
from kit.netns import world


def run(bench: Bench) -> list[Row]:
    """At least 0.9 of the direct speed; first byte within 5 ms."""
    files = content(bench.fresh("files"), bench.size(256))
    rows = _measure(bench, files, "unlimited loopback", "127.0.0.1", ())
    with world(bench.fresh("world")) as far, gigabit(far):
        rows += _measure(bench, files, "link of 1 Gbit/s", FAR, far.enter)
    return rows


def _measure(bench: Bench, files: Content, link: str, host: str, within: Sequence[str]) -> list[Row]:
    size = files.blob_bytes
    ours: list[Download] = []
    direct: list[Download] = []
    with origin(bench, files, host=host, within=within) as upstream:
        for _ in range(bench.rounds):
            direct.append(download(upstream.at(files.blob), size))
            with bench.ours(proxy_of(upstream.url), workers=1) as server:
                subprocess.run(["curl", "-sf", "-o", "/dev/null", through(server, files.manifest)], check=True)
                ours.append(download(through(server, files.blob), size))
    speed = [statistics.median(each.bytes_per_second for each in found) for found in (ours, direct)]
    first = [statistics.median(each.first_byte for each in found) * 1000 for found in (ours, direct)]
    work = f"cold {size // MIB} MiB blob, one client, {link}"
    late = first[0] - first[1]
    return [
        compare(work, "MiB/s", speed[0], ("direct", speed[1]), at_least=0.9, scale=MIB),
        Row(
            f"{work}: first byte",
            f"{first[0]:.1f} ms",
            f"direct {first[1]:.1f} ms",
            f"{late:+.1f} ms",
            "≤ +5 ms",
            late <= 5,
        ),
    ]
