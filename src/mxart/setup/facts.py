"""What clients have to know of the server: where it is, whom to trust, which registries it stands for. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from msgspec import Struct

from mxart.claims import ca_scope, claimed_hosts, own_names
from mxart.config import Config, Repository, parse_address
from mxart.domains import is_ip
from mxart.setup.plan import SetupError

HUB = "docker.io"
"""What image names say for Docker Hub."""

_HUB_HOSTS = {HUB, "registry-1.docker.io", "index.docker.io"}
_CENTRAL = ("https://repo.maven.apache.org/maven2", "https://repo1.maven.org/maven2")  # one server, two names
_TAKING = {policy: (("local", policy), ("local", "mixed")) for policy in ("releases", "snapshots")}
_PORTS = {"http": 80, "https": 443}
_WRITE = "write http://host:port or https://host:port, nothing behind it"
_ANY = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound


class Registry(Struct, frozen=True):
    """A registry whose name clients go on using, while they are told to ask us.

    `prefix` is what its images are called below our URL ("" for the root), None if no path leads there.
    `by_namespace`: containerd's `ns` parameter finds it.
    """

    host: str
    repository: str
    prefix: str | None
    by_namespace: bool


class Artifacts(Struct, frozen=True):
    """Where Maven's artifacts are. `releases` and `snapshots` are the URLs that take new ones, "" where none does.

    `mirrored` are the URLs of the upstreams behind it.
    """

    url: str
    releases: str = ""
    snapshots: str = ""
    mirrored: tuple[str, ...] = ()


class Server(Struct, frozen=True):
    """`ca` is the certificate to trust as PEM, "" where there is none to be told of.

    `mirror` is a URL whose root is Docker Hub, as Docker's own setting needs it; "" if there is none. `claimed` are the
    hosts that requests may be for, whose names can be redirected to us.  `modules` is the URL of Go's modules, "" if
    there are none, `own_modules` says whether some of them are published here, and `sumdb` is what GOSUMDB has to be
    for our own checksum database, "" if that has no key yet.  `artifacts` are Maven's, None if there are none.
    """

    scheme: str
    host: str
    port: int
    ca: str = ""
    registries: tuple[Registry, ...] = ()
    mirror: str = ""
    claimed: tuple[str, ...] = ()
    modules: str = ""
    own_modules: bool = False
    private: tuple[str, ...] = ()  # patterns of modules that belong to repositories here
    sumdb: str = ""
    artifacts: Artifacts | None = None

    @property
    def authority(self) -> str:
        """`host[:port]`, as image names and the folders of certificates say it."""
        return authority(self.scheme, self.host, self.port)

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_plain(self) -> bool:
        """Whether clients reach us without TLS."""
        return self.scheme == "http"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine's clients reach us; some then do without TLS by themselves."""
        return is_loopback(self.host)


def authority(scheme: str, host: str, port: int) -> str:
    """`host[:port]` without the scheme's own port."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == _PORTS[scheme] else f"{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_url(config: Config, hostname: str) -> str:
    """How clients elsewhere reach the first listener that they can reach. Raises SetupError saying what to give."""
    for listener in config.listeners:
        host, port = parse_address(listener.address)
        if listener.proxy_protocol or listener.transparent or port == 0 or (host and is_loopback(host)):
            continue
        scheme = "https" if listener.tls else "http"
        if host in _ANY:
            named = next((name for name in config.tls.names if not is_ip(name)), "") if listener.tls else ""
            host = named or hostname.lower()
        return f"{scheme}://{authority(scheme, host, port)}"
    first = config.listeners[0]
    scheme = "https" if first.tls else "http"
    raise SetupError(
        f"no listener is for clients elsewhere: say how they reach the server, as --url {scheme}://HOST:PORT"
        f" (for clients on this machine: --url {scheme}://{_local(first.address)})"
    )


def server(config: Config, url: str, ca: str = "", sumdb_key: str = "") -> Server:
    """Raises SetupError if the URL is none that clients can be given.

    `sumdb_key` is what clients verify our own checksum database by: NAME+HASH+KEY.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # half an IPv6 address, a port that is none
        raise SetupError(f"{url}: {_WRITE}") from None
    host = (parts.hostname or "").lower()
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    named = is_ip(host) or re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", host)
    if parts.scheme not in _PORTS or not named or extra or port == 0:
        raise SetupError(f"{url}: {_WRITE}")
    port = port or _PORTS[parts.scheme]
    modules, holder = _modules(config, parts.scheme, host, port)
    own_modules = holder is not None and _has_own(config, holder)
    return Server(
        parts.scheme,
        host,
        port,
        ca=ca if parts.scheme == "https" else "",
        registries=_registries(config, host),
        mirror=_mirror(config, parts.scheme, host, port),
        claimed=tuple(name for item in config.repositories.values() for name in item.hosts if name != host),
        modules=modules,
        own_modules=own_modules,
        private=tuple(dict.fromkeys(_private(config, holder))) if holder is not None else (),
        sumdb=f"{sumdb_key} {modules}/sumdb/{sumdb_key.partition('+')[0]}" if sumdb_key and own_modules else "",
        artifacts=_artifacts(config, parts.scheme, host, port),
    )


def is_vouched_for(config: Config, host: str, hostname: str) -> bool:
    """Whether certificates that we mint can name a host; an address is named by the connection that comes in on it."""
    if is_ip(host):
        return any(ipaddress.ip_address(host) in network for network in ca_scope(config, hostname).networks)
    return host in (*claimed_hosts(config), *own_names(hostname))


def _registries(config: Config, host: str) -> tuple[Registry, ...]:
    """One each, those that repositories claim by name before those that follow from an upstream."""
    found: dict[str, Registry] = {}
    owner = next((name for name, item in config.repositories.items() if host in item.hosts), None)
    for name, repository in config.repositories.items():
        if repository.format != "oci" or repository.kind == "local":
            continue
        for registry in _claimed(repository):
            if registry == host:
                continue
            # A request that names a repository's host is for it, whatever else it says (server/routes.py).
            reached = owner in (None, name)
            prefix = ("" if owner else _prefix(repository)) if reached else None
            found[registry] = Registry(registry, name, prefix, reached)
    for name, repository in config.repositories.items():
        for upstream in repository.upstreams if repository.format == "oci" and not repository.hosts else ():
            registry = _hub(urlsplit(upstream).netloc)
            prefix = _prefix(repository) if owner is None else None
            found.setdefault(registry, Registry(registry, name, prefix, by_namespace=False))
    return tuple(found[registry] for registry in sorted(found, key=lambda one: (one != HUB, one)))


def _claimed(repository: Repository) -> list[str]:
    names = list(dict.fromkeys(_hub(host) for host in repository.hosts))
    # Whatever else stands for Docker Hub is a name of ours: see `_mirror`.
    return [HUB] if HUB in names else names


def _hub(host: str) -> str:
    return HUB if host in _HUB_HOSTS else host


def _prefix(repository: Repository) -> str | None:
    return repository.path.strip("/") if repository.path else None


def _mirror(config: Config, scheme: str, host: str, port: int) -> str:
    """Docker asks a mirror without saying for which registry: a name of ours has to tell, or the root path."""
    hub = next((item for item in config.repositories.values() if _is_hub(item)), None)
    if hub is None:
        return ""
    if host in hub.hosts:
        return f"{scheme}://{authority(scheme, host, port)}"
    for name in hub.hosts:
        if name not in _HUB_HOSTS:
            return f"{scheme}://{authority(scheme, name, port)}"
    claimed = any(host in item.hosts for item in config.repositories.values())
    root = next((item for item in config.repositories.values() if item.path == "/"), None)
    if root is None or claimed or not _contains(config, root, hub.name):
        return ""
    return f"{scheme}://{authority(scheme, host, port)}"


def _modules(config: Config, scheme: str, host: str, port: int) -> tuple[str, Repository | None]:
    found = _reached(config, "go", host)
    return (_url(found[0], scheme, host, port), found[0]) if found else ("", None)


def _has_own(config: Config, repository: Repository) -> bool:
    """Whether modules of the team's own are in it: not everything in it comes from upstreams."""
    if repository.kind == "group":
        return any(_has_own(config, config.repositories[member]) for member in repository.members)
    return repository.kind != "proxy"


def _private(config: Config, repository: Repository) -> Iterator[str]:
    for member in repository.members:
        yield from _private(config, config.repositories[member])
    yield from repository.modules


def _artifacts(config: Config, scheme: str, host: str, port: int) -> Artifacts | None:
    found = _reached(config, "maven", host)
    if not found:
        return None
    first = found[0]
    releases, snapshots = (_taking(found, policy) for policy in ("releases", "snapshots"))
    behind = [item for item in config.repositories.values() if _contains(config, first, item.name)]
    upstreams = [upstream.rstrip("/") for item in behind if item.kind == "proxy" for upstream in item.upstreams]
    if _CENTRAL[0] in upstreams:
        upstreams += _CENTRAL
    return Artifacts(
        _url(first, scheme, host, port),
        _url(releases, scheme, host, port) if releases is not None else "",
        _url(snapshots, scheme, host, port) if snapshots is not None else "",
        tuple(dict.fromkeys(upstreams)),
    )


def _taking(found: list[Repository], policy: str) -> Repository | None:
    """The first that takes what is published."""
    return next((item for item in found if item.publish_to or (item.kind, item.policy) in _TAKING[policy]), None)


def _reached(config: Config, form: str, host: str) -> list[Repository]:
    """Those of a format that a name leads to: groups before what they are made of.

    A host that a repository claims leads nowhere else.
    """
    owner = next((item for item in config.repositories.values() if host in item.hosts), None)
    if owner is not None:
        return [owner] if owner.format == form else []
    found = [item for item in config.repositories.values() if item.format == form and item.path]
    return sorted(found, key=lambda item: item.kind != "group")


def _url(repository: Repository, scheme: str, host: str, port: int) -> str:
    path = "" if host in repository.hosts else repository.path.rstrip("/")
    return f"{scheme}://{authority(scheme, host, port)}{path}"


def _is_hub(repository: Repository) -> bool:
    if repository.hosts:
        return any(host in _HUB_HOSTS for host in repository.hosts)
    return any(urlsplit(upstream).hostname in _HUB_HOSTS for upstream in repository.upstreams)


def _contains(config: Config, repository: Repository, name: str) -> bool:
    return repository.name == name or any(
        _contains(config, config.repositories[member], name) for member in repository.members
    )


def _local(address: str) -> str:
    host, port = parse_address(address)
    shown = f"[{host}]" if ":" in host else host
    return f"{'localhost' if host in _ANY else shown}:{port or 'PORT'}"
