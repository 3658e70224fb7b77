"""Which clients can be set up, and how each is for every way of reaching us. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from msgspec import Struct

from mxart.setup.containerd import containerd, cri, nerdctl
from mxart.setup.containers import containers
from mxart.setup.docker import docker
from mxart.setup.facts import Server
from mxart.setup.go import go
from mxart.setup.gradle import gradle, gradle_proxy
from mxart.setup.maven import maven, maven_proxy
from mxart.setup.plan import Files, Plan
from mxart.setup.proxy import engine, service, shell
from mxart.setup.trust import system_store

Mode = Literal["mirror", "transparent", "proxy"]
Planner = Callable[[Server, Files], Plan]


class Client(Struct, frozen=True):
    """`restart`: what has to be run for a daemon to see a CA that the machine trusts anew."""

    about: str
    mirror: Planner
    proxy: Planner
    restart: str = ""

    def plan(self, mode: Mode, server: Server, files: Files) -> Plan:
        """Raises SetupError."""
        if mode == "mirror":
            return self.mirror(server, files)
        if mode == "proxy":
            return self.proxy(server, files)
        plan = system_store(server, files)
        commands = (self.restart,) if self.restart and plan.changes else ()
        notes = (f"DNS or a firewall has to lead these names here: {', '.join(server.claimed) or 'none'}",)
        return plan + Plan(commands=commands, notes=notes)


CLIENTS: dict[str, Client] = {
    "docker": Client(
        "Docker, with its classic and its containerd image store",
        docker,
        partial(service, unit="docker"),
        "systemctl restart docker",
    ),
    "podman": Client("podman", containers, engine),
    "skopeo": Client("skopeo", containers, shell),
    "buildah": Client("buildah", containers, engine),
    "containerd": Client(
        "containerd, for ctr", containerd, partial(service, unit="containerd"), "systemctl restart containerd"
    ),
    "go": Client("the go command", go, shell),
    "maven": Client("Maven", maven, maven_proxy),
    "gradle": Client("Gradle", gradle, gradle_proxy),
    "nerdctl": Client("nerdctl", nerdctl, partial(service, unit="containerd"), "systemctl restart containerd"),
    "cri": Client(
        "containerd's CRI plugin, for Kubernetes nodes",
        cri,
        partial(service, unit="containerd"),
        "systemctl restart containerd",
    ),
}
