"""Names to addresses: the configured table, else the configured nameservers, else the system.

Where nameservers are configured the system is never asked: its DNS may be the one that sends our
clients, and so ourselves, to this very server.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
from msgspec import Struct

from mxart.errors import ConfigError
from mxart.upstream.failure import Cause, Trouble, reason
from mxart.upstream.url import is_ip

Lookup = Callable[[str], Awaitable[tuple[list[str], float]]]
"""Addresses of a name, and how long they may be kept (seconds). Raises Trouble."""

_SYSTEM_TTL = 10.0  # getaddrinfo does not tell; long enough for the requests of one pull
_STALE = 3600.0  # an old answer is better than none
_REMEMBERED = 1024


class _Answer(Struct):
    addresses: list[str]
    expires: float


class Resolver:
    """Asks and remembers. One per process."""

    def __init__(self, table: Mapping[str, str], nameservers: Sequence[str] = (), *, timeout: float = 5.0) -> None:
        self._table = {name.lower().rstrip("."): address for name, address in table.items()}
        for name, address in self._table.items():
            if not is_ip(address):
                raise ConfigError(f"upstreams.resolve: {name!r} must be given an IP address, not {address!r}")
        self._timeout = timeout
        self._answers: dict[str, _Answer] = {}
        self._lookup: Lookup = _system
        self._how = "the system's resolver"
        if nameservers:
            # dnspython takes a while to import, and most users do not need it.
            from mxart.upstream.nameservers import Nameservers  # noqa: PLC0415  # dnspython takes a while

            self._lookup = Nameservers(nameservers, timeout).lookup
            self._how = f"nameservers {', '.join(nameservers)}"

    def fixed(self, host: str) -> str | None:
        """What the table says about a name, None if it is not in it."""
        return self._table.get(host.lower().rstrip("."))

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name, IPv6 and IPv4 in turn. Raises Trouble if there are none."""
        host = host.lower().rstrip(".")
        if is_ip(host):
            return [host]
        if (address := self._table.get(host)) is not None:
            return [address]
        now = trio.current_time()
        known = self._answers.get(host)
        if known is not None and now < known.expires:
            return known.addresses
        try:
            with trio.fail_after(self._timeout):
                addresses, ttl = await self._lookup(host)
        except trio.TooSlowError:
            trouble = Trouble(Cause.UNRESOLVED, f"{self._how} did not answer about {host} within {self._timeout:g} s")
        except Trouble as error:
            trouble = error
        else:
            self._remember(host, _Answer(in_turn(addresses), trio.current_time() + ttl))
            return self._answers[host].addresses
        if known is not None and now < known.expires + _STALE:
            return known.addresses
        raise trouble

    def _remember(self, host: str, answer: _Answer) -> None:
        self._answers.pop(host, None)
        while len(self._answers) >= _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[host] = answer


def in_turn(addresses: Sequence[str]) -> list[str]:
    """IPv6 first, then alternately (RFC 8305 section 4), each once, otherwise in the given order."""
    unique = list(dict.fromkeys(addresses))
    six = [address for address in unique if ipaddress.ip_address(address).version == 6]
    four = [address for address in unique if ipaddress.ip_address(address).version == 4]
    mixed: list[str] = []
    for index in range(max(len(six), len(four))):
        mixed += six[index : index + 1] + four[index : index + 1]
    return mixed


async def _system(host: str) -> tuple[list[str], float]:
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Trouble(Cause.UNRESOLVED, f"the system's resolver does not know {host}: {reason(error)}") from None
    except UnicodeError:
        raise Trouble(Cause.UNRESOLVED, f"{host!r} is not a host name") from None
    addresses = [str(address[0]) for *_, address in found if "%" not in str(address[0])]
    if not addresses:
        raise Trouble(Cause.UNRESOLVED, f"the system's resolver has no address of {host}")
    return addresses, _SYSTEM_TTL
