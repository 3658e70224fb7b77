"""Clients that reach registries through us as their HTTP proxy: the variables of their services. Pure.

What a repository claims is then answered by us, so the CA has to be trusted by the machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from mxart.setup.facts import Server
from mxart.setup.plan import Files, Plan, own_file
from mxart.setup.trust import system_store

_ENGINE = "/etc/containers/containers.conf.d/mxart.conf"


def variables(server: Server) -> Mapping[str, str]:
    """What the environment of a client has to say."""
    return {"HTTPS_PROXY": server.url, "HTTP_PROXY": server.url, "NO_PROXY": ",".join(direct(server))}


def direct(server: Server) -> tuple[str, ...]:
    """Hosts that no client asks its proxy for."""
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", server.host)))


def service(server: Server, files: Files, unit: str) -> Plan:
    """For a daemon that systemd starts."""
    lines = "".join(f'Environment="{name}={value}"\n' for name, value in variables(server).items())
    path = f"/etc/systemd/system/{unit}.service.d/mxart-proxy.conf"
    plan = system_store(server, files) + own_file(files, path, f"[Service]\n{lines}", f"{unit} goes through us")
    return plan + Plan(commands=("systemctl daemon-reload", f"systemctl restart {unit}"), notes=(_closed(server),))


def engine(server: Server, files: Files) -> Plan:
    """For podman and buildah, which have a setting for variables of their own."""
    values = ", ".join(json.dumps(f"{name}={value}") for name, value in variables(server).items())
    plan = system_store(server, files) + own_file(
        files, _ENGINE, f"[engine]\nenv = [{values}]\n", "podman goes through us"
    )
    return plan + Plan(notes=(_closed(server),))


def shell(server: Server, files: Files) -> Plan:
    """For commands that look at nothing but their environment."""
    said = " ".join(f"{name}={value}" for name, value in variables(server).items())
    return system_store(server, files) + Plan(notes=(f"in its environment: export {said}", _closed(server)))


def _closed(server: Server) -> str:
    return (
        f"{server.authority} connects to what its repositories and [[tunnel]] tables name, and to nothing else: other"
        " hosts go into NO_PROXY, or into a [[tunnel]]"
    )
