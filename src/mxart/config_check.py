"""What must hold across tables of the configuration. Pure: nothing is opened and nobody is asked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from mxart.config import SUMDB_NAME, Config, Repository, parse_address, parse_duration, parse_size
from mxart.config_access import check_permissions, check_url
from mxart.config_vcs import check_vcs
from mxart.patterns import PathPattern

Fault = tuple[str, str]  # the key, and what is wrong with it and what would be right

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")
_PATH = re.compile(r"/|(/[A-Za-z0-9][A-Za-z0-9._-]*)+\Z")
_PROXY_SCHEMES = ("http", "socks5", "l4")
_NO_PUBLISH_TO = {
    "local": "what is pushed to a local repository stays in it; groups have a publish_to",
    "proxy": 'a proxy takes nothing: push to a local repository, or to a kind = "group" with a publish_to',
    "vcs": "what is in git is published there, by pushing a tag",
}
_RETAINING = ("oci", "maven")
_ONLY_PROXY = ("username", "password", "password_file", "token", "token_file", "ca_file", "index")


def check(config: Config) -> Iterator[Fault]:
    """Every fault, the first one first."""
    yield from _listeners(config)
    yield from _tls(config)
    yield from _proxies("upstreams.proxy", config.upstreams.proxy)
    for host, chain in config.upstreams.proxy_for.items():
        yield from _pattern(f"upstreams.proxy_for.{host}", host)
        yield from _proxies(f"upstreams.proxy_for.{host}", chain)
    for name, repository in config.repositories.items():
        yield from _repository(f"repository.{name}", repository, config)
    yield from _urls(config)
    yield from _cycles(config)
    yield from _tunnels(config)
    yield from _dns(config)
    yield from check_permissions(config.permissions, config.repositories)
    yield from check_url(config.access.url)
    yield from _try("access.audit_bytes", partial(parse_size, config.access.audit_bytes))
    yield from _replicate(config)
    yield from _go(config)
    yield from _limits(config)
    for key in ("every", "grace"):
        yield from _try(f"gc.{key}", partial(parse_duration, getattr(config.gc, key)))


def _replicate(config: Config) -> Iterator[Fault]:
    for index, url in enumerate(config.replicate.targets):
        match = re.fullmatch(r"https?://([^/?#@]+)/?", url)
        try:
            host = parse_address(match[1], default_port=443)[0].lower() if match is not None else ""
        except ValueError:
            host = ""
        if not _HOST.match(host) and not _is_address(host):
            yield f"replicate.targets[{index}]", f"{url!r} is no registry: write https://host or https://host:port"


def _try(place: str, parse: Callable[[], object]) -> Iterator[Fault]:
    try:
        parse()
    except ValueError as error:
        yield place, str(error)


def _listeners(config: Config) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        place = f"listener[{index}].address"
        yield from _try(place, partial(parse_address, listener.address))
        if listener.address in seen and not listener.address.endswith(":0"):
            yield place, f"{listener.address} is taken by listener[{seen[listener.address]}] already"
        seen[listener.address] = index
        if listener.transparent and listener.proxy_protocol:
            yield (
                f"listener[{index}].proxy_protocol",
                "a transparent listener hears the clients themselves, who send no PROXY header",
            )


def _tls(config: Config) -> Iterator[Fault]:
    for index, name in enumerate(config.tls.names):
        if not _HOST.match(name) and not _is_address(name):
            yield f"tls.names[{index}]", f"{name!r} is not a host name in lower case, nor an IP address"
    for index, name in enumerate(config.tls.ca_domains):
        if not _HOST.match(name):
            yield f"tls.ca_domains[{index}]", f"{name!r} is not a domain in lower case"
    if bool(config.tls.ca_cert) != bool(config.tls.ca_key):
        yield f"tls.{'ca_key' if config.tls.ca_cert else 'ca_cert'}", "ca_cert and ca_key go together"


def _pattern(place: str, name: str) -> Iterator[Fault]:
    if not _HOST.match(name.removeprefix("*.")):
        yield place, f'{name!r} is not a host name in lower case, or "*." before one'


def _network(place: str, text: str) -> Iterator[Fault]:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        yield place, f'{error}: write a network as "10.0.0.0/8" or "fd00::/8", one address as it is'


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _proxies(place: str, chain: str | None) -> Iterator[Fault]:
    for url in (chain or "").replace(",", " ").split():
        parts = urlsplit(url)
        if parts.scheme not in _PROXY_SCHEMES or not parts.hostname:
            yield (
                place,
                f"{parts.scheme}://… is not a proxy: write http://host:port, socks5://host:port or l4://host:port",
            )


def _repository(place: str, repository: Repository, config: Config) -> Iterator[Fault]:
    for index, host in enumerate(repository.hosts):
        if not _HOST.match(host):
            yield f"{place}.hosts[{index}]", f"{host!r} is not a host name in lower case without a port"
    if repository.path and not _PATH.match(repository.path):
        yield f"{place}.path", f'{repository.path!r}: write "/" or "/name" without a slash at the end'
    if repository.path == "/-" or repository.path.startswith("/-/"):
        yield f"{place}.path", "/-/ is the program's own"
    if repository.store != "default" and repository.store not in config.stores:
        yield f"{place}.store", f"there is no [store.{repository.store}]"
    yield from _space(place, repository)
    if repository.format != "oci":
        yield from _not_oci(place, repository)
    yield from _particular(place, repository)
    if repository.kind == "proxy":
        yield from _proxy(place, repository)
    else:
        if repository.upstreams:
            yield f"{place}.upstream", f'a {repository.kind} repository has no upstream; kind = "proxy" has'
        for key in _ONLY_PROXY:
            if getattr(repository, key):
                yield f"{place}.{key}", f"a {repository.kind} repository has no upstream to present it to"
        if repository.relay != "never":
            yield f"{place}.relay", f"a {repository.kind} repository has no upstream to relay credentials to"
    yield from _vcs(place, repository)
    if repository.kind == "group":
        yield from _group(place, repository, config)
    else:
        if repository.members:
            yield f"{place}.members", f'a {repository.kind} repository has no members; kind = "group" has'
        if repository.publish_to:
            yield f"{place}.publish_to", _NO_PUBLISH_TO[repository.kind]


def _vcs(place: str, repository: Repository) -> Iterator[Fault]:
    if repository.kind == "vcs":
        if repository.format != "go":
            yield f"{place}.kind", f"only Go modules are read from git; this one holds {repository.format}"
        yield from check_vcs(place, repository.modules, repository.urls, repository.login)
        yield from _proxies(f"{place}.proxy", repository.proxy)
        return
    if repository.modules and (repository.format != "go" or repository.kind == "group"):
        what = f"a {repository.kind} of {repository.format}"
        yield (
            f"{place}.modules",
            f"a local, a proxy or a vcs of Go modules is told which ones are its own; this is {what}",
        )
    for key in ("urls", "login"):
        if getattr(repository, key):
            yield f"{place}.{key}", f'a {repository.kind} repository reads nothing from git; kind = "vcs" does'


def _particular(place: str, repository: Repository) -> Iterator[Fault]:
    """What only some formats have."""
    what = f"a {repository.kind} of {repository.format}"
    if repository.sumdb and (repository.format, repository.kind) != ("go", "proxy"):
        yield f"{place}.sumdb", "only a proxy of Go modules is told of a checksum database"
    if repository.private and (repository.format not in ("go", "maven") or repository.kind != "proxy"):
        yield f"{place}.private", f"what an upstream may not hear of is told to a proxy of go or maven; this is {what}"
    if repository.policy != "mixed" and (repository.format != "maven" or repository.kind not in ("local", "proxy")):
        yield f"{place}.policy", f"releases and snapshots are told apart by a local or proxy of maven; this is {what}"
    if repository.staging and (repository.format, repository.kind) != ("maven", "local"):
        yield f"{place}.staging", f"deploys are staged by a local of maven; this is {what}"
    if len(repository.targets) > 1 and repository.format != "maven":
        message = "name one member: only of maven's one may take releases, and another one snapshots"
        yield f"{place}.publish_to", message


def _not_oci(place: str, repository: Repository) -> Iterator[Fault]:
    if repository.path.split("/")[1:2] in (["v1"], ["v2"]):
        yield f"{place}.path", f"{repository.path} is where registries are asked: choose another first element"
    if repository.relay != "never":
        yield (
            f"{place}.relay",
            f"callers' credentials are relayed to registries only; this one holds {repository.format}",
        )
    if repository.index:
        yield f"{place}.index", f"only registries have an index to search; this one holds {repository.format}"
    if repository.retention and repository.format not in _RETAINING:
        yield f"{place}.retention", f"retention is by tags or builds, and {repository.format} has none"


def _proxy(place: str, repository: Repository) -> Iterator[Fault]:
    if not repository.upstreams:
        yield f"{place}.upstream", 'a proxy needs an upstream: upstream = "https://registry.example"'
    for url in repository.upstreams:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            yield (
                f"{place}.upstream",
                f"{parts.scheme}://{parts.hostname or '?'}: write https://host or https://host/path",
            )
        elif parts.username or parts.password:
            yield f"{place}.upstream", "put credentials into username and password, not into the URL"
    if repository.index and urlsplit(repository.index).scheme not in ("http", "https"):
        yield f"{place}.index", f"{repository.index}: write https://host"
    yield from _proxies(f"{place}.proxy", repository.proxy)
    for key in ("password", "token"):
        if getattr(repository, key) and getattr(repository, f"{key}_file"):
            yield f"{place}.{key}_file", f"give {key} or {key}_file, not both"
    has_password = bool(repository.password or repository.password_file)
    if bool(repository.username) != has_password:
        missing = "password" if repository.username else "username"
        yield f"{place}.{missing}", "username and password go together"
    if has_password and (repository.token or repository.token_file):
        yield f"{place}.token", "give a token, or a username and a password, not both"


def _space(place: str, repository: Repository) -> Iterator[Fault]:
    """How much a repository may hold, and what goes from it."""
    for key, kind in (("max_bytes", "proxy"), ("quota", "local")):
        value = getattr(repository, key)
        if value is None:
            continue
        if repository.kind != kind:
            other = {
                "proxy": "here it is max_bytes",
                "local": "here it is quota",
                "vcs": "what was made of a commit stays, for its tag may be gone",
            }.get(repository.kind, "here it is max_bytes or quota of its members")
            yield f"{place}.{key}", f"{key} is for a {kind} repository; {other}"
        yield from _try(f"{place}.{key}", partial(parse_size, value))
    if repository.retention and repository.kind != "local":
        yield f"{place}.retention", "retention rules are for what was published here: a local repository"
    for index, rule in enumerate(repository.retention):
        at = f"{place}.retention[{index}]"
        if rule.keep is None and rule.days is None and rule.untagged_days is None:
            yield at, "say what stays: keep = 10, days = 30; or when untagged manifests go: untagged_days = 7"
        if rule.untagged_days is not None and repository.format != "oci":
            yield f"{at}.untagged_days", f"only images may have no tag; this is a repository of {repository.format}"
        yield from _try(f"{at}.packages", partial(PathPattern.parse, rule.packages))
        if not rule.patterns:
            yield f"{at}.tags", 'write a pattern such as "*" or "v*", or several: ["v*", "latest"]'
        for pattern in rule.patterns:
            yield from _try(f"{at}.tags", partial(PathPattern.parse, pattern))


def _group(place: str, repository: Repository, config: Config) -> Iterator[Fault]:
    if not repository.members:
        yield f"{place}.members", 'a group needs members: members = ["one", "another"]'
    for index, member in enumerate(repository.members):
        found = config.repositories.get(member)
        if found is None:
            yield f"{place}.members[{index}]", f"there is no [repository.{member}]"
        elif str(found.format) != str(repository.format):
            yield f"{place}.members[{index}]", f"{member} holds {found.format}, this group {repository.format}"
        if member in repository.members[:index]:
            yield f"{place}.members[{index}]", f"{member} is a member twice"
    several = isinstance(repository.publish_to, tuple)
    for index, wanted in enumerate(repository.targets):
        at = f"{place}.publish_to{f'[{index}]' if several else ''}"
        yield from _publish_to(at, wanted, repository, config)
        if wanted in repository.targets[:index]:
            yield at, f"{wanted} is named twice"


def _publish_to(place: str, wanted: str, repository: Repository, config: Config) -> Iterator[Fault]:
    found = config.repositories.get(wanted)
    if found is None:
        yield place, f"there is no [repository.{wanted}]"
    elif wanted not in repository.members:
        yield place, f"{wanted} is not among the members: what is pushed to a group must be seen in it"
    elif found.kind in ("proxy", "vcs"):
        what = {"proxy": "its upstream's", "vcs": "git's"}[found.kind]
        yield place, f"{wanted} is a {found.kind}, whose content is {what}: name a local member, or a group"
    elif found.kind == "group" and not found.publish_to:
        yield place, f"{wanted} is a group that has no publish_to itself"


def _urls(config: Config) -> Iterator[Fault]:
    hosts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for name, repository in config.repositories.items():
        for host in repository.hosts:
            if host in hosts:
                yield f"repository.{name}.hosts", f"{host} belongs to repository {hosts[host]} already"
            hosts[host] = name
        if not repository.path:
            continue
        for path, other in paths.items():
            if path == repository.path or (
                "/" not in (path, repository.path)
                and (path.startswith(repository.path + "/") or repository.path.startswith(path + "/"))
            ):
                yield f"repository.{name}.path", f"{repository.path} overlaps {path} of repository {other}"
        paths[repository.path] = name


def _cycles(config: Config) -> Iterator[Fault]:
    def walk(name: str, chain: tuple[str, ...]) -> Iterator[Fault]:
        if name in chain:
            yield f"repository.{name}.members", "members go round: " + " → ".join((*chain[chain.index(name) :], name))
            return
        found = config.repositories.get(name)
        for member in found.members if found is not None else ():
            yield from walk(member, (*chain, name))

    for name in config.repositories:
        for fault in walk(name, ()):
            yield fault
            return


def _tunnels(config: Config) -> Iterator[Fault]:
    claimed = {host: f"repository {name}" for name, item in config.repositories.items() for host in item.hosts}
    for host in config.token_server.hosts:
        if not _HOST.match(host):
            yield "token_server.hosts", f"{host!r} is not a host name in lower case without a port"
        if host in claimed:
            yield "token_server.hosts", f"{host} belongs to {claimed[host]} already"
        claimed[host] = "token_server.hosts"
    for index, tunnel in enumerate(config.tunnels):
        place = f"tunnel[{index}]"
        if [bool(tunnel.sni), bool(tunnel.listen), bool(tunnel.networks)].count(True) != 1:
            yield place, 'give one of sni = ["name"], listen = ":port", networks = ["10.0.0.0/8"]'
        if tunnel.listen:
            yield from _try(f"{place}.listen", partial(parse_address, tunnel.listen))
            if not tunnel.to:
                yield f"{place}.to", 'a port of its own needs a target: to = "host:port"'
        if tunnel.to:
            yield from _try(f"{place}.to", partial(parse_address, tunnel.to, default_port=443))
        if tunnel.networks and tunnel.to:
            yield f"{place}.to", "networks are where the client wanted to go; there is no other target"
        if tunnel.ports and not tunnel.networks:
            yield f"{place}.ports", "ports belong to networks; elsewhere the port stands in `to`"
        for number, network in enumerate(tunnel.networks):
            yield from _network(f"{place}.networks[{number}]", network)
        for name in tunnel.sni:
            yield from _pattern(f"{place}.sni", name)
            if name in claimed:
                yield f"{place}.sni", f"{name} belongs to {claimed[name]} already"
            claimed[name] = place


def _dns(config: Config) -> Iterator[Fault]:
    dns = config.dns
    if dns is None:
        return
    yield from _try("dns.listen", partial(parse_address, dns.listen))
    if not dns.answer:
        yield "dns.answer", 'which address is ours? write answer = ["10.0.0.5"]'
    for index, address in enumerate(dns.answer):
        if not _is_address(address):
            yield f"dns.answer[{index}]", f"{address!r} is not an IP address"
    for index, server in enumerate(dns.forward):
        yield from _try(f"dns.forward[{index}]", partial(_server, server))
    for index, name in enumerate(dns.names):
        yield from _pattern(f"dns.names[{index}]", name)
    for index, network in enumerate(dns.clients):
        yield from _network(f"dns.clients[{index}]", network)


def _server(text: str) -> None:
    if _is_address(text):
        return
    host, _ = parse_address(text, default_port=53)
    if not _is_address(host):
        raise ValueError(f'{text!r} is not the address of a DNS server: write "9.9.9.9" or "[2620:fe::fe]:53"')


def _go(config: Config) -> Iterator[Fault]:
    name = config.go.sumdb_name
    if name and not re.fullmatch(SUMDB_NAME, name):
        yield "go.sumdb_name", f"{name!r}: write a name as of a host, in lower case, of your own: sum.example.com"
    elif name in ("sum.golang.org", "sum.golang.google.cn"):
        yield "go.sumdb_name", f"{name} is the name of another one, whose key the go command knows: choose your own"


def _limits(config: Config) -> Iterator[Fault]:
    yield from _try("limits.body_bytes", lambda: parse_size(config.limits.body_bytes))
    if config.limits.header_bytes < 4096:
        yield "limits.header_bytes", "at least 4096, or ordinary clients are refused"
