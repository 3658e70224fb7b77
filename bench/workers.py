"""Do two workers serve nearly twice what one does?

Only where the machine has the cores to spare: wrk takes one of its own, so with fewer than four cores the
figure says how fair the sharing is, not how far it scales.
"""

from __future__ import annotations

import os

from bench.harness import MIB, Bench, Row, compare, content, origin, proxy_of, through, wrk


def run(bench: Bench) -> list[Row]:
    """At least 1.8 times with four cores or more; shown with fewer."""
    files = content(bench.fresh("files"), MIB)
    cores = len(os.sched_getaffinity(0))
    with (
        origin(bench, files) as upstream,
        bench.ours(proxy_of(upstream.url), workers=1) as one,
        bench.ours(proxy_of(upstream.url), workers=2) as two,
    ):
        found = bench.interleaved(
            {
                "one": lambda: wrk(through(one, files.manifest), bench.seconds, 32),
                "two": lambda: wrk(through(two, files.manifest), bench.seconds, 32),
            }
        )
    work = f"manifest by tag, two workers against one, {cores} cores shared with wrk"
    return [compare(work, "req/s", found["two"], ("one worker", found["one"]), at_least=1.8 if cores >= 4 else None)]
