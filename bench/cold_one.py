"""A cold blob of 256 MiB, one client, against curl from upstream directly: how much does passing through cost?

Every round starts a server with an empty folder; one manifest is pulled first, as every client does,
so that code and connections are warm and the blob is not.  Twice: over unlimited loopback, where the
cost of hashing and writing shows, and over a link of 1 Gbit/s (a veth pair with a token bucket), where
a real upstream is.  The first byte's time includes connecting, for both.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Iterator, Sequence

from bench.harness import MIB, Bench, Content, Download, Row, compare, content, download, origin, proxy_of, through
from kit.netns import World, world

# RFC 2544's addresses, for benchmarks.
_NEAR, _FAR = "198.18.77.1", "198.18.77.2"


def run(bench: Bench) -> list[Row]:
    """At least 0.9 of the direct speed; first byte within 5 ms."""
    files = content(bench.fresh("files"), bench.size(256))
    rows = _measure(bench, files, "unlimited loopback", "127.0.0.1", ())
    with world(bench.fresh("world")) as far, _link(far):
        rows += _measure(bench, files, "link of 1 Gbit/s", _FAR, far.enter)
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


@contextlib.contextmanager
def _link(far: World) -> Iterator[None]:
    """A veth pair into the other world, shaped where upstream sends."""
    spaces = next(part for part in far.enter if part.startswith("--net=")).removeprefix("--net=")
    near = ["ip", "link", "add", "mxbench0", "type", "veth", "peer", "name", "mxbench1"]
    subprocess.run([*near, "netns", spaces.split("/")[2]], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{_NEAR}/30", "dev", "mxbench0"], check=True)
        subprocess.run(["ip", "link", "set", "mxbench0", "up"], check=True)
        far.run("ip", "address", "add", f"{_FAR}/30", "dev", "mxbench1")
        far.run("ip", "link", "set", "mxbench1", "up")
        shape = ["rate", "1gbit", "burst", "256kb", "latency", "50ms"]
        far.run("tc", "qdisc", "add", "dev", "mxbench1", "root", "tbf", *shape)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", "mxbench0"], check=True)
