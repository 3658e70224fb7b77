"""What the questions about pushing share: layers with known digests, servers with empty folders, the load."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.harness import MIB, Bench
from kit.registry import OCI_MANIFEST, Registry, running
from kit.servers import Mxart

Way = Literal["patch", "put"]
"""As docker, podman and skopeo send a blob; as containerd does (push_load.py)."""

OWN = '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'
"""Our configuration: a local repository for everything."""

REPOSITORY = "team/app"


@dataclass(frozen=True)
class Layer:
    """A file whose bytes, `repeat` times over, are a blob."""

    path: Path
    size: int
    digest: str
    repeat: int = 1


def layer(folder: Path, size: int, *, repeat: int = 1) -> Layer:
    """New bytes that do not compress and are nowhere yet."""
    path, whole = folder / os.urandom(8).hex(), hashlib.sha256()
    block = os.urandom(min(size, MIB))
    with path.open("wb") as file:
        for number in range(0, size, len(block)):
            file.write((number.to_bytes(8, "big") + block[8:])[: size - number])
    for _ in range(repeat):
        with path.open("rb") as file:
            while piece := file.read(MIB):
                whole.update(piece)
    return Layer(path, size, f"sha256:{whole.hexdigest()}", repeat)


@dataclass(frozen=True)
class Target:
    """Where a push goes, and what it shows."""

    url: str
    authorization: str = ""


@contextlib.contextmanager
def ours(bench: Bench, *, config: str = OWN, workers: int = 2) -> Iterator[tuple[Target, Mxart]]:
    """Our server with an empty folder, which goes at the end; every request shows the password of `admin`."""
    folder = bench.fresh("mxart")
    try:
        with bench.ours(config, workers=workers, folder=folder) as server:
            yield Target(server.url, as_admin(server)), server
    finally:
        shutil.rmtree(folder)


def as_admin(server: Mxart) -> str:
    """An Authorization header's value."""
    password = (server.data / "admin-password").read_text().strip()
    return "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()


@contextlib.contextmanager
def theirs(bench: Bench) -> Iterator[Target]:
    """docker-registry with an empty folder, which goes at the end; open to anybody, so that it checks no password."""
    root, folder = bench.fresh("root"), bench.fresh("registry")
    try:
        with running(Registry(root, folder)) as registry:
            yield Target(registry.url)
    finally:
        shutil.rmtree(root)


@dataclass(frozen=True)
class Pushed:
    """What the load measured."""

    seconds: float
    closing: list[float]


def push(
    target: Target, layers: Sequence[Layer], *, way: Way, parallel: int = 1, repository: str = REPOSITORY
) -> Pushed:
    """Push layers, `parallel` at a time, and a manifest over them."""
    config = Path(layers[0].path).with_name("config")
    config.write_bytes(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')
    described = Layer(config, config.stat().st_size, f"sha256:{hashlib.sha256(config.read_bytes()).hexdigest()}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", described),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", each) for each in layers],
    }
    asked = {
        "url": target.url,
        "repository": repository,
        "authorization": target.authorization,
        "blobs": [
            {"path": str(each.path), "size": each.size, "digest": each.digest, "repeat": each.repeat}
            for each in (*layers, described)
        ],
        "parallel": parallel,
        "way": way,
        "manifest": {"text": json.dumps(manifest, indent=2), "type": OCI_MANIFEST, "tag": "1"},
    }
    script = Path(__file__).with_name("push_load.py")
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(asked), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Pushed(told["seconds"], told["closing"])


def _descriptor(media_type: str, each: Layer) -> dict[str, object]:
    return {"mediaType": media_type, "digest": each.digest, "size": each.size * each.repeat}
