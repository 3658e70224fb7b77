"""A pull over TLS through a tunnel chosen by SNI, against the same pull without us in between.

nginx answers over TLS; a client asks it directly, and through our listener, which reads the name in the hello and
splices.  One blob of 1 GiB: what does passing through cost?  skopeo pulls it as container clients do, hashing and
keeping it; curl, which does nothing with it, fetches it over a link of 1 Gbit/s, and over unlimited loopback, where it
and nginx alone keep two cores busy with their ciphers and every further copy takes from them (haproxy beside shows what
others make of that).  Then many new connections for a small manifest, one after the other: how much later is the
first byte, connecting and both handshakes included?
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence

from bench.harness import MIB, Bench, Content, Download, Row, compare, content, download, origin
from bench.link import FAR, gigabit
from bench.tunnel import haproxy
from kit.clients import Skopeo
from kit.netns import world

_NAME = "tunnelled.bench.example"
_REAL = "direct.bench.example"


def run(bench: Bench) -> list[Row]:
    """At least 0.95 of the direct speed; first byte within 2 ms."""
    files = content(bench.fresh("files"), bench.size(1024))
    rows = _pull(bench, files)
    with world(bench.fresh("world")) as far, gigabit(far):
        rows += _measure(bench, files, "link of 1 Gbit/s", FAR, far.enter, at_least=0.95)
    return rows + _measure(bench, files, "unlimited loopback", "127.0.0.1", (), at_least=None)


def _pull(bench: Bench, files: Content) -> list[Row]:
    size = files.blob_bytes
    names = dict.fromkeys((_NAME, _REAL), "127.0.0.1")
    with (
        origin(bench, files, tls=True) as target,
        world(bench.fresh("world"), names, network=False) as inside,
        bench.ours(_config("127.0.0.1", target.port), workers=1, listen=()) as server,
    ):
        skopeo = Skopeo(bench.fresh("skopeo"), inside, options=["tls-verify=false"])

        def pull(host: str) -> float:
            began = time.perf_counter()
            skopeo.pull(f"{host}/library/bench:1")
            taken = time.perf_counter() - began
            shutil.rmtree(skopeo.target)
            return size / taken

        speed = bench.interleaved(
            {
                "ours": lambda: pull(f"{_NAME}:{server.port}"),
                "direct": lambda: pull(f"{_REAL}:{target.port}"),
            }
        )
    work = f"tunnel by SNI, skopeo pulls {size // MIB} MiB over TLS"
    return [compare(work, "MiB/s", speed["ours"], ("direct", speed["direct"]), at_least=0.95, scale=MIB)]


def _config(host: str, port: int) -> str:
    return f'[[listener]]\naddress = "127.0.0.1:0"\ntls = true\n[[tunnel]]\nsni = ["{_NAME}"]\nto = "{host}:{port}"\n'


def _measure(
    bench: Bench, files: Content, link: str, host: str, within: Sequence[str], *, at_least: float | None
) -> list[Row]:
    size = files.blob_bytes
    small = (files.root / "v2" / "library/bench" / files.manifest).stat().st_size
    with (
        origin(bench, files, tls=True, host=host, within=within) as target,
        bench.ours(_config(host, target.port), workers=1, listen=()) as server,
        haproxy(bench.fresh("haproxy"), target.port, 1, host) as peer,
    ):
        places = {
            "ours": ("127.0.0.1", server.port),
            "direct": (host, target.port),
            "haproxy": ("127.0.0.1", peer),
        }

        def fetch(name: str, path: str, expected: int) -> Download:
            address, port = places[name]
            url = target.at(path).replace(host, _NAME, 1)
            return download(url, expected, "--http1.1", "--connect-to", f"::{address}:{port}")

        speed = bench.interleaved(
            {name: lambda name=name: fetch(name, files.blob, size).bytes_per_second for name in places}
        )
        first: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(10 if bench.quick else 200):
            for name in places:
                first[name].append(fetch(name, files.manifest, small).first_byte * 1000)
    ours, direct, theirs = (statistics.median(first[name]) for name in ("ours", "direct", "haproxy"))
    work = f"tunnel by SNI, TLS pull of {size // MIB} MiB, {link}"
    return [
        compare(work, "MiB/s", speed["ours"], ("direct", speed["direct"]), at_least=at_least, scale=MIB),
        compare(f"{work}, beside", "MiB/s", speed["haproxy"], ("direct", speed["direct"]), scale=MIB, who="haproxy"),
        Row(
            f"tunnel by SNI, first byte of a new connection, {link}",
            f"{ours:.2f} ms",
            f"direct {direct:.2f} ms, haproxy {theirs:.2f} ms",
            f"{ours - direct:+.2f} ms",
            "≤ +2 ms",
            ours - direct <= 2,
        ),
    ]
