"""What every test of pushing asks: a local repository beside a proxy, its administrator, images laid out for skopeo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kit.clients import Client
from kit.pulls import hub
from kit.registry import Blob, Image, Registry
from kit.servers import Mxart

OWN = """
[repository.own]
format = "oci"
kind = "local"
path = "/"
"""
"""A local repository that has every name that no other one has."""


def beside_hub(upstream: Registry) -> str:
    """Docker Hub below /docker.io, our own everywhere else."""
    return hub(upstream) + OWN


def admin_password(server: Mxart) -> str:
    """As the first start wrote it."""
    return (server.data / "admin-password").read_text().strip()


def mxart_command(server: Mxart, *arguments: str, stdin: str = "") -> str:
    """What a subcommand prints that looks after a running server's data; it must succeed."""
    command = [sys.executable, "-m", "mxart", "--data", str(server.data)]
    file = server.data.parent / "mxart.toml"
    if file.exists():
        command += ["--config", str(file)]
    done = subprocess.run([*command, *arguments], capture_output=True, input=stdin, text=True, timeout=60, check=False)
    assert done.returncode == 0, (arguments, done.returncode, done.stderr)
    return done.stdout


def as_folder(folder: Path, top: Blob, *images: Image) -> str:
    """These very bytes as skopeo's `dir:` transport keeps them; what to write behind `skopeo copy`."""
    folder.mkdir(parents=True)
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(top.data)
    for image in images:
        hexadecimal = image.manifest.digest.partition(":")[2]
        (folder / f"{hexadecimal}.manifest.json").write_bytes(image.manifest.data)
        for blob in image.blobs:
            (folder / blob.digest.partition(":")[2]).write_bytes(blob.data)
    return f"dir:{folder}"


def media_types(manifest: bytes) -> list[str]:
    """Those of its layers."""
    return [str(layer["mediaType"]) for layer in json.loads(manifest)["layers"]]


def check_anybody_pulls(client: Client, reference: str, image: Image) -> None:
    """What was pushed, without a login."""
    assert client.pull(reference) == image.config.digest
