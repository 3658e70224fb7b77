"""podman, skopeo and buildah: a file of ours in registries.conf.d, and certificates. Pure.

A table of a later file takes the place of an earlier one with the same prefix, whole
(containers-registries.conf.d(5)): where the user has one for a registry, ours would silently undo his,
so that is a conflict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mxart.setup.facts import Registry, Server
from mxart.setup.merge import parse_toml
from mxart.setup.plan import HEADER, Conflict, Files, Plan, SetupError, own_file
from mxart.setup.trust import certificate

MAIN = "/etc/containers/registries.conf"
FOLDER = "/etc/containers/registries.conf.d"
OWN = f"{FOLDER}/mxart.conf"
CERTIFICATES = "/etc/containers/certs.d"


def containers(server: Server, files: Files) -> Plan:
    """Raises SetupError."""
    mirrored = [registry for registry in server.registries if registry.prefix is not None]
    tables = [_table(server, registry) for registry in mirrored]
    if server.is_plain:
        tables.append(f"[[registry]]\nlocation = {json.dumps(server.authority)}\ninsecure = true\n")
    plan = certificate(f"{CERTIFICATES}/{server.authority}", server)
    if tables or (files.read(OWN) or "").startswith(HEADER):  # what it said before is to be gone, too
        ours = {registry.host: f"{server.authority}/{registry.prefix}".rstrip("/") for registry in mirrored}
        plan += Plan(conflicts=_conflicts(files, ours))
        plan += own_file(files, OWN, "\n".join(tables), "registries, and us as their mirror")
    return plan + Plan(notes=tuple(_notes(server)))


def _table(server: Server, registry: Registry) -> str:
    location = f"{server.authority}/{registry.prefix}".rstrip("/")
    insecure = "insecure = true\n" if server.is_plain else ""
    name = json.dumps(registry.host)
    return (
        f"[[registry]]\nprefix = {name}\nlocation = {name}\n"
        f"[[registry.mirror]]\nlocation = {json.dumps(location)}\n{insecure}"
    )


def _conflicts(files: Files, ours: dict[str, str]) -> tuple[Conflict, ...]:
    found: list[Conflict] = []
    drop_ins = [f"{FOLDER}/{name}" for name in files.names(FOLDER) or [] if name.endswith(".conf")]
    for path in (MAIN, *drop_ins):
        text = files.read(path)
        if text is None or path == OWN:
            continue
        document = parse_toml(path, text).unwrap()
        if "registries" in document:
            raise SetupError(
                f"{path} is of version 1 ([registries.search]), which does not go together with drop-in files:"
                " write it anew in version 2 first (containers-registries.conf(5))"
            )
        for table in _tables(path, document, "registry"):
            prefix = table.get("prefix") or table.get("location")
            if prefix not in ours:
                continue
            if path > OWN:
                raise SetupError(f"{path} has a [[registry]] for {prefix}, and is read after {OWN}: it would win")
            mirrors = [mirror.get("location") for mirror in _tables(path, table, "mirror")]
            if mirrors[:1] != [ours[prefix]]:
                found.append(Conflict(path, f"[[registry]] {prefix}", table, {"mirror": ours[prefix]}))
    return tuple(found)


def _tables(path: str, document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(table, Mapping) for table in found):
        raise SetupError(f"{path}: {key} is not a list of tables: write [[{key}]]")
    return found


def _notes(server: Server) -> list[str]:
    notes = ["a user's own ~/.config/containers/registries.conf is read instead of these files"]
    unreached = [registry.host for registry in server.registries if registry.prefix is None]
    if unreached:
        notes.append(f"no path leads to {', '.join(unreached)} below {server.url}: give their repositories a `path`")
    return notes
