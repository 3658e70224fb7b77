"""`python -m bench [--quick] [--out FILE] [name...]`: run the questions, print one Markdown table.

Needs Go, Maven, and Debian's docker-registry, nginx, haproxy, wrk, nghttp2-client, dnsperf, dnsmasq-base and curl, and
root for the shaped link.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

# The tests' kit knows how to run servers and peers; the questions share it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

QUESTIONS = (
    "manifest_http1",
    "manifest_http2",
    "handshakes",
    "blob_plain",
    "blob_tls",
    "tunnel",
    "tunnel_tls",
    "cold_one",
    "cold_crowd",
    "memory",
    "start",
    "workers",
    "dns_queries",
    "push_large",
    "push_small",
    "closing_put",
    "tags_list",
    "token_checks",
    "gc_pause",
    "go_modules",
    "maven_build",
    "maven_small",
    "maven_deploy",
)


def main() -> int:
    """Exit 0 if every target was reached, 1 if one was missed, 2 if a question could not be answered."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure against the peers.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(QUESTIONS)}")
    parser.add_argument("--quick", action="store_true", help="short rounds: does it run? the figures mean little")
    parser.add_argument("--out", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    names = arguments.names or list(QUESTIONS)
    if unknown := [name for name in names if name not in QUESTIONS]:
        parser.error(f"no question named {', '.join(unknown)}; there are: {', '.join(QUESTIONS)}")

    from bench.harness import HEADING, Bench  # noqa: PLC0415  # after the path to the kit is set

    failed = missed = False
    lines = [_machine(quick=arguments.quick), "", *HEADING]
    sys.stdout.write("\n".join(lines) + "\n")
    for name in names:
        sys.stderr.write(f"... {name}\n")
        with tempfile.TemporaryDirectory(prefix="mx-bench-") as folder:
            try:
                rows = importlib.import_module(f"bench.{name}").run(Bench(Path(folder), quick=arguments.quick))
            except KeyboardInterrupt:
                return 130
            except BaseException:  # noqa: BLE001  # a missing peer ends its question as pytest's Skipped, no Exception
                failed = True
                traceback.print_exc()
                rows = []
        for row in rows:
            missed |= row.reached is False
            lines.append(row.markdown())
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")
    return 2 if failed else int(missed)


def _machine(*, quick: bool) -> str:
    model = next(
        (
            row.partition(":")[2].strip()
            for row in Path("/proc/cpuinfo").read_text().splitlines()
            if row.startswith("model name")
        ),
        "?",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {commit or '?'}, {len(os.sched_getaffinity(0))} cores of {model}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, one run, medians of interleaved rounds"
        + (" (quick: the figures mean little)" if quick else "")
    )


if __name__ == "__main__":
    sys.exit(main())
