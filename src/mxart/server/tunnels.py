"""What may be passed on as raw TCP, and to where. Pure; the world is closed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from msgspec import Struct

from mxart.config import Tunnel, parse_address

_HTTPS = 443

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Target(Struct, frozen=True):
    """Where a tunnel leads. `explicit`: the configuration's own `to`, so that loopback is meant if it says so."""

    host: str
    port: int
    explicit: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target_of(to: str) -> Target:
    """The target that a `to` names."""
    host, port = parse_address(to, default_port=_HTTPS)
    return Target(host, port, explicit=True)


class _Reach(Struct, frozen=True):
    """Networks, and the ports in them that may be reached; none: all."""

    networks: tuple[Network, ...]
    ports: frozenset[int]


class TunnelTable:
    """Tunnels by server name, exact or the longest "*." pattern above it, and by address."""

    def __init__(self, tunnels: Iterable[Tunnel]) -> None:
        """The configuration was checked."""
        tunnels = tuple(tunnels)
        self._names = {name: tunnel.to for tunnel in tunnels for name in tunnel.sni}
        self._reach = tuple(
            _Reach(tuple(ipaddress.ip_network(text) for text in tunnel.networks), frozenset(tunnel.ports))
            for tunnel in tunnels
            if tunnel.networks
        )

    def exact(self, name: str) -> Target | None:
        """The target of the tunnel that lists this very name, in lower case."""
        return self._target(name, name)

    def wildcard(self, name: str) -> Target | None:
        """The target of the longest pattern above a name."""
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            target = self._target(f"*.{rest}", name)
            if target is not None:
                return target
        return None

    def address(self, address: str, port: int) -> Target | None:
        """An address itself, if it lies in one of the networks and the port may be reached there."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:  # with a zone, most likely: a link
            return None
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        for reach in self._reach:
            if (not reach.ports or port in reach.ports) and any(ip in network for network in reach.networks):
                return Target(str(ip), port, explicit=False)
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name and pattern, as configured."""
        return tuple(self._names)

    @property
    def networks(self) -> tuple[str, ...]:
        """Every network, as configured."""
        return tuple(str(network) for reach in self._reach for network in reach.networks)

    def _target(self, rule: str, name: str) -> Target | None:
        to = self._names.get(rule)
        if to is None:
            return None
        return target_of(to) if to else Target(name, _HTTPS, explicit=False)
