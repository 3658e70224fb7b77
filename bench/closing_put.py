"""The closing PUT of an upload of 10 GiB: how long after the last byte is the layer there?

containerd gives up 30 s after the last byte, and so does whoever has a timeout: hashing 10 GiB again, or writing them
out then, is too late.  The blob is sent as docker does, the PUT has no body.  Where the disk is too small the
blob is smaller, and the row says how large it was.
"""

from __future__ import annotations

import shutil
import statistics

from bench.harness import MIB, Bench, Row
from bench.pushing import layer, ours, push, theirs

_PIECE = 64 * MIB
_SPARE = 2 << 30
"""Bytes that stay free on the disk."""


def run(bench: Bench) -> list[Row]:
    """Within 50 ms."""
    room = shutil.disk_usage(bench.folder).free - _SPARE
    repeat = max(1, min(bench.size(10 << 10), room) // _PIECE)
    big = layer(bench.fresh("layers"), _PIECE, repeat=repeat)
    rounds = 1 if bench.quick else 3
    closing, speed = [], []
    for _ in range(rounds):
        with ours(bench) as (target, _):
            pushed = push(target, [big], way="patch")
        closing.append(pushed.closing[0])  # of the layer; the second is the configuration's
        speed.append(big.size * repeat / pushed.seconds / MIB)
    with theirs(bench) as peer:
        other = push(peer, [big], way="patch")
    work = f"closing PUT of an upload of {big.size * repeat / (1 << 30):.1f} GiB"
    worst = max(closing)
    beside = f"docker-registry {other.closing[0] * 1000:.1f} ms"
    return [
        Row(f"{work}, the slowest of {rounds}", f"{worst * 1000:.1f} ms", beside, "–", "≤ 50 ms", worst <= 0.05),
        Row(
            f"{work}: all of it",
            f"{statistics.median(speed):,.0f} MiB/s",
            f"docker-registry {big.size * repeat / other.seconds / MIB:,.0f} MiB/s",
        ),
    ]
