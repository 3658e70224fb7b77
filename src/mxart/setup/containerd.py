"""containerd, nerdctl and CRI: a hosts.toml for each registry (containerd, docs/hosts.md). Pure.

One for each registry and not one for all (`_default`): a registry that we do not stand for would be
asked of us first, and wait for us when we are down; and where the user has a hosts.toml for a registry,
`_default` would silently not be read.  No `server` is given: containerd's own default for it, asked
when we fail, is the registry itself.
"""

from __future__ import annotations

import posixpath

from mxart.setup.facts import Server
from mxart.setup.merge import Value, merge_hosts, merge_toml, parse_toml, table_of
from mxart.setup.plan import Change, Files, Plan, SetupError
from mxart.setup.trust import CERTIFICATE, certificate

CERTIFICATES = "/etc/containerd/certs.d"
CONFIG = "/etc/containerd/config.toml"
_FALLBACK = "/etc/docker/certs.d"  # containerd 2 looks here, too, as long as nothing is set


def containerd(server: Server, files: Files) -> Plan:
    """For ctr and what else uses the folder. Raises SetupError."""
    return _hosts(server, files, CERTIFICATES) + Plan(
        notes=(
            f"ctr has to be told: ctr images pull --hosts-dir {CERTIFICATES} ...",
            "the kubelet's pulls (CRI) need a setting more: mxart setup cri",
        )
    )


def nerdctl(server: Server, files: Files) -> Plan:
    """Raises SetupError."""
    return _hosts(server, files, CERTIFICATES) + Plan(
        notes=("rootless nerdctl reads ~/.config/containerd/certs.d: copy the folder there",)
    )


def cri(server: Server, files: Files) -> Plan:
    """For Kubernetes nodes: the folder, and the plugin's setting that names it. Raises SetupError."""
    folder, plan = _config_path(files)
    return _hosts(server, files, folder) + plan


def mirrors(server: Server, files: Files, folder: str) -> Plan:
    """A hosts.toml for each registry that containerd's `ns` finds here. Raises SetupError."""
    wanted: dict[str, Value] = {"capabilities": ["pull", "resolve"]}
    if server.ca:
        wanted["ca"] = f"{folder}/{server.authority}/{CERTIFICATE}"
    plan = Plan()
    for registry in server.registries:
        if not registry.by_namespace:
            continue
        path = _path(files, folder, registry.host)
        text = files.read(path)
        merged, conflicts = merge_hosts(path, text, server.url, wanted)
        plan += Plan((Change(path, merged, f"{registry.host}, from here first"),), conflicts=conflicts)
    silent = [registry for registry in server.registries if not registry.by_namespace]
    if silent:
        names = ", ".join(registry.host for registry in silent)
        plan += Plan(notes=(f"containerd cannot ask {server.url} for {names}: {_why_silent(server)}",))
    return plan + _left_over(server, files, folder)


def _left_over(server: Server, files: Files, folder: str) -> Plan:
    """What an earlier setup wrote and nothing asks for now. It is the user's to remove: others may have added to it."""
    ours = {_path(files, folder, one.host) for one in server.registries if one.by_namespace}
    own = _path(files, folder, server.authority)
    notes: list[str] = []
    for name in files.names(folder) or []:
        path = f"{folder}/{name}/hosts.toml"
        try:
            hosts = table_of(path, parse_toml(path, files.read(path) or ""), "host")
            trusting = [
                url for url in hosts if posixpath.basename(str(table_of(path, hosts, url).get("ca"))) == CERTIFICATE
            ]
        except SetupError:
            continue  # another's, and in nobody's way
        if server.url in hosts and path not in {*ours, own}:
            notes.append(f"{path} asks {server.url} for a registry that it does not serve: remove the file")
        notes += [
            f"{path} still has {url}, of an earlier setup: remove that table if the server is gone"
            for url in trusting
            if url != server.url
        ]
    return Plan(notes=tuple(notes))


def _why_silent(server: Server) -> str:
    if any(registry.by_namespace for registry in server.registries):
        return "its repository has to name it in `hosts`, or another name of this server to be given as --url"
    return "their repositories have to name them in `hosts`"


def _hosts(server: Server, files: Files, folder: str) -> Plan:
    plan = certificate(f"{folder}/{server.authority}", server)
    if server.is_plain:
        # Names that begin with our own: without this, containerd would try TLS.
        path = _path(files, folder, server.authority)
        merged, conflicts = merge_hosts(
            path, files.read(path), server.url, {"capabilities": ["pull", "resolve", "push"]}
        )
        plan += Plan((Change(path, merged, "our own names, without TLS"),), conflicts=conflicts)
    return plan + mirrors(server, files, folder)


def _path(files: Files, folder: str, name: str) -> str:
    """Of a registry's hosts.toml: below `host:port`, or the spelling that containerd looks for first if it is there."""
    host, colon, port = name.rpartition(":")
    older = f"{host}_{port}_"
    return f"{folder}/{older if colon and older in (files.names(folder) or []) else name}/hosts.toml"


def _config_path(files: Files) -> tuple[str, Plan]:
    """The folder that the CRI plugin reads, and what makes it read one if it reads none."""
    text = files.read(CONFIG)
    document = parse_toml(CONFIG, text or "").unwrap()
    version = document.get("version", 2 if text is None or not text.strip() else 1)
    if version not in (2, 3):
        raise SetupError(
            f'{CONFIG} is of version {version}: write it anew with "containerd config default" or "containerd config'
            ' migrate", the way to hosts.toml begins with version 2'
        )
    plugin = "io.containerd.cri.v1.images" if version == 3 else "io.containerd.grpc.v1.cri"
    registry = table_of(CONFIG, document, "plugins", plugin, "registry")
    configs = table_of(CONFIG, registry, "configs")
    if registry.get("mirrors") or any("tls" in table_of(CONFIG, configs, name) for name in configs):
        raise SetupError(
            f'{CONFIG}: plugins."{plugin}".registry has mirrors or TLS settings of its own, and containerd refuses them'
            " beside config_path: move them into hosts.toml files first (containerd, docs/hosts.md)"
        )
    notes = []
    if document.get("imports"):
        notes.append(
            f"{CONFIG} imports {', '.join(document['imports'])}: what they say of the same plugin has priority"
        )
    if any(name in ("cri", "io.containerd.grpc.v1.cri") for name in document.get("disabled_plugins", [])):
        notes.append(f"{CONFIG} disables the CRI plugin: a kubelet cannot use this containerd")
    there = str(registry.get("config_path") or "")
    if there:
        return posixpath.normpath(there.split(":", maxsplit=1)[0]), Plan(notes=tuple(notes))
    path = f"{CERTIFICATES}:{_FALLBACK}" if version == 3 else CERTIFICATES
    wanted: dict[str, Value] = {"plugins": {plugin: {"registry": {"config_path": path}}}}
    merged, conflicts = merge_toml(CONFIG, text, {"version": version, **wanted})
    change = Change(CONFIG, merged, "where the CRI plugin finds registries")
    return CERTIFICATES, Plan((change,), ("systemctl restart containerd",), tuple(notes), conflicts)
