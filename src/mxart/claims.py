"""Which names the configuration says that clients reach us by, and what a CA of ours has to be permitted for them.

The CA is permitted little, so that little is lost with its key (RFC 5280 section 4.2.1.10 knows a domain
with everything below it, and networks):

- the public registries that are served without a configuration, always: to begin with a configuration
  must not need a new CA;
- every host that the configuration claims for a repository, the token server, `tls.names` and DNS, as it stands:
  whose the domain above it is, cannot be known ("registry.gitlab.com", "home.duckdns.org");
- `tls.ca_domains`: those that the user knows to be his own;
- localhost and this machine;
- private networks, and addresses that the configuration names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from msgspec import Struct

from mxart.config import PRIVATE_NETWORKS, Config, default_repositories, parse_address
from mxart.domains import is_ip, is_within

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")


class Scope(Struct, frozen=True):
    """What a CA may vouch for: domains with everything below them, in order, and networks."""

    domains: tuple[str, ...]
    networks: tuple[Network, ...]


def claimed_hosts(config: Config) -> tuple[str, ...]:
    """The names that certificates are needed for, in the configuration's order; a repository may claim an address."""
    hosts = [host for repository in config.repositories.values() for host in repository.hosts]
    own = [name.lower() for name in config.tls.names if not is_ip(name)]
    return tuple(dict.fromkeys((*hosts, *config.token_server.hosts, *own)))


def served_names(config: Config, hostname: str) -> frozenset[str]:
    """By what a client may ask for us when we are its proxy: names, and addresses as text."""
    own = (name.lower() for name in config.tls.names)
    return frozenset((*claimed_hosts(config), *own, "localhost", hostname.lower().rstrip(".")))


def own_names(hostname: str) -> tuple[str, ...]:
    """What this machine is called without any configuration.

    A name of one word may be a top-level domain too ("dev", "build"), and permitting that would permit all below it:
    it counts only with a digit or a hyphen in it, which no such domain has in plain ASCII but for "xn--".
    """
    name = hostname.lower().rstrip(".")
    usable = _HOST.match(name) is not None and not is_ip(name)
    if usable and ("." in name or (re.search(r"[0-9-]", name) and not name.startswith("xn--"))):
        return ("localhost", name)
    return ("localhost",)


def ca_scope(config: Config, hostname: str) -> Scope:
    """What a CA that is made now is permitted."""
    domains = [host for repository in default_repositories().values() for host in repository.hosts]
    domains += [host for host in claimed_hosts(config) if not is_ip(host)]
    domains += [name.removeprefix("*.") for name in (config.dns.names if config.dns else ())]
    domains += config.tls.ca_domains
    domains += own_names(hostname)
    listening = (parse_address(listener.address)[0] for listener in config.listeners)
    addresses = [text for text in (*claimed_hosts(config), *config.tls.names, *listening) if is_ip(text)]
    named = (ipaddress.ip_network(text) for text in addresses if not ipaddress.ip_address(text).is_unspecified)
    return Scope(_outermost(domains), _widest((*map(ipaddress.ip_network, PRIVATE_NETWORKS), *named)))


def _outermost(domains: Iterable[str]) -> tuple[str, ...]:
    """Without those that lie within another."""
    unique = tuple(dict.fromkeys(domains))
    return tuple(name for name in unique if not any(name != other and is_within(name, other) for other in unique))


def _widest(networks: Iterable[Network]) -> tuple[Network, ...]:
    unique = tuple(dict.fromkeys(networks))
    return tuple(
        network for network in unique if not any(network != other and _contains(other, network) for other in unique)
    )


def _contains(wide: Network, narrow: Network) -> bool:
    if isinstance(wide, ipaddress.IPv4Network):
        return isinstance(narrow, ipaddress.IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, ipaddress.IPv6Network) and narrow.subnet_of(wide)
