"""Pushing over TLS that the program's own CA vouches for, as the clients have it in their settings; HTTP/2 by curl."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.clients import CLIENTS, Make, Skopeo, curl
from kit.netns import World, world
from kit.oras_client import Oras
from kit.pushes import OWN, admin_password, as_folder
from kit.registry import OCI_MANIFEST, Images, image, tar
from kit.servers import Mxart, mxart, program

_NAME = "registry.test:8443"


@pytest.fixture
def apart(room: Path) -> Iterator[World]:
    """Nothing but loopback, where our name is known."""
    with world(room / "apart", {"registry.test": "127.0.0.1"}) as made:
        yield made


@pytest.fixture
def server(apart: World, room: Path) -> Iterator[Mxart]:
    config = OWN + '[tls]\nnames = ["registry.test"]\n'
    listen = ["127.0.0.1:8443"]
    with mxart(room / "mxart", config, listen=listen, tls=True, workers=2, within=apart.enter) as made:
        yield made


@pytest.fixture
def trust(server: Mxart, apart: World, room: Path) -> Path:
    """A folder as the clients look for it, with our CA in it; the engine's is at a fixed place."""
    folder = room / "certs.d" / _NAME
    folder.mkdir(parents=True)
    shutil.copy(server.ca, folder / "ca.crt")
    apart.run("mkdir", "-p", "/etc/docker/certs.d")
    apart.run("cp", "-r", folder, "/etc/docker/certs.d/")
    return folder


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_login_and_push_by_our_name(
    client: Make, server: Mxart, trust: Path, images: Images, apart: World, room: Path
) -> None:
    """Somebody has pushed before; each client pulls that, and pushes it under a name of its own."""
    skopeo = Skopeo(room / "somebody", apart, options=[f"cert-dir={trust}"])
    skopeo.login(_NAME, "admin", admin_password(server))
    place = as_folder(room / "laid", images.docker.manifest, images.docker)
    skopeo.copy(place, f"docker://{_NAME}/team/app:1", "--preserve-digests")
    pusher = client(
        apart,
        cert_dir=trust,
        hosts={_NAME: f'server = "https://{_NAME}"\n[host."https://{_NAME}"]\nca = "{trust}/ca.crt"\n'},
    )
    assert pusher.pull(f"{_NAME}/team/app:1") == images.docker.config.digest
    pusher.login(_NAME, "admin", admin_password(server))
    digest = pusher.push(f"{_NAME}/team/app:1", f"{_NAME}/team/again:1")
    assert skopeo.inspect(f"{_NAME}/team/again:1")["Digest"] == digest
    pusher.logout(_NAME)
    assert pusher.pull(f"{_NAME}/team/again:1") == images.docker.config.digest


def test_oras_over_tls(server: Mxart, apart: World, room: Path) -> None:
    oras = Oras(room / "oras", apart, ca=server.ca)
    oras.login(_NAME, "admin", admin_password(server))
    oras.push(f"{_NAME}/team/files:1", {"file": b"over tls"})
    assert oras.pull(f"{_NAME}/team/files:1") == {"file": b"over tls"}


def test_an_image_over_http2(server: Mxart, apart: World, room: Path) -> None:
    """curl speaks what crane and newer clients speak: every request of a push as a stream."""
    pushed = image(tar({"data": random.Random(3).randbytes(3 << 20)}))
    base = f"https://{_NAME}/v2/team/app"
    common = ["--http2", "--user", f"admin:{admin_password(server)}", "--dump-header", "-", "--output", "/dev/null"]

    def ask(*arguments: str | Path) -> list[str]:
        answer = curl(apart, *common, *arguments, ca=server.ca, home=room / "home").decode()
        assert answer.startswith("HTTP/2 ")
        return answer.splitlines()

    for number, blob in enumerate(pushed.blobs):
        file = room / f"blob{number}"
        file.write_bytes(blob.data)
        (location,) = [
            line.partition(":")[2].strip()
            for line in ask("--request", "POST", f"{base}/blobs/uploads/")
            if line.lower().startswith("location:")
        ]
        if location.startswith("/"):
            location = f"https://{_NAME}{location}"
        both = "&" if "?" in location else "?"
        raw = ["--header", "Content-Type: application/octet-stream", "--upload-file", file]
        assert "201" in ask(*raw, f"{location}{both}digest={blob.digest}")[0]
    file = room / "manifest"
    file.write_bytes(pushed.manifest.data)
    typed = ["--header", f"Content-Type: {OCI_MANIFEST}", "--upload-file", file]
    assert "201" in ask(*typed, f"{base}/manifests/1")[0]
    layer = pushed.layers[0]
    found = curl(apart, "--http2", f"{base}/blobs/{layer.digest}", ca=server.ca, home=room / "home")
    assert f"sha256:{hashlib.sha256(found).hexdigest()}" == layer.digest
    many = [program("h2load"), "--requests", "200", "--clients", "4", "--max-concurrent-streams", "10"]
    told = apart.run(*many, "--header", f"accept: {OCI_MANIFEST}", f"{base}/manifests/1").decode()
    assert "200 succeeded, 0 failed" in told
    listed = curl(apart, "--http2", f"{base}/tags/list", ca=server.ca, home=room / "home")
    assert json.loads(listed) == {"name": "team/app", "tags": ["1"]}
