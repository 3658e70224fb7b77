"""What becomes of a connection: ended here, passed on, or refused. Pure; every way in is decided by this one table.

A name is looked for in three places, the most specific first: among the names that a tunnel lists as they
are; among those that are served here; below the patterns ("*.example.com") of tunnels.  An address is looked for in
the networks of tunnels.  What is in none of them is refused, whichever way it was asked for:

- by SNI, at any listener;
- by CONNECT, or a request in absolute form, of a client that takes us for its proxy (RFC 9110 section 9.3.6, RFC 9112
  section 3.2.2).  After CONNECT to a name that is served here, the connection starts over: its own first bytes are
  judged as those of any other;
- by the address that a client meant when a firewall rule sent its connection to a transparent listener.  There the
  first bytes decide as everywhere, and what they do not decide goes on to that address if a network allows it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Literal, Protocol

from msgspec import Struct

from mxart.domains import is_ip
from mxart.proto.client_hello import UNRECOGNIZED_NAME, ClientHello, host_name
from mxart.server.tunnels import Target, TunnelTable

Address = tuple[str, int]
By = Literal["sni", "connect", "address", "port"]

_HTTP, _HTTPS = 80, 443
_SHOWN = 8  # names of a kind that a refusal tells
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})\Z")


class Door(Struct, frozen=True):
    """How a connection came in."""

    tls: bool  # TLS is ended here
    plain: bool  # HTTP in clear text is served, and not sent to https
    original: Address | None = None  # where it was bound for when a firewall rule sent it here
    through: str | None = None  # the host of the CONNECT that it came by


def inside(door: Door, authority: str) -> Door:
    """The door of what comes behind a CONNECT that was granted, for the same client."""
    found = split_authority(authority)
    return Door(tls=True, plain=door.plain, through=found[0] if found is not None else "")


class Terminate(Struct, frozen=True):
    """TLS ends here, with a certificate for this name; None: the client did not say."""

    name: str | None


class TellPlain(Struct, frozen=True):
    """TLS where there is none."""


class Serve(Struct, frozen=True):
    """HTTP in clear text; after CONNECT: whatever the connection itself says."""


class Pass(Struct, frozen=True):
    """Raw TCP to a target. `name` is what the client asked for."""

    target: Target
    by: By
    name: str = ""


class Refuse(Struct, frozen=True):
    """Nothing. `status` and `reason` for who speaks HTTP; an alert (RFC 8446 section 6) for who speaks TLS.

    `allowed` is what would not be refused: a help for this network's own, and no strangers' business.
    """

    reason: str
    status: int = 403
    alert: int = UNRECOGNIZED_NAME
    allowed: str = ""


class Own(Protocol):
    """Which addresses this program listens on."""

    def is_own(self, address: str, port: int) -> bool:
        """Whether a connection to there would come to one of our HTTP listeners."""
        ...

    def is_here(self, address: str) -> bool:
        """Whether an address is one of this machine, whoever listens there."""
        ...

    def has_port(self, port: int) -> bool:
        """Whether one of our HTTP listeners has this port."""
        ...


class Passage:
    """The table. `names` are those that are served here: hosts, addresses as text, all in lower case."""

    def __init__(self, tunnels: TunnelTable, names: Collection[str], own: Own) -> None:
        self._tunnels = tunnels
        self._names = frozenset(names)
        self._own = own

    def hello(self, hello: ClientHello, door: Door) -> Terminate | TellPlain | Pass | Refuse:
        """A TLS hello. Of an encrypted one the outer name decides."""
        name = hello.sni
        if name is not None:
            target = self._tunnels.exact(name)
            if target is None and name not in self._names:
                target = self._tunnels.wildcard(name)
            if target is not None:
                return Pass(target, "sni", name)
            if door.original is not None and name not in self._names:
                return self.fallback(door, f"{name} is not served here", name)
        elif door.through is not None:
            name = None if is_ip(door.through) else door.through
        elif door.original is not None:
            return self.fallback(door, "the TLS hello names no host")
        return Terminate(name) if door.tls else TellPlain()

    def host(self, host: str, door: Door) -> Serve | Pass | Refuse:
        """HTTP in clear text at a transparent listener; `host` as its first request names it, "" if it does not."""
        if host in self._names:
            return Serve()
        return self.fallback(door, f"{host or 'a request without Host'} is not served here", host)

    def fallback(self, door: Door, why: str, name: str = "") -> Pass | Refuse:
        """What the first bytes do not decide: on to where the client wanted, if it may go there.

        `name`: what they asked for all the same.
        """
        if door.original is None:
            return Refuse(why)
        address, port = door.original
        target = self._tunnels.address(address, port)
        if target is not None:
            return Pass(target, "address", name)
        return Refuse(f"{why}, and no [[tunnel]] has a network with {_shown(address, port)}, where it was bound for")

    def connect(self, authority: str) -> Serve | Pass | Refuse:
        """The target of a CONNECT (RFC 9112 section 3.2.3: host and port)."""
        found = split_authority(authority)
        if found is None:
            return Refuse(f"CONNECT {authority[:300]!r}: this is no host and port", status=400)
        host, port = found
        target = self._tunnels.exact(host)
        if target is None and self._is_ours(host, port):
            return Serve()
        if target is None and host not in self._names:
            target = self._tunnels.wildcard(host)
        if target is not None and port in (_HTTPS, target.port):
            return Pass(target, "connect", host)
        target = self._tunnels.address(host, port)
        if target is not None and self._own.is_here(target.host):
            # What listens on this machine may trust its own addresses more than our clients'.
            return Refuse(f"CONNECT {_shown(host, port)}: an address of this server itself is for no tunnel")
        if target is not None:
            return Pass(target, "connect", host)
        return Refuse(f"CONNECT {_shown(host, port)} is not allowed here", allowed=self._allowed())

    def absolute(self, authority: str, *, tls: bool) -> Refuse | None:
        """A request whose target is a URL with this authority, `tls`: https. None: it is for us."""
        found = split_authority(authority, _HTTPS if tls else _HTTP)
        if found is None:
            return Refuse(f"{authority[:300]!r} is no host", status=400)
        host, port = found
        if self._is_ours(host, port):
            return None
        target = self._tunnels.exact(host) or self._tunnels.wildcard(host) or self._tunnels.address(host, port)
        if target is not None:
            return Refuse(f"{_shown(host, port)} is passed on only as raw TCP: use CONNECT")
        return Refuse(f"{_shown(host, port)} is not served here", allowed=self._allowed())

    def _is_ours(self, host: str, port: int) -> bool:
        if host in self._names:
            return port in (_HTTP, _HTTPS) or self._own.has_port(port)
        return is_ip(host) and self._own.is_own(host, port)

    def _allowed(self) -> str:
        served = sorted(name for name in self._names if "." in name and not is_ip(name))
        parts = [
            f"{what} {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
            for what, names in (
                ("served are", served),
                ("passed on are", (*self._tunnels.names, *self._tunnels.networks)),
            )
            if names
        ]
        return "; ".join(parts) or "nothing is served or passed on by name"


def split_authority(text: str, default_port: int | None = None) -> tuple[str, int] | None:
    """Host, in lower case without a final dot or as canonical address, and port; None for anything else."""
    match = _AUTHORITY.match(text if default_port is None or _has_port(text) else f"{text.rstrip(':')}:{default_port}")
    if match is None or not 0 < int(match[3]) <= 65535:
        return None
    if match[1] is None:
        name = host_name(match[2].encode("utf-8", "surrogateescape"))
        if name is not None:
            return name, int(match[3])
    try:
        address = ipaddress.ip_address(match[1] or match[2])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), int(match[3])


def _has_port(text: str) -> bool:
    return text.rpartition("]")[2].rpartition(":")[2].isdigit() and ":" in text.rpartition("]")[2]


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
