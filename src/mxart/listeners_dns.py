"""The DNS server's sockets: UDP and TCP on one port, bound by the supervisor, kept across a reload.

On every address (`:53`) a datagram's own destination is asked for, so that the answer can leave from there.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket

from msgspec import Struct

from mxart.config import Dns, parse_address
from mxart.errors import ConfigError
from mxart.upstream.dial import is_local

log = logging.getLogger("mxart.dns")

_BACKLOG = 256
_TRIES = 16  # for one free port that is free for UDP and TCP both
_IP_PKTINFO = 8  # linux/in.h; the socket module has it since Python 3.12 only
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Sockets = tuple[socket.socket, ...]


class BoundDns(Struct, frozen=True):
    """The sockets of `[dns] listen`. `secret` is what all workers mark their own questions with."""

    address: str
    udp: Sockets
    tcp: Sockets
    secret: bytes

    @property
    def sockets(self) -> Sockets:
        return self.udp + self.tcp

    @property
    def url(self) -> str:
        """dns://host:port with the real port."""
        host, port = self.udp[0].getsockname()[:2]
        if host in ("::", "0.0.0.0"):  # noqa: S104  # compared, not bound
            host = "localhost"
        return f"dns://[{host}]:{port}" if ":" in host else f"dns://{host}:{port}"

    def close(self) -> None:
        """Close every socket of this process."""
        for sock in self.sockets:
            sock.close()


def bind_dns(dns: Dns | None, kept: BoundDns | None = None) -> BoundDns | None:
    """Bind what the configuration asks for, or take over `kept` if it has the same address.

    Raises ConfigError, naming the address, or a forwarder that is this server itself; nothing new stays bound then.
    """
    if dns is None:
        return None
    bound = kept if kept is not None and kept.address == dns.listen else _bind(dns.listen)
    try:
        _check_forwarders(dns, bound)
    except ConfigError:
        if bound is not kept:
            bound.close()
        raise
    if dns.forward and any(ipaddress.ip_network(network).prefixlen == 0 for network in dns.clients):
        log.warning("dns: clients has every address: strangers may ask the forwarders through us (an open resolver)")
    return bound


def _check_forwarders(dns: Dns, bound: BoundDns) -> None:
    own = [sock.getsockname()[:2] for sock in bound.udp]
    for index, text in enumerate(dns.forward):
        bare = text.count(":") > 1 and not text.startswith("[")
        host, port = (text, 53) if bare else parse_address(text, default_port=53)
        ip = ipaddress.ip_address(host)
        for address, own_port in own:
            listener = ipaddress.ip_address(address)
            if port == own_port and (listener == ip or (listener.is_unspecified and is_local(ip))):
                raise ConfigError(f"dns.forward[{index}]: {text} is this server itself; name one that knows the rest")


def _bind(address: str) -> BoundDns:
    host, port = parse_address(address)
    for attempt in range(_TRIES):
        try:
            udp, tcp = _both(host, port)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < _TRIES:
                continue
            hint = ""
            if error.errno == errno.EACCES:
                hint = (
                    "; ports below 1024 are for root, or for whom systemd gives"
                    " AmbientCapabilities=CAP_NET_BIND_SERVICE"
                )
            if error.errno == errno.EADDRINUSE:
                hint = "; another program listens there"
                if not host:
                    hint += ", perhaps on one address only: then name yours, as in 10.0.0.5:53"
            raise ConfigError(f"dns.listen: cannot listen on {address}: {error.strerror or error}{hint}") from None
        except UnicodeError:  # from looking up the name
            raise ConfigError(f"dns.listen: cannot listen on {address}: no host has such a name") from None
        else:
            return BoundDns(address, udp, tcp, os.urandom(16))
    raise AssertionError("the last attempt returns or raises")


def _both(host: str, port: int) -> tuple[Sockets, Sockets]:
    """UDP and TCP sockets of the same port. Raises OSError; nothing stays open then."""
    opened: list[socket.socket] = []
    udp: list[socket.socket] = []
    tcp: list[socket.socket] = []
    try:
        for family, name in _places(host):
            try:
                one = _open(family, socket.SOCK_DGRAM, name, port, opened)
            except OSError as error:
                if udp and error.errno in _NO_SUCH_FAMILY:
                    continue  # a name may have an address of a family that this machine does not use
                raise
            udp.append(one)
            port = one.getsockname()[1]  # the same for all
            tcp.append(_open(family, socket.SOCK_STREAM, name, port, opened))
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return tuple(udp), tuple(tcp)


def _places(host: str) -> list[tuple[int, str]]:
    if host:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        return list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))
    if socket.has_dualstack_ipv6():
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::", 0))
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise
        else:
            return [(socket.AF_INET6, "::")]
    return [(socket.AF_INET, "0.0.0.0")]  # noqa: S104  # the user asked for every address


def _open(family: int, kind: int, host: str, port: int, opened: list[socket.socket]) -> socket.socket:
    sock = socket.socket(family, kind)
    opened.append(sock)
    every = host in ("::", "0.0.0.0")  # noqa: S104  # compared
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    elif every:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if every else 1)
        if kind == socket.SOCK_DGRAM and every:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    where = socket.getaddrinfo(host, port, family, kind, flags=socket.AI_NUMERICHOST)[0][4]
    sock.bind(where)
    if kind == socket.SOCK_STREAM:
        sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock
