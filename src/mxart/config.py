"""The configuration as frozen values, and what is served without one. `config_file` reads it from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec

from mxart.config_access import AccessSettings, Permission
from mxart.config_vcs import GitLogin

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Days = Annotated[float, msgspec.Meta(ge=0)]


PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Listener(_Table, frozen=True):
    """A TCP address to accept on. Several listeners share all repositories."""

    address: str
    tls: bool = False
    proxy_protocol: bool = False  # expect a PROXY v1 or v2 header first (haproxy, doc/proxy-protocol.txt)
    transparent: bool = False  # a firewall rule (REDIRECT, TPROXY) sends connections here that were meant for others


class CertificateFiles(_Table, frozen=True):
    """A certificate of the user's own; the names in it decide for which SNI it is shown."""

    cert: str
    key: str


class Tls(_Table, frozen=True):
    """Certificates of the user's own, and further names that the program's own CA may vouch for.

    `ca_cert` and `ca_key` are an intermediate CA of the user's, to mint with instead of the program's own: the
    file holds its certificate first, then those above it but for the root.  `ca_domains` are domains that a new CA
    of the program's own is permitted, with everything below them (RFC 5280 section 4.2.1.10), besides what the
    configuration claims when it is made.
    """

    certificates: tuple[CertificateFiles, ...] = ()
    names: tuple[str, ...] = ()
    ca_cert: str = ""
    ca_key: str = ""
    ca_domains: tuple[str, ...] = ()


class Upstreams(_Table, frozen=True):
    """Defaults for every upstream."""

    proxy: str = ""
    proxy_for: dict[str, str] = {}  # by host, "*.example.com" for all below; "" is direct. Before a repository's own
    resolve: dict[str, str] = {}
    nameservers: tuple[str, ...] = ()  # else those of `[dns] forward`, else the system's
    connect_seconds: Seconds = 10.0  # TCP, the proxies on the way, TLS
    first_byte_seconds: Seconds = 25.0  # from a request to the head of its answer; containerd gives up after 30
    idle_seconds: Seconds = 30.0  # between two pieces of a body


class Store(_Table, frozen=True):
    """A named place for blobs. `default` is below the data directory unless it is named here."""

    path: str


class Retention(_Table, frozen=True):
    """A rule about which tags of a local repository stay: of those that it names, the newest and the young ones.

    `packages` and `tags` are patterns: `*` within a segment, in packages `**` for any number of them.  Of the tags that
    match, the newest `keep` of each package stay, and all that are younger than `days`; a tag goes only if rules
    name it and none of them keeps it.  `untagged_days`: manifests that nothing points at go when they were neither
    pushed nor pulled for so long.

    In a repository of maven `tags` are the versions that move, `*-SNAPSHOT`; what a rule counts is the builds of each,
    for every classifier and extension by itself.  Releases stay.
    """

    packages: str = "**"
    tags: tuple[str, ...] | str = "*"
    keep: Count | None = None
    days: Days | None = None
    untagged_days: Days | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """`tags` as a list."""
        return (self.tags,) if isinstance(self.tags, str) else self.tags


class Repository(_Table, frozen=True):
    """One `[repository.NAME]` table. `name` is filled in from the table's name."""

    format: Literal["oci", "go", "maven"]
    kind: Literal["local", "proxy", "vcs", "group"]
    name: str = ""
    hosts: tuple[str, ...] = ()
    path: str = ""
    store: Name = "default"
    # proxy
    upstream: str | tuple[str, ...] = ()
    username: str = ""
    password: str = ""
    password_file: str = ""
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    proxy: str | None = None
    ttl: Seconds = 300.0
    negative_ttl: Seconds = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 16
    offline: bool = False
    # What becomes of credentials that a caller shows for upstream. never: they are not looked at. denied: what upstream
    # refuses us is asked for as the caller, who is told to log in if he has not. always: the registry also asks for
    # a login at its door, as docker and podman need it to show any credentials at all.
    relay: Literal["never", "denied", "always"] = "never"
    index: str = ""  # oci: where the old API below /v1/ (docker search) is forwarded to; "": nowhere
    # go: the checksum database that upstream's modules are verified by, NAME+HASH+KEY or NAME+HASH+KEY URL; "": that of
    # sum.golang.org; "off": upstream is believed
    sumdb: str = ""
    # go: modules that no checksum database hears of, patterns as in GOPRIVATE. maven: groups that are the team's own,
    # and never asked of this upstream: "com.example" or, with all below it, "com.example.*"
    private: tuple[str, ...] = ()
    # go: modules that belong to this repository, patterns as in GOPRIVATE: a group asks no other member for them, and a
    # proxy or a vcs has no others
    modules: tuple[str, ...] = ()
    # vcs: the URLs of repositories by the paths that they stand for, "*" in both for any one element; and what the git
    # servers know us by
    urls: dict[str, str] = {}
    login: tuple[GitLogin, ...] = ()
    # maven, proxy and local: which versions are asked of this upstream, or may be deployed
    policy: Literal["releases", "snapshots", "mixed"] = "mixed"
    max_bytes: int | str | None = None  # above this the least recently used goes
    # local
    quota: int | str | None = None  # bytes of distinct files; what would exceed it is refused
    retention: tuple[Retention, ...] = ()
    staging: bool = False  # maven: a deploy is seen when all of it is there: when its list of versions comes
    # group
    members: tuple[str, ...] = ()
    # The member that takes what is pushed to the group; "": nothing can be. maven: or several, of which the first whose
    # policy takes a version has it
    publish_to: str | tuple[str, ...] = ""

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The mirrors, in order."""
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream

    @property
    def targets(self) -> tuple[str, ...]:
        """The members that take what is pushed, in order."""
        named = (self.publish_to,) if isinstance(self.publish_to, str) else self.publish_to
        return tuple(name for name in named if name)


class Tunnel(_Table, frozen=True):
    """Raw TCP: by SNI on the TLS listeners, a port of its own, or to whichever address the client meant.

    `networks` are for transparent listeners and CONNECT to an address: what nothing else claims goes on to its
    original destination if that lies in one of them, and its port in `ports` (empty: any port).
    """

    sni: tuple[str, ...] = ()
    listen: str = ""
    to: str = ""
    networks: tuple[str, ...] = ()
    ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()


class Dns(_Table, frozen=True):
    """A DNS server that answers our address for the names that repositories and `names` claim, and forwards the rest.

    `clients` are the networks that may ask; `forward` empty: nothing is forwarded, unknown names are refused.
    """

    listen: str = ":53"
    answer: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    clients: tuple[str, ...] = PRIVATE_NETWORKS
    ttl: Seconds = 60.0


class TokenServer(_Table, frozen=True):
    """Hosts whose token endpoint (`/token`) we answer ourselves, auth.docker.io for instance."""

    hosts: tuple[str, ...] = ()


class Replicate(_Table, frozen=True):
    """Registries, by URL, that the API may be told to copy images to; nobody makes us dial any other.

    `ca_file` (PEM) is whom they are believed by, instead of the system's certificates.
    """

    targets: tuple[str, ...] = ()
    ca_file: str = ""


SUMDB_NAME = r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?(/[a-z0-9][a-z0-9._-]{0,62}){0,2}"
"""What the go command takes for the name of a checksum database: host[/path]."""


class GoSettings(_Table, frozen=True):
    """`[go]`. `sumdb_name` is what our own checksum database is called; "": a name that no other has is made up."""

    sumdb_name: str = ""


class Limits(_Table, frozen=True):
    """What a stranger can make grow. Times are in seconds without progress; there is no total one."""

    header_bytes: Count = 65536
    body_bytes: int | str = "10GiB"
    connections: Annotated[int, msgspec.Meta(ge=1)] = 10000
    requests_per_second: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # per client, over all workers; 0: off
    burst: Count = 0  # requests at once before that rate holds; 0: ten seconds' worth
    handshake_seconds: Seconds = 10.0
    idle_seconds: Seconds = 75.0
    progress_seconds: Seconds = 60.0
    tunnel_idle_seconds: Seconds = 3600.0
    drain_seconds: Seconds = 30.0

    @property
    def max_body(self) -> int:
        """`body_bytes` as a number."""
        return parse_size(self.body_bytes)


class Gc(_Table, frozen=True):
    """When space is given back (retention, eviction, collection), and how long what nobody refers to is kept.

    Times as in `parse_duration`; `every = 0`: only when told to.
    """

    every: float | str = "24h"
    grace: float | str = "24h"

    @property
    def every_seconds(self) -> float:
        """`every` as a number."""
        return parse_duration(self.every)

    @property
    def grace_seconds(self) -> float:
        """`grace` as a number."""
        return parse_duration(self.grace)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked."""

    data: Path
    workers: int
    listeners: tuple[Listener, ...]
    tls: Tls = Tls()
    upstreams: Upstreams = Upstreams()
    stores: dict[str, Store] = {}
    repositories: dict[str, Repository] = {}
    tunnels: tuple[Tunnel, ...] = ()
    dns: Dns | None = None
    token_server: TokenServer = TokenServer()
    permissions: tuple[Permission, ...] = ()
    access: AccessSettings = AccessSettings()
    replicate: Replicate = Replicate()
    go: GoSettings = GoSettings()
    limits: Limits = Limits()
    gc: Gc = Gc()


def parse_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Host and port of `:443`, `127.0.0.1:8080`, `[::1]:8443`, `db.example:5432`; host "" means every address.

    Raises ValueError with what would be right.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]/\s]*))(?::(\d{1,5}))?", text.strip())
    if match is None or (match[3] is None and default_port is None):
        raise ValueError(f'{text!r} is not an address: write ":443", "127.0.0.1:8080" or "[::1]:8443"')
    port = int(match[3]) if match[3] is not None else cast("int", default_port)
    if port > 65535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    return match[1] or match[2], port


_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(value: int | str) -> int:
    """Bytes from `1048576`, `"10GiB"`, `"500M"`; powers of two. Raises ValueError."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError("a size is not negative")
        return value
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", value.strip())
    if match is None:
        raise ValueError(f'{value!r} is not a size: write bytes, or "512MiB", "10GiB"')
    return int(match[1]) * _UNITS[match[2]]


_LENGTHS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_duration(value: float | str) -> float:
    """Seconds from `90`, `"30m"`, `"24h"`, `"1d12h"`, `"2w"`. Raises ValueError."""
    if isinstance(value, int | float):
        if not 0 <= value < float("inf"):
            raise ValueError("a time is not negative, and finite")
        return float(value)
    parts = re.findall(r"(\d+)\s*([smhdw]?)\s*", value)
    if not re.fullmatch(r"\s*((\d+)\s*[smhdw]\s*)+|\s*\d+\s*", value):
        raise ValueError(f'{value!r} is not a time: write seconds, or "30m", "24h", "7d", "2w"')
    return float(sum(int(count) * _LENGTHS[unit] for count, unit in parts))


_REGISTRIES = {
    "docker.io": ("https://registry-1.docker.io", ("docker.io", "registry-1.docker.io", "index.docker.io")),
    "gcr.io": ("https://gcr.io", ("gcr.io",)),
    "ghcr.io": ("https://ghcr.io", ("ghcr.io",)),
    "quay.io": ("https://quay.io", ("quay.io",)),
    "registry.k8s.io": ("https://registry.k8s.io", ("registry.k8s.io",)),
}


def default_repositories() -> dict[str, Repository]:
    """What is served without a configuration (product.md section 5)."""
    found = {
        name: Repository(
            name=name,
            format="oci",
            kind="proxy",
            upstream=url,
            hosts=hosts,
            path=f"/{name}",
            relay="denied",
            index="https://index.docker.io" if name == "docker.io" else "",
        )
        for name, (url, hosts) in _REGISTRIES.items()
    }
    # Frozen since 2023, and an alias since then: one cache for both names.
    old = "k8s.gcr.io"
    found[old] = Repository(
        name=old, format="oci", kind="group", members=("registry.k8s.io",), hosts=(old,), path=f"/{old}"
    )
    found["oci"] = Repository(name="oci", format="oci", kind="local", path="/")
    found["go-local"] = Repository(name="go-local", format="go", kind="local")
    found["go-proxy"] = Repository(name="go-proxy", format="go", kind="proxy", upstream="https://proxy.golang.org")
    members = ("go-local", "go-proxy")
    found["go"] = Repository(name="go", format="go", kind="group", members=members, publish_to="go-local", path="/go")
    found |= {item.name: item for item in _maven()}
    return found


def _maven() -> tuple[Repository, ...]:
    releases = Repository(name="maven-releases", format="maven", kind="local", policy="releases")
    snapshots = Repository(name="maven-snapshots", format="maven", kind="local", policy="snapshots")
    url = "https://repo.maven.apache.org/maven2"
    central = Repository(name="maven-central", format="maven", kind="proxy", upstream=url, policy="releases")
    targets = (releases.name, snapshots.name)
    members = (*targets, central.name)
    group = Repository(name="maven", format="maven", kind="group", members=members, publish_to=targets, path="/maven")
    return (releases, snapshots, central, group)


def default_tunnels(but: tuple[str, ...] = ()) -> tuple[Tunnel, ...]:
    """What goes through untouched without a configuration: where Docker Hub's users log in, but for hosts of ours."""
    names = ("auth.docker.io", "hub.docker.com", "login.docker.com", "auth.docker.com")
    kept = tuple(name for name in names if name not in but)
    return (Tunnel(sni=kept),) if kept else ()
