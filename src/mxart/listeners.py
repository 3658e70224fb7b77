"""Listening sockets: bound once by the supervisor, shared by its workers, kept across a reload."""

from __future__ import annotations

import errno
import logging
import socket
from collections import defaultdict

from msgspec import Struct

from mxart.config import Config, parse_address
from mxart.errors import ConfigError

log = logging.getLogger(__name__)

_BACKLOG = 4096
_IP_TRANSPARENT = 19  # linux/in.h
_IPV6_TRANSPARENT = 75  # linux/in6.h


class Role(Struct, frozen=True):
    """What an accepted connection is for. `tunnel_to` set: raw TCP to there, nothing else."""

    tls: bool = False
    proxy_protocol: bool = False
    tunnel_to: str = ""
    transparent: bool = False  # connections may have been bound for elsewhere


class Bound(Struct, frozen=True):
    """A configured address, the sockets that accept on it, and its role. `address` as configured."""

    address: str
    role: Role
    sockets: tuple[socket.socket, ...]

    @property
    def url(self) -> str:
        """Where a client finds it: the real port, and a name that works from this machine."""
        host, port = self.sockets[0].getsockname()[:2]
        if host in ("::", "0.0.0.0"):  # noqa: S104  # compared, not bound
            host = "localhost"
        elif ":" in host:
            host = f"[{host}]"
        scheme = "tcp" if self.role.tunnel_to else "https" if self.role.tls else "http"
        return f"{scheme}://{host}:{port}"


def wanted(config: Config) -> list[tuple[str, Role]]:
    """Every address of a configuration, with its role."""
    roles = [
        (item.address, Role(tls=item.tls, proxy_protocol=item.proxy_protocol, transparent=item.transparent))
        for item in config.listeners
    ]
    roles += [(item.listen, Role(tunnel_to=item.to)) for item in config.tunnels if item.listen]
    return roles


def bind_all(config: Config, kept: tuple[Bound, ...] = ()) -> tuple[Bound, ...]:
    """Bind what a configuration asks for, taking over sockets of `kept` that have the same address.

    Raises ConfigError naming the address; nothing new stays bound then.
    """
    have: defaultdict[str, list[tuple[socket.socket, ...]]] = defaultdict(list)
    for bound in kept:
        have[bound.address].append(bound.sockets)  # port 0 may be asked for more than once
    fresh: list[socket.socket] = []
    found: list[Bound] = []
    try:
        for address, role in wanted(config):
            if have[address]:
                sockets = have[address].pop(0)
            else:
                sockets = tuple(_bind(address))
                fresh.extend(sockets)
            if role.transparent:
                _allow_tproxy(address, sockets)
            found.append(Bound(address, role, sockets))
    except ConfigError:
        for sock in fresh:
            sock.close()
        raise
    return tuple(found)


def _allow_tproxy(address: str, sockets: tuple[socket.socket, ...]) -> None:
    """Let sockets accept connections that are not for an address of this machine (ip(7), IP_TRANSPARENT).

    Only TPROXY needs that, REDIRECT does not: without the right to it the rest works.
    """
    try:
        for sock in sockets:
            if sock.family == socket.AF_INET6:  # for the IPv4 connections of a dual-stack socket, too
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except PermissionError:
        log.warning("%s: without CAP_NET_ADMIN a firewall can REDIRECT to here, but not TPROXY", address)


def _bind(address: str) -> list[socket.socket]:
    host, port = parse_address(address)
    try:
        if not host:
            return [_any(port)]
        bound: list[socket.socket] = []
        # A name may be listed twice, in /etc/hosts for instance.
        found = dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
        for family, _, _, _, where in found:
            if bound and port == 0:  # the same free port on every address of the name
                where = (where[0], bound[0].getsockname()[1], *where[2:])  # noqa: PLW2901  # the same address, completed
            try:
                bound.append(_listen(family, where))
            except OSError as error:
                if bound and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue
                for sock in bound:
                    sock.close()
                raise
    except OSError as error:
        hint = "; ports below 1024 need the right to bind them" if error.errno == errno.EACCES else ""
        hint = "; another program listens there" if error.errno == errno.EADDRINUSE else hint
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}{hint}") from None
    except UnicodeError:  # from looking up the name
        raise ConfigError(f"cannot listen on {address}: no host has such a name") from None
    return bound


def _any(port: int) -> socket.socket:
    """Every address: one socket for IPv6 and IPv4 together, or IPv4 alone where the machine has no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return _listen(socket.AF_INET6, ("::", port), dual=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _listen(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104  # the user asked for every address


def _listen(family: int, where: tuple[object, ...], *, dual: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
