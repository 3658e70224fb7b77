"""500 artifacts deployed as Maven does, 4 at a time, to a local repository, and to nginx's WebDAV with fsync.

nginx keeps every file as it comes, checksums and metadata too, and checks nothing; it does not make them durable, so
the load does that for it (maven_load.py).  Ours runs two workers and asks for a password.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from bench.harness import Bench, Row
from kit.pushes import admin_password
from kit.servers import free_port, nginx

_CONFIG = '[repository.own]\nformat = "maven"\nkind = "local"\npath = "/maven"\n'


def run(bench: Bench) -> list[Row]:
    """Within 1.5 times the seconds of nginx."""
    artifacts = 50 if bench.quick else 500
    numbers = count()
    with bench.ours(_CONFIG, workers=2) as server, _webdav(bench) as (url, folder):
        shown = f"admin:{admin_password(server)}"
        login = "Basic " + base64.b64encode(shown.encode()).decode()
        found = bench.interleaved(
            {
                "ours": partial(_deploy, f"{server.url}/maven", login, artifacts, numbers),
                "nginx": partial(_deploy, url, "", artifacts, numbers, folder),
            }
        )
    ratio = found["ours"] / found["nginx"]
    work = f"deploy of {artifacts} artifacts, 4 at a time"
    return [Row(work, f"{found['ours']:.2f} s", f"nginx {found['nginx']:.2f} s", f"{ratio:.2f}", "≤ 1.5", ratio <= 1.5)]


def _deploy(url: str, login: str, artifacts: int, numbers: count[int], folder: Path | None = None) -> float:
    """Seconds; each time other artifacts."""
    command = [sys.executable, "-m", "bench.maven_load", url, login, str(artifacts), str(next(numbers))]
    done = subprocess.run(
        [*command, *([str(folder)] if folder else [])], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@contextmanager
def _webdav(bench: Bench) -> Iterator[tuple[str, Path]]:
    """URL and folder of an nginx that takes what is put."""
    folder, port = bench.fresh("webdav"), free_port()
    files = folder / "files"
    files.mkdir()
    server = f"listen 127.0.0.1:{port}; root {files}; dav_methods PUT; create_full_put_path on;"
    service = nginx(folder, f"server {{ {server} client_max_body_size 0; }}", port=port, workers=2)
    try:
        yield f"http://127.0.0.1:{port}", files
    finally:
        service.kill()
