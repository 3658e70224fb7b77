"""Which connections are passed on as raw TCP, and to where. Pure; the world is closed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mxart.config import Tunnel, parse_address

_HTTPS = 443


@dataclass(frozen=True, slots=True)
class Target:
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


class TunnelTable:
    """Tunnels by server name: the exact name first, then the longest "*." pattern above it."""

    def __init__(self, tunnels: Iterable[Tunnel]) -> None:
        self._names = {name: tunnel.to for tunnel in tunnels for name in tunnel.sni}

    def find(self, sni: str | None) -> Target | None:
        """The target for a name in lower case, None if nothing claims it."""
        if not sni:
            return None
        for candidate in _candidates(sni):
            to = self._names.get(candidate)
            if to is not None:
                return target_of(to) if to else Target(sni, _HTTPS, explicit=False)
        return None


def _candidates(name: str) -> Iterable[str]:
    yield name
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
