"""One layer of 1 GiB pushed to a local repository, against Debian's docker-registry: bytes a second.

Two ways: as docker, podman and skopeo push (POST, PATCH in chunks, closing PUT), and as containerd does
(POST, PUT with the body).  Both servers begin every round with an empty folder, on the same disk, and both
answer only when the layer is durable there (docker-registry's file driver calls fsync too).  Ours checks a password
with every request, docker-registry is open to anybody.  The layer's file is in the page cache.
"""

from __future__ import annotations

from functools import partial

from bench.harness import MIB, Bench, Row, compare, touch
from bench.pushing import Layer, Way, layer, ours, push, theirs


def run(bench: Bench) -> list[Row]:
    """At least 1.3 times docker-registry's speed."""
    big = layer(bench.fresh("layers"), bench.size(1024))
    rows = []
    ways: dict[Way, str] = {"patch": "as docker does", "put": "as containerd does"}
    for way, told in ways.items():
        found = bench.interleaved(
            {"ours": partial(_ours, bench, big, way), "docker-registry": partial(_theirs, bench, big, way)}
        )
        work = f"push of one layer of {big.size // MIB} MiB, {told}"
        rows.append(
            compare(
                work, "MiB/s", found["ours"], ("docker-registry", found["docker-registry"]), at_least=1.3, scale=MIB
            )
        )
    return rows


def _ours(bench: Bench, big: Layer, way: Way) -> float:
    touch(bench.folder, big.size)
    with ours(bench) as (target, _):
        return big.size / push(target, [big], way=way).seconds


def _theirs(bench: Bench, big: Layer, way: Way) -> float:
    touch(bench.folder, big.size)
    with theirs(bench) as target:
        return big.size / push(target, [big], way=way).seconds
