"""Which repository a request is for (product.md section 5). Pure.

By Host or SNI; else, for images, by containerd's `ns` parameter; else by the longest `path` that starts the image
name, or the URL's own path where the format is another one.  The world is closed: what nothing claims is refused,
and nothing here ever names a host to dial.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

from mxart.errors import BadRequest, MisdirectedRequest, NotFound


class Mount(Struct, frozen=True):
    """Where a repository is to be found. `hosts` in lower case; `path` "" if it has no URL of its own by path."""

    repository: str
    format: str
    hosts: tuple[str, ...] = ()
    path: str = ""
    index: bool = False  # it has one: /v1/ on its hosts is forwarded


class ToRepository(Struct, frozen=True):
    """The repository, and the path below it, still escaped: "/v2/library/alpine/manifests/3.20".

    `namespace` is the `ns` parameter, if it was found by that.  `by` is how it was found; by host or `ns` the client
    means the server that the repository stands for.
    """

    repository: str
    path: str
    namespace: str = ""
    by: Literal["host", "ns", "path"] = "path"


class ToIndex(Struct, frozen=True):
    """The old API below /v1/, for the index of a repository."""

    repository: str


class ToOwn(Struct, frozen=True):
    """One of the program's own pages below `/-/`."""

    path: str


class ToTokens(Struct, frozen=True):
    """A host whose token endpoint we are; nothing else is served there."""


@lru_cache(64)  # clients of a connection say the same each time; what is kept is no more than 64 fields of theirs
def host_of(authority: str) -> str:
    """The host of a Host field or :authority, in lower case, without port and brackets.

    Raises BadRequest on what cannot be an authority (RFC 3986 section 3.2).
    """
    text = authority.strip().lower()
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise BadRequest(f"Host {authority!r} is not a host name or address")
        return host
    host, _, port = text.partition(":")
    if (port and not port.isdigit()) or any(c in host for c in "/@\\ \t?#"):
        raise BadRequest(f"Host {authority!r} is not a host name or address")
    return host.removesuffix(".")


def query_value(query: str, name: str) -> str | None:
    """The first value of a parameter, unescaped."""
    for item in query.split("&") if query else ():
        key, _, value = item.partition("=")
        if key == name:
            return unquote(value.replace("+", " "))
    return None


class Routes:
    """The table of mounts. The configuration was checked: hosts and paths are unique."""

    def __init__(self, mounts: Iterable[Mount], token_hosts: Iterable[str] = ()) -> None:
        mounts = tuple(mounts)
        self._token_hosts = frozenset(token_hosts)
        self._hosts = {host: mount for mount in mounts for host in mount.hosts}
        self._oci = sorted((m for m in mounts if m.format == "oci" and m.path), key=lambda m: -len(m.path))
        self._others = sorted((m for m in mounts if m.format != "oci" and m.path), key=lambda m: -len(m.path))
        self._any_oci = next(iter(self._oci[-1:]), None) or next((m for m in mounts if m.format == "oci"), None)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host names that repositories claim."""
        return tuple(self._hosts)

    def find(self, authority: str, sni: str | None, path: str, query: str) -> ToRepository | ToIndex | ToTokens | ToOwn:
        """Raises NotFound, BadRequest, MisdirectedRequest (RFC 9110 section 7.4)."""
        if path.startswith("/-/"):
            return ToOwn(path)
        host = host_of(authority)
        if self._token_hosts and self._is_token_host(host, sni):
            return ToTokens()
        if path == "/v2" or path.startswith("/v2/"):
            mount = self._by_host(host, sni)
            if mount is not None:
                return ToRepository(mount.repository, path, by="host")
            return self._by_name(host, path, query)
        if path.startswith("/v1/"):
            mount = self._by_host(host, sni)
            if mount is not None and mount.index:
                return ToIndex(mount.repository)
            raise NotFound(
                f"the old registry API below /v1/ is not served for {host}: no repository has an index there"
            )
        return self._by_path(host, sni, path)

    def _by_path(self, host: str, sni: str | None, path: str) -> ToRepository:
        named = self._by_host(host, sni)
        if named is not None and named.format != "oci":
            return ToRepository(named.repository, path, by="host")
        for mount in self._others if named is None else ():
            below = mount.path.removesuffix("/")
            if path.startswith(below + "/"):
                return ToRepository(mount.repository, path[len(below) :])
        known = "".join(f", {mount.format} below {mount.path}" for mount in self._others)
        raise NotFound(f"nothing is served at {path}; images are below /v2/{known}, this server's own pages below /-/")

    def _is_token_host(self, host: str, sni: str | None) -> bool:
        if host in self._token_hosts and sni not in self._hosts:
            return True
        if sni in self._token_hosts and host not in self._hosts:
            return True
        if host in self._token_hosts or sni in self._token_hosts:
            raise _misdirected(host, sni)
        return False

    def _by_host(self, host: str, sni: str | None) -> Mount | None:
        by_host = self._hosts.get(host)
        by_sni = self._hosts.get(sni) if sni else None
        if by_host is not None and by_sni is not None and by_host is not by_sni:
            raise _misdirected(host, sni)
        return by_host or by_sni

    def _by_name(self, host: str, path: str, query: str) -> ToRepository:
        namespace = query_value(query, "ns")
        if namespace is not None:
            wanted = host_of(namespace)
            if wanted in self._hosts and self._hosts[wanted].format == "oci":
                return ToRepository(self._hosts[wanted].repository, path, wanted, "ns")
            if wanted != host:
                raise NotFound(f"no repository here stands for {wanted}", subject="name")
        rest = path[3:]  # "/docker.io/library/alpine/manifests/3.20"
        for mount in self._oci:
            if mount.path == "/":
                return ToRepository(mount.repository, path)
            if rest.startswith(mount.path + "/"):
                return ToRepository(mount.repository, "/v2" + rest[len(mount.path) :])
        if rest in ("", "/") and self._any_oci is not None:
            return ToRepository(self._any_oci.repository, path)
        known = ", ".join(sorted(mount.path[1:] + "/…" for mount in self._oci))
        raise NotFound(f"no repository has a path that starts this image name; known: {known}", subject="name")


def _misdirected(host: str, sni: str | None) -> MisdirectedRequest:
    return MisdirectedRequest(f"the TLS connection is for {sni}, the request for {host}: use one connection for each")
