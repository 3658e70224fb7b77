"""What is said to the proxies on the way: CONNECT (RFC 9110 section 9.3.6), SOCKS5 (RFC 1928, 1929), nothing (l4).

A handshake reads exactly its own bytes and not one more: what follows belongs to whoever is behind the
proxy, and may be no TLS (a database that greets first, in a tunnel).
"""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote, urlsplit

import trio
from msgspec import Struct
from socksio import SOCKS5AuthMethod, SOCKS5AuthMethodsRequest, SOCKS5Command, SOCKS5CommandRequest, SOCKS5ReplyCode
from socksio import SOCKS5UsernamePasswordRequest as SOCKS5Login

from mxart.errors import ConfigError
from mxart.upstream.failure import Cause, Trouble
from mxart.upstream.url import is_ip

_PORTS = {"http": 80, "socks5": 1080}
_HEAD_LIMIT = 16384
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*")


class Proxy(Struct, frozen=True):
    """One station on the way to an upstream. `repr` and `str` hide the password."""

    scheme: Literal["http", "socks5", "l4"]
    host: str
    port: int
    username: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    __repr__ = __str__


def parse_proxies(text: str) -> tuple[Proxy, ...]:
    """`proxy` of the configuration: nothing, one, or several separated by commas or spaces, the nearest first.

    Raises ConfigError.
    """
    return tuple(_parse_proxy(part) for part in re.split(r"[,\s]+", text.strip()) if part)


def _parse_proxy(text: str) -> Proxy:
    wanted = "http://[user:password@]host:port, socks5://[user:password@]host:port or l4://host:port"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"proxy: {error}; write {wanted}") from None
    schemes: dict[str, Literal["http", "socks5", "l4"]] = {"http": "http", "socks5": "socks5", "l4": "l4"}
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"proxy: {parts.scheme}://{parts.hostname or ''} is not a proxy; write {wanted}")
    if port is None:
        port = _PORTS.get(scheme)
    if port is None:
        raise ConfigError(f"proxy: {scheme}://{parts.hostname} lacks its port; write {wanted}")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme == "l4" and (username or password):
        raise ConfigError("proxy: an l4 proxy takes no credentials; it never reads a byte")
    return Proxy(scheme, parts.hostname, port, username, password)


class Ways:
    """The proxies on the way to each host: what `proxy_for` says of it, else one chain for all. Pure.

    The exact name counts first, then the longest "*." pattern above it; "" is direct.  Raises ConfigError.
    """

    def __init__(self, by_host: Mapping[str, str], otherwise: str) -> None:
        self._by_host = {host.lower(): parse_proxies(chain) for host, chain in by_host.items()}
        self._otherwise = parse_proxies(otherwise)

    def instead(self, otherwise: str | None) -> Ways:
        """With another chain for the hosts that are not named: a repository's `proxy`. None changes nothing."""
        if otherwise is None:
            return self
        made = Ways({}, otherwise)
        made._by_host = self._by_host
        return made

    def to(self, host: str) -> tuple[Proxy, ...]:
        """The chain to a host's name or address, the nearest proxy first; empty: direct."""
        if not self._by_host:
            return self._otherwise
        rest = host.lower().rstrip(".")
        found = self._by_host.get(rest)
        while found is None and "." in rest:
            rest = rest.partition(".")[2]
            found = self._by_host.get(f"*.{rest}")
        return self._otherwise if found is None else found

    def name(self, host: str) -> bool:
        """Whether something is said of this very host, and not of all that are below a domain."""
        return host.lower().rstrip(".") in self._by_host


async def greet(proxy: Proxy, sock: trio.socket.SocketType, host: str, port: int) -> None:
    """Have `proxy`, at the other end of `sock`, connect to host and port. Raises Trouble, OSError."""
    match proxy.scheme:
        case "http":
            await _connect(proxy, sock, host, port)
        case "socks5":
            await _socks5(proxy, sock, host, port)
        case "l4":
            pass  # it knows where it leads


async def _send(sock: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await sock.send(data) :]


async def _connect(proxy: Proxy, sock: trio.socket.SocketType, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username or proxy.password:
        secret = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {secret}")
    await _send(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    while True:
        head = await _read_head(proxy, sock)
        match = _STATUS_LINE.match(head)
        if match is None:
            raise Trouble(Cause.PROXY, f"proxy {proxy} does not answer CONNECT as an HTTP proxy does")
        status = int(match[1])
        if 200 <= status < 300:
            return
        if status >= 200:
            hint = " (it wants other credentials)" if status == 407 else ""
            raise Trouble(Cause.PROXY, f"proxy {proxy} refused to connect to {target}: {status}{hint}")


async def _read_head(proxy: Proxy, sock: trio.socket.SocketType) -> bytes:
    head = b""
    while True:
        # Look first, then take only what is ours.
        seen = await sock.recv(4096, socket.MSG_PEEK)
        if not seen:
            raise Trouble(Cause.PROXY, f"proxy {proxy} closed the connection")
        end = (head + seen).find(b"\r\n\r\n")
        take = len(seen) if end < 0 else end + 4 - len(head)
        head += await _exactly(proxy, sock, take)
        if end >= 0:
            return head
        if len(head) > _HEAD_LIMIT:
            raise Trouble(Cause.PROXY, f"proxy {proxy} answers without an end")


async def _exactly(proxy: Proxy, sock: trio.socket.SocketType, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await sock.recv(count - len(data))
        if not more:
            raise Trouble(Cause.PROXY, f"proxy {proxy} closed the connection")
        data += more
    return data


async def _socks5(proxy: Proxy, sock: trio.socket.SocketType, host: str, port: int) -> None:
    methods = [SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username or proxy.password:
        methods.append(SOCKS5AuthMethod.USERNAME_PASSWORD)
    await _send(sock, SOCKS5AuthMethodsRequest(methods).dumps())
    version, method = await _exactly(proxy, sock, 2)
    if version != 5:
        raise Trouble(Cause.PROXY, f"proxy {proxy} does not speak SOCKS5")
    if bytes([method]) == SOCKS5AuthMethod.USERNAME_PASSWORD and len(methods) > 1:
        login = SOCKS5Login(proxy.username.encode(), proxy.password.encode())
        await _send(sock, login.dumps())
        _, refused = await _exactly(proxy, sock, 2)
        if refused:
            raise Trouble(Cause.PROXY, f"proxy {proxy} refuses the credentials")
    elif method != 0:
        raise Trouble(Cause.PROXY, f"proxy {proxy} wants other credentials")
    # A name goes as a name: the proxy's resolver answers for it, not ours (RFC 1928 section 5).
    address = host if is_ip(host) else host.encode("ascii")
    await _send(sock, SOCKS5CommandRequest.from_address(SOCKS5Command.CONNECT, (address, port)).dumps())
    _, code, _, kind = await _exactly(proxy, sock, 4)
    if code:
        names = {reply.value: reply.name for reply in SOCKS5ReplyCode}
        why = names.get(bytes([code]), f"code {code}").replace("_", " ").lower()
        raise Trouble(Cause.PROXY, f"proxy {proxy} could not connect to {host}:{port}: {why}")
    length = {1: 4, 4: 16}.get(kind)
    if length is None:
        length = (await _exactly(proxy, sock, 1))[0]
    await _exactly(proxy, sock, length + 2)
