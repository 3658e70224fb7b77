"""Asks configured nameservers for addresses, by dnspython."""

from __future__ import annotations

from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
import trio

from mxart.errors import ConfigError
from mxart.upstream.failure import Cause, Trouble
from mxart.upstream.url import is_ip

_SHORTEST, _LONGEST = 5.0, 300.0


class Nameservers:
    """`servers` are IP addresses, with `:port` if it is not 53 (`[address]:port` for IPv6)."""

    def __init__(self, servers: Sequence[str], timeout: float) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        addresses: list[str] = []
        for server in servers:
            address, port = _split(server)
            addresses.append(address)
            self._resolver.nameserver_ports[address] = port
        self._resolver.nameservers = addresses
        self._resolver.timeout = max(timeout / 3, 0.1)
        self._resolver.lifetime = timeout
        self._text = ", ".join(servers)

    async def lookup(self, host: str) -> tuple[list[str], float]:
        """Addresses of both families, and how long they may be kept. Raises Trouble."""
        found: list[str] = []
        ttls: list[float] = []
        troubles: list[str] = []

        async def ask(kind: dns.rdatatype.RdataType) -> None:
            try:
                answer = await self._resolver.resolve(f"{host}.", kind, raise_on_no_answer=False)
            except dns.resolver.NXDOMAIN:
                troubles.append("there is no such name")
            except dns.exception.DNSException as error:
                troubles.append(str(error).splitlines()[0])
            except OSError as error:
                troubles.append(error.strerror or str(error))
            else:
                if answer.rrset is not None:
                    found.extend(record.to_text() for record in answer.rrset)
                    ttls.append(float(answer.rrset.ttl))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, dns.rdatatype.A)
            nursery.start_soon(ask, dns.rdatatype.AAAA)
        if not found:
            why = troubles[0] if troubles else "it has no address"
            raise Trouble(Cause.UNRESOLVED, f"nameservers {self._text} about {host}: {why}")
        return found, min(max(min(ttls), _SHORTEST), _LONGEST)


def _split(server: str) -> tuple[str, int]:
    if is_ip(server):
        return server, 53
    address, _, port = server.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not is_ip(address) or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"upstreams.nameservers: {server!r} is not an IP address, nor one with a port")
    return address, int(port)
