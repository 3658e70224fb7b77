"""The go command downloads a graph of 100 modules: from us, from a folder, from nginx, and cold from upstream itself.

Every measure is a whole `go mod download all` into an empty module cache: the client's own work, unpacking and hashing,
is most of it on all sides.  nginx has the same files, and sends them over HTTP/2 on TLS as we do: no proxy of modules
can be faster than that, so it stands for those that are not on this machine.  Then a module's `.info` by itself, over
HTTP/2 on TLS, with one worker; and what the processor has to do for a file, which a busy machine does not change much.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from bench.harness import Bench, Row, h2load
from kit.go_command import GoCommand, ModuleServer
from kit.modules import Module
from kit.servers import Mxart, free_port, nginx

_MODULES = 100
# In each module, beside the others: about what a real graph has on average (134 modules that k8s.io/client-go needs).
_FILES = 150
_FILE_BYTES = 5 << 10
_RATE = "4m"  # of a connection to an upstream that is not on this machine
_KINDS = 3  # files of a version


def run(bench: Bench) -> list[Row]:
    """Warm at most 1.3 times the folder; cold at most 1.2 times upstream; 3,000 answers a second."""
    graph = _graph(20 if bench.quick else _MODULES)
    near, far = (ModuleServer(bench.fresh("upstream"), graph, rate=rate) for rate in ("", _RATE))
    config = _proxy_of(near)

    def from_ours(server: Mxart) -> float:
        return _download(bench, graph[0], f"{server.url}/go", server.ca)

    def cold() -> float:
        with bench.ours(_proxy_of(far), workers=2, tls=True) as server:
            return from_ours(server)

    def work(server: Mxart) -> float:
        """Seconds of the processors that a download costs the server."""
        before = _cpu(server.service.pid)
        from_ours(server)
        return _cpu(server.service.pid) - before

    def cold_work() -> float:
        with bench.ours(config, workers=2, tls=True) as server:
            return work(server)

    with (
        _stopping(near),
        _stopping(far),
        _static(bench, near.tree) as (static, trusted),
        bench.ours(config, workers=2, tls=True) as server,
    ):
        found = bench.interleaved(
            {
                "warm": lambda: from_ours(server),
                "work": lambda: work(server),
                "cold work": cold_work,
                "file": lambda: _download(bench, graph[0], f"file://{near.tree}"),
                "nginx": lambda: _download(bench, graph[0], static, trusted),
                "cold": cold,
                "direct": lambda: _download(bench, graph[0], far.url),
            }
        )
        with bench.ours(config, tls=True) as alone:
            info = f"{alone.url}/go/{graph[0].base}.info"
            rate = bench.interleaved({"info": lambda: h2load(info, bench.seconds, streams=10)})["info"]
    rows = [
        _row(f"go mod download of {len(graph)} modules, warm", found["warm"], "file://", found["file"], 1.3),
        _row("the same", found["warm"], "nginx, HTTP/2", found["nginx"]),
        _row(
            "the same, cold, from an upstream of 4 MB/s a connection",
            found["cold"],
            "upstream itself",
            found["direct"],
            1.2,
        ),
    ]
    rows += [
        Row(f"CPU for a file of a module, {name}", f"{1000 * found[key] / len(graph) / _KINDS:.2f} ms")
        for name, key in (("warm", "work"), ("cold", "cold work"))
    ]
    return [*rows, Row("a module's .info over HTTP/2", f"{rate:,.0f} req/s", target="≥ 3,000", reached=rate >= 3000)]


def _row(work: str, ours: float, peer: str, theirs: float, most: float | None = None) -> Row:
    ratio = ours / theirs
    target = "shown" if most is None else f"≤ {most}"
    reached = None if most is None else ratio <= most
    return Row(work, f"{ours:.2f} s", f"{peer} {theirs:.2f} s", f"{ratio:.2f}", target, reached)


def _cpu(pid: int) -> float:
    """Seconds of the processors that a process and its children have had so far (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu(int(child)) for child in children)


@contextmanager
def _static(bench: Bench, tree: Path) -> Iterator[tuple[str, Path]]:
    """nginx over a tree of files, by HTTP/2 on TLS: its URL, and the certificate to trust."""
    folder, port = bench.fresh("static"), free_port()
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    secure = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    where = f"listen 127.0.0.1:{port} ssl http2; root {tree}; default_type application/octet-stream;"
    service = nginx(folder, f"sendfile on; server {{ {where} {secure} }}", port=port, workers=2)
    try:
        yield f"https://127.0.0.1:{port}", folder / "ca.pem"
    finally:
        service.kill()


def _graph(count: int) -> list[Module]:
    """Each needs the next few, so that the client learns of them step by step."""
    noise = random.Random(5)  # the same bytes in each run

    def module(number: int) -> Module:
        needs = ((f"example.com/m{n}", "v1.0.0") for n in range(4 * number + 1, min(4 * number + 5, count)))
        extra = {f"data{n}.txt": noise.randbytes(_FILE_BYTES // 2).hex().encode() for n in range(_FILES)}
        return Module(f"example.com/m{number}", "v1.0.0", tuple(needs), extra)

    return [module(number) for number in range(count)]


def _proxy_of(upstream: ModuleServer) -> str:
    return f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
path = "/go"
sumdb = "off"
"""


def _download(bench: Bench, root: Module, proxy: str, ca: Path | None = None) -> float:
    """Seconds of `go mod download all` on a new machine."""
    folder = bench.fresh("client")
    go = GoCommand(folder, proxy, ca)
    go.requires(root)
    started = time.perf_counter()
    go.run("mod", "download", "all")
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


@contextmanager
def _stopping(upstream: ModuleServer) -> Iterator[None]:
    try:
        yield
    finally:
        upstream.stop()
