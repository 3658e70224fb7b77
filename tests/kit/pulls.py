"""What every client test asks: a configuration that stands for Docker Hub, and the three pulls that it must survive."""

from __future__ import annotations

import json

from kit.clients import Client
from kit.registry import Image, Registry


def hub(upstream: Registry, *, ttl: int = 0, names: tuple[str, ...] = ()) -> str:
    """Docker Hub, whose real address is said to be the test's registry; with ttl 0 a tag is asked for on every pull.

    `names` are further hosts that stand for it.
    """
    hosts = ["docker.io", "registry-1.docker.io", "index.docker.io", *names]
    return f"""
[upstreams]
resolve = {{ "registry-1.docker.io" = "127.0.0.1" }}
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "http://registry-1.docker.io:{upstream.port}"
hosts = {json.dumps(hosts)}
path = "/docker.io"
ttl = {ttl}
"""


def check_three_pulls(client: Client, upstream: Registry, reference: str, image: Image) -> None:
    """Cold: every blob crosses the link once. Warm: none does. Upstream gone: nobody notices."""
    blobs = {blob.digest for blob in image.blobs}
    assert client.pull(reference) == image.config.digest
    assert all(client.kept(blob) is not False for blob in (*image.blobs, image.manifest))
    cold = upstream.asked()
    fetched = [asked.path.rpartition("/")[2] for asked in cold if "/blobs/" in asked.path and asked.method == "GET"]
    assert sorted(fetched) == sorted(blobs)

    assert client.pull(reference) == image.config.digest
    assert all(client.kept(blob) is not False for blob in (*image.blobs, image.manifest))
    warm = upstream.asked()[len(cold) :]
    assert [asked for asked in warm if asked.method != "HEAD"] == []

    upstream.stop()
    assert client.pull(reference) == image.config.digest
