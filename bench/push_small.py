"""200 small layers, 4 at a time, pushed to a local repository, against Debian's docker-registry: layers a second.

Four connections that are kept; for each layer of 10 KiB what docker asks: HEAD (not there), POST, PATCH, closing
PUT; the manifest at the end.  Every round pushes new layers into a repository of its own.  Ours runs two
workers and checks a password with every request; docker-registry may use every core and is open to anybody.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from bench.harness import Bench, Row, compare
from bench.pushing import Target, Way, layer, ours, push, theirs

_LAYERS = 200
_SIZE = 10 << 10


def run(bench: Bench) -> list[Row]:
    """At least 1.5 times docker-registry's layers a second."""
    rows = []
    ways: dict[Way, str] = {"patch": "as docker does", "put": "as containerd does"}
    numbers = count()
    with ours(bench) as (target, _), theirs(bench) as peer:
        for way, told in ways.items():
            found = bench.interleaved(
                {
                    "ours": partial(_push, bench, target, way, numbers),
                    "docker-registry": partial(_push, bench, peer, way, numbers),
                }
            )
            work = f"push of {_LAYERS} layers of {_SIZE >> 10} KiB, 4 at a time, {told}"
            rows.append(
                compare(work, "layers/s", found["ours"], ("docker-registry", found["docker-registry"]), at_least=1.5)
            )
    return rows


def _push(bench: Bench, target: Target, way: Way, numbers: count[int]) -> float:
    folder = bench.fresh("layers")
    layers = [layer(folder, _SIZE) for _ in range(_LAYERS)]
    repository = f"team/app{next(numbers)}"
    return _LAYERS / push(target, layers, way=way, parallel=4, repository=repository).seconds
