"""How a client is told to trust our CA: a shell script for each, with what it has to know. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from msgspec import Struct

from mxart.claims import claimed_hosts
from mxart.config import Config, parse_address
from mxart.domains import is_ip

_HUB = "docker.io"
_HUB_HOSTS = ("docker.io", "registry-1.docker.io", "index.docker.io")
_RESTART = "Daemons read this store at their start: systemctl restart docker containerd, whichever there is."


class Authority(Struct, frozen=True):
    """What is to be trusted. `file` is "" where the root is not ours to show; `permitted` None if anything is."""

    name: str
    file: str
    fingerprint: str
    permitted: tuple[str, ...] | None


def script(client: str, config: Config, authority: Authority) -> str:
    """Raises KeyError for a client that is not in `CLIENTS`."""
    return _head(authority) + "".join(f"{line}\n" for line in CLIENTS[client](registries(config)))


def registries(config: Config) -> tuple[str, ...]:
    """`host[:port]` as clients call what we answer for, Docker Hub by one name; in the configuration's order."""
    tokens = config.token_server.hosts
    names = [name for name in claimed_hosts(config) if name not in tokens]
    names += [f"[{name}]" if ":" in name else name for name in config.tls.names if is_ip(name)]
    ports = [parse_address(listener.address)[1] for listener in config.listeners if listener.tls] or [443]
    found = [_called(name, port) for port in ports for name in names if port == 443 or name not in _HUB_HOSTS]
    return tuple(dict.fromkeys(found))


def _called(name: str, port: int) -> str:
    if port != 443:
        return f"{name}:{port}"
    return _HUB if name in _HUB_HOSTS else name


def _head(authority: Authority) -> str:
    lines = [f"# Makes a client trust {' '.join(authority.name.split())}"]
    if authority.file:
        where = f"CA=${{CA:-{shlex.quote(authority.file)}}}"
        lines += [
            f"# SHA-256 {authority.fingerprint}",
            "# On another machine: copy the file there (it is also at /-/ca.pem; compare the fingerprint),",
            "# and run this with CA=FILE before it.",
        ]
        if authority.permitted is not None:
            lines.append(f"# It can vouch for these and what is below them: {', '.join(authority.permitted)}")
    else:
        where = ': "${CA:?the file of the root certificate}"'
        lines.append("# This server has only an intermediate CA: run this with CA=FILE, the root above it, before it.")
    return "".join(f"{line}\n" for line in (*lines, "set -eu", where))


def _system(folder: str, name: str, command: str) -> Callable[[tuple[str, ...]], list[str]]:
    return lambda _: [f'install -D -m 644 "$CA" {folder}/{name}', command, f"# {_RESTART}"]


def _each(hosts: tuple[str, ...], *commands: str) -> list[str]:
    return [f"for host in {' '.join(map(shlex.quote, hosts))}; do", *(f"  {command}" for command in commands), "done"]


def _docker(hosts: tuple[str, ...]) -> list[str]:
    own = tuple(host for host in hosts if host != _HUB)
    lines = ["# Docker looks here for every registry but Docker Hub; no restart is needed."] if own else []
    if own:
        lines += _each(own, 'install -D -m 644 "$CA" "/etc/docker/certs.d/$host/ca.crt"')
    if _HUB in hosts:
        lines += [
            "# For Docker Hub it looks into the system's store, at its start:",
            "#   mxart ca trust debian (or rhel, alpine), then systemctl restart docker",
        ]
    return lines


def _containers(hosts: tuple[str, ...]) -> list[str]:
    return [
        "# podman, skopeo and buildah look here; a user's own are in ~/.config/containers/certs.d.",
        *_each(hosts, 'install -D -m 644 "$CA" "/etc/containers/certs.d/$host/ca.crt"'),
    ]


def _containerd(hosts: tuple[str, ...]) -> list[str]:
    table = r"printf 'server = \"https://%s\"\n[host.\"https://%s\"]\nca = \"%s\"\n'".replace('\\"', '"')
    return [
        '# config.toml has to name this folder: config_path = "/etc/containerd/certs.d"; ctr takes it as --hosts-dir.',
        "# A hosts.toml that is there already is left alone: add the line with `ca` to it.",
        *_each(
            hosts,
            "folder=/etc/containerd/certs.d/$host",
            f'at=$host; [ "$host" != {_HUB} ] || at=registry-1.docker.io',
            'install -D -m 644 "$CA" "$folder/ca.crt"',
            f'[ -e "$folder/hosts.toml" ] || {table} "$at" "$at" "$folder/ca.crt" > "$folder/hosts.toml"',
        ),
    ]


def _java(_: tuple[str, ...]) -> list[str]:
    return [
        "# Into the store of the JDK that keytool is of; its programs read it at their start.",
        'keytool -importcert -noprompt -trustcacerts -alias mxart -file "$CA" -cacerts -storepass changeit',
        "# Java does not hold a CA that it trusts to the names above: keep its key all the safer.",
    ]


def _macos(_: tuple[str, ...]) -> list[str]:
    return ['sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain "$CA"']


def _windows(_: tuple[str, ...]) -> list[str]:
    return [
        "# In an administrator's prompt, on the file copied there:",
        "#   certutil -addstore -f Root ca.pem",
    ]


CLIENTS: dict[str, Callable[[tuple[str, ...]], list[str]]] = {
    "debian": _system("/usr/local/share/ca-certificates", "mxart.crt", "update-ca-certificates"),
    "rhel": _system("/etc/pki/ca-trust/source/anchors", "mxart.pem", "update-ca-trust"),
    "alpine": _system("/usr/local/share/ca-certificates", "mxart.crt", "update-ca-certificates"),
    "java": _java,
    "docker": _docker,
    "containerd": _containerd,
    "podman": _containers,
    "skopeo": _containers,
    "buildah": _containers,
    "macos": _macos,
    "windows": _windows,
}
"""What makes each of them trust a CA, given the registries."""
