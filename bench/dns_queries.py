"""DNS answers a second over UDP against dnsmasq: a name of our own, and one that was forwarded once.

dnsperf keeps a hundred questions under way.  One worker against dnsmasq's one process, which is written in C and
does nothing else: the row shows the distance, there is no target.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from functools import partial
from pathlib import Path

from bench.harness import Bench, Row, compare
from kit.nameserver import Dnsmasq
from kit.servers import free_port, program

_UNDER_WAY = 100


def run(bench: Bench) -> list[Row]:
    """Shown only."""
    folder = bench.fresh("dns")
    theirs, ours = free_port(), free_port()
    config = f"""
[dns]
listen = "127.0.0.1:{ours}"
answer = ["192.0.2.1"]
forward = ["127.0.0.1:{theirs}"]
names = ["own.test"]
"""
    peer = Dnsmasq(folder, theirs, "address=/own.test/192.0.2.1", "host-record=forwarded.test,192.0.2.2", log=False)
    with contextlib.closing(peer), bench.ours(config):
        rows = []
        for work, name in (("a name of our own", "own.test"), ("a forwarded name, kept", "forwarded.test")):
            questions = folder / name
            questions.write_text(f"{name} A\n")
            found = bench.interleaved(
                {
                    "ours": partial(_per_second, questions, ours, bench.seconds),
                    "dnsmasq": partial(_per_second, questions, theirs, bench.seconds),
                }
            )
            rows.append(compare(f"DNS, {work}", "/s", found["ours"], ("dnsmasq", found["dnsmasq"])))
        return rows


def _per_second(questions: Path, port: int, seconds: int) -> float:
    command = [program("dnsperf"), "-s", "127.0.0.1", "-p", str(port), "-d", questions]
    command += ["-l", str(seconds), "-c", "8", "-q", str(_UNDER_WAY)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    lost = re.search(r"Queries lost:\s+(\d+)", said)
    rate = re.search(r"Queries per second:\s+([\d.]+)", said)
    assert lost is not None, said
    assert rate is not None, said
    assert lost[1] == "0", said
    return float(rate[1])
