"""Which addresses are ours, and where a connection was bound for before a firewall rule sent it here.

Netfilter's REDIRECT (and DNAT) rewrites a packet's destination, and remembers the old one for the connection:
SO_ORIGINAL_DST tells it.  TPROXY rewrites nothing: the connection's own local address is the old destination.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from mxart.upstream.dial import is_local
from mxart.upstream.zones import plain_ip

Address = tuple[str, int]

_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h is the same
_SOL_IPV6 = 41


class OwnAddresses:
    """Where this program's HTTP listeners are (passage.Own)."""

    def __init__(self, bound: Iterable[Address] = ()) -> None:
        self._bound: set[Address] = set()
        self._ports: set[int] = set()
        for address in bound:
            self.add(address)

    def add(self, bound: Address) -> None:
        """A listener is bound there; 0.0.0.0 and :: stand for every address of this machine."""
        self._bound.add((plain(bound[0]), bound[1]))
        self._ports.add(bound[1])

    def is_own(self, address: str, port: int) -> bool:
        if port not in self._ports:
            return False
        address = plain(address)
        if (address, port) in self._bound:
            return True
        everywhere = ("::", port) in self._bound or (("0.0.0.0", port) in self._bound and ":" not in address)  # noqa: S104  # compared, not bound
        return everywhere and is_local(ipaddress.ip_address(address))

    def is_here(self, address: str) -> bool:
        return is_local(plain_ip(address))

    def has_port(self, port: int) -> bool:
        return port in self._ports


def original_destination(sock: socket.socket) -> Address | None:
    """Where a connection that was accepted here was bound for; None if that is this machine itself."""
    try:
        local = sock.getsockname()
    except OSError:
        return None
    found = _redirected(sock) or (plain(local[0].partition("%")[0]), local[1])
    address = ipaddress.ip_address(found[0])
    # A link-local destination is never routed (RFC 4291 section 2.5.6): whoever came by one came to us. Without its
    # zone, `is_local` could not tell.
    return None if (address.version == 6 and address.is_link_local) or is_local(address) else found


def _redirected(sock: socket.socket) -> Address | None:
    """What netfilter remembers; None if it has nothing to do with this connection."""
    try:
        if sock.family == socket.AF_INET6 and not plain(sock.getsockname()[0]).count("."):
            data = sock.getsockopt(_SOL_IPV6, _ORIGINAL_DST, 28)  # struct sockaddr_in6
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), _port(data)
        data = sock.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)  # struct sockaddr_in
        return socket.inet_ntop(socket.AF_INET, data[4:8]), _port(data)
    except OSError:  # ENOENT, ENOPROTOOPT: the connection, or all of it, is not tracked
        return None


def _port(address: bytes) -> int:
    return int(struct.unpack("!H", address[2:4])[0])


def plain(address: str) -> str:
    """An IPv4 address that came through a dual-stack socket is an IPv4 address."""
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address
