"""Which addresses an upstream may lead us to. Pure.

An upstream names other places: by Location, and by the realm of a token server.  From where we are, names and
addresses can be reached that are not meant for strangers: our own machine, the link (where clouds answer with
credentials to whoever asks 169.254.169.254), the site's network.  So an upstream leads us only where it might have
led anybody, or where it is itself: one on the Internet to the Internet, one of the site to the site as well.

An address is judged as it is dialled, not the name, so that a name that means another address each time
(DNS rebinding) does not help.  IPv6 addresses that carry an IPv4 one are judged by that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Zone(Enum):
    """Who can reach an address; the value is its word in messages."""

    PUBLIC = "public"
    PRIVATE = "private"  # RFC 1918, 4193, 6598, and whatever else is not of the whole Internet
    LINK = "link-local"  # RFC 3927, RFC 4291 section 2.5.6
    LOOPBACK = "loopback"
    NOWHERE = "not one machine's"  # multicast, broadcast


Reach = frozenset[Zone] | None
"""Where something may lead; None: anywhere, because the configuration itself names it."""

_FROM: dict[Zone, frozenset[Zone]] = {
    Zone.PUBLIC: frozenset({Zone.PUBLIC}),
    Zone.PRIVATE: frozenset({Zone.PUBLIC, Zone.PRIVATE}),
    Zone.LINK: frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.LINK}),
    Zone.LOOPBACK: frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK}),
    Zone.NOWHERE: frozenset(),
}
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all of the Internet (RFC 4291 section 2.4); fec0::/10 is some site's


@lru_cache(maxsize=1024)
def plain_ip(address: str) -> Ip:
    """An address; the IPv4 address that an IPv6 one carries (mapped, translated, 6to4) in its stead."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if any(ip in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


@lru_cache(maxsize=1024)
def zone_of(address: str) -> Zone:
    """The zone of an IP address."""
    ip = plain_ip(address)
    if ip.is_loopback or ip.is_unspecified:  # connect(2) takes 0.0.0.0 and :: for this machine
        return Zone.LOOPBACK
    if ip.is_link_local:
        return Zone.LINK
    if ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
        return Zone.NOWHERE
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST:
        return Zone.PRIVATE
    return Zone.PUBLIC if ip.is_global else Zone.PRIVATE


def reach_of(addresses: Iterable[str]) -> frozenset[Zone]:
    """Where a server with these addresses may lead: what every one of them may."""
    allowed = [_FROM[zone_of(address)] for address in addresses]
    return frozenset.intersection(*allowed) if allowed else _FROM[Zone.PUBLIC]
