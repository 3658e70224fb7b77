"""Real container clients, each with a home of its own: nothing of the machine's configuration is read or changed.

A client pulls an image and proves that it has it: `pull` returns what the client itself calls the
image's identity, the digest of its configuration, after it has checked every layer.  What it pushes is told by the
digest of the manifest that it gave the registry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from kit.client_base import Client, Pusher, clean_environment, curl
from kit.engines import Ctr, Dockerd
from kit.tools import Buildah, Podman, Skopeo

__all__ = [
    "CLIENTS",
    "Buildah",
    "Client",
    "Ctr",
    "Dockerd",
    "Make",
    "Podman",
    "Pusher",
    "Skopeo",
    "clean_environment",
    "closing",
    "curl",
]

CLIENTS = ("skopeo", "podman", "ctr", "dockerd")

Make = Callable[..., Pusher]
"""What the fixture `client` gives: makes the client that the test's parameter names."""


@contextlib.contextmanager
def closing(client: Client) -> Iterator[Client]:
    """Close a client at the end."""
    try:
        yield client
    finally:
        client.close()
