"""Docker: daemon.json for its classic image store, hosts.toml for its containerd store, certificates for both. Pure.

The classic store has mirrors of Docker Hub alone, and only at a URL's root (moby, registry/config.go:
ValidateMirror).  The containerd store reads `/etc/docker/certs.d/<registry>/hosts.toml` first, then
daemon.json (moby, daemon/hosts.go); the classic one passes over those files, so both are written and
it does not matter which store an engine has.
"""

from __future__ import annotations

import json
import re

from mxart.setup.containerd import mirrors
from mxart.setup.facts import HUB, Server
from mxart.setup.merge import Value, merge_json
from mxart.setup.plan import Change, Files, Plan, SetupError
from mxart.setup.trust import certificate

DAEMON = "/etc/docker/daemon.json"
CERTIFICATES = "/etc/docker/certs.d"
_RELOAD = "systemctl reload docker"
# What gives flags to the engine. It does not start with one that stands in daemon.json, too.
_FLAGS = ("/etc/default/docker", "/etc/sysconfig/docker")
_DROP_INS = "/etc/systemd/system/docker.service.d"


def docker(server: Server, files: Files) -> Plan:
    """Raises SetupError."""
    plan = certificate(f"{CERTIFICATES}/{server.authority}", server)
    named = server.mirror.partition("://")[2]
    if named not in ("", server.authority):
        plan += certificate(f"{CERTIFICATES}/{named}", server)
    # daemon.json last: when what goes before it cannot be written, the next run still says to reload the engine.
    return plan + mirrors(server, files, CERTIFICATES) + _daemon(server, files) + _notes(server)


def _daemon(server: Server, files: Files) -> Plan:
    text = files.read(DAEMON)
    wanted: dict[str, Value] = {}
    if server.mirror and server.mirror not in _there(text):
        wanted["registry-mirrors"] = [server.mirror]
    if server.is_plain and not server.is_loopback:  # 127.0.0.0/8 may be without TLS by itself
        wanted["insecure-registries"] = [server.authority]
    merged, conflicts = merge_json(DAEMON, text, wanted)
    if not wanted or merged == text:
        return Plan()
    for key in wanted:
        _not_a_flag(files, key)
    return Plan((Change(DAEMON, merged, f"Docker's {' and '.join(wanted)}"),), (_RELOAD,), conflicts=conflicts)


def _there(text: str | None) -> list[str]:
    """Mirrors that are set already. Docker takes one with and without a slash at its end for the same."""
    try:
        found = json.loads(text or "{}")["registry-mirrors"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(item).rstrip("/") for item in found] if isinstance(found, list) else []


def _not_a_flag(files: Files, key: str) -> None:
    flag = "--" + {"registry-mirrors": "registry-mirror", "insecure-registries": "insecure-registry"}[key]
    drop_ins = [f"{_DROP_INS}/{name}" for name in files.names(_DROP_INS) or [] if name.endswith(".conf")]
    for path in (*_FLAGS, *drop_ins):
        text = files.read(path) or ""
        if re.search(rf"^[^#\n]*{flag}\b", text, re.MULTILINE):
            raise SetupError(f"{path} has {flag}, and Docker does not start when {DAEMON} says it, too: move it there")


def _notes(server: Server) -> Plan:
    notes = [f"any image, by its full name: docker pull {server.authority}/{_example(server)}"]
    hub = next((registry for registry in server.registries if registry.host == HUB), None)
    if hub is not None and not server.mirror:
        notes.append(
            "Docker's classic store can have a mirror of Docker Hub at the root of a URL only. To give it one, add a"
            f' name of this server to it: [repository.{_key(hub.repository)}] hosts = [..., "hub.example.com"]'
        )
    others = [registry.host for registry in server.registries if registry.host != HUB]
    if others:
        notes.append(
            f"Docker's classic store has no mirrors of {', '.join(others)}: pull by the full name, or redirect them by"
            " DNS and use --mode transparent. The containerd store asks us for them by itself"
        )
    return Plan(notes=tuple(notes))


def _key(name: str) -> str:
    """As TOML writes one key: a dot would make two of it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _example(server: Server) -> str:
    found = next((one for one in server.registries if one.prefix is not None), None)
    if found is None:
        return "NAME"
    image = "library/alpine" if found.host == HUB else "NAME"
    return f"{found.prefix}/{image}" if found.prefix else image
