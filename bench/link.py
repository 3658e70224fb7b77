"""A link of 1 Gbit/s: where upstreams really are, unlike on the loopback."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from kit.netns import World

# RFC 2544's addresses, for benchmarks.
_NEAR, FAR = "198.18.77.1", "198.18.77.2"


@contextlib.contextmanager
def gigabit(far: World) -> Iterator[None]:
    """A veth pair into the other world, 1 Gbit/s where that one sends; it answers at `FAR`."""
    spaces = next(part for part in far.enter if part.startswith("--net=")).removeprefix("--net=")
    near = ["ip", "link", "add", "mxbench0", "type", "veth", "peer", "name", "mxbench1"]
    subprocess.run([*near, "netns", spaces.split("/")[2]], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{_NEAR}/30", "dev", "mxbench0"], check=True)
        subprocess.run(["ip", "link", "set", "mxbench0", "up"], check=True)
        far.run("ip", "address", "add", f"{FAR}/30", "dev", "mxbench1")
        far.run("ip", "link", "set", "mxbench1", "up")
        shape = ["rate", "1gbit", "burst", "256kb", "latency", "50ms"]
        far.run("tc", "qdisc", "add", "dev", "mxbench1", "root", "tbf", *shape)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", "mxbench0"], check=True)
