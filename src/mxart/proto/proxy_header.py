"""The PROXY protocol, versions 1 and 2: who is behind the load balancer (haproxy, doc/proxy-protocol.txt).

Only read where the listener says so, and then demanded (section 2 there): otherwise anybody could claim
any address.
"""

from __future__ import annotations

import re
import socket

from msgspec import Struct

from mxart.errors import MxartError

MAX_BYTES = 16384
"""The longest header taken. Version 1 has at most 107 bytes; in version 2 only its extras (TLVs) can be long."""

_SIGNATURE_1 = b"PROXY "
_SIGNATURE_2 = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_LINE = 107
_LOCAL, _PROXY = 0, 1
_FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}  # TCP over IPv4 and IPv6, bytes of an address
_PORT = re.compile(r"(0|[1-9][0-9]{0,4})\Z")


class BadProxyHeader(MxartError):
    """These bytes are not, and will not become, a PROXY header."""


class Endpoint(Struct, frozen=True):
    """IP address as text, without zone or brackets, and TCP port."""

    address: str
    port: int


class ProxyHeader(Struct, frozen=True):
    """What the load balancer says. Without endpoints (LOCAL, UNKNOWN) the connection's own addresses hold."""

    source: Endpoint | None
    destination: Endpoint | None
    consumed: int  # exactly how many bytes the header took


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the start of `data`; None while more bytes are needed.

    Raises BadProxyHeader as soon as no further bytes could make it right.
    """
    if _SIGNATURE_1.startswith(data[:6]):
        return _version_1(data)
    if _SIGNATURE_2.startswith(data[:12]):
        return _version_2(data)
    raise BadProxyHeader("no PROXY header, and this listener demands one")


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE)
    if end < 0:
        if len(data) >= _MAX_LINE:
            raise BadProxyHeader(f"the PROXY line has more than {_MAX_LINE} bytes")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(None, None, end + 2)  # section 2.1: whatever follows the word is ignored
    families = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}
    if len(words) != 6 or words[1] not in families:
        raise BadProxyHeader('a PROXY line is "PROXY TCP4|TCP6 source destination port port"')
    family = families[words[1]]
    source = Endpoint(_address(words[2], family), _port(words[4]))
    destination = Endpoint(_address(words[3], family), _port(words[5]))
    return ProxyHeader(source, destination, end + 2)


def _address(text: str, family: socket.AddressFamily) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except OSError:
        raise BadProxyHeader(f"{text!r} is not an address of the family that the PROXY line names") from None
    except (UnicodeError, ValueError):  # a NUL inside, or bytes beyond ASCII
        raise BadProxyHeader("the PROXY line holds bytes that no address has") from None


def _port(text: str) -> int:
    if _PORT.match(text) is None or int(text) > 65535:
        raise BadProxyHeader(f"{text!r} is not a port")
    return int(text)


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        if len(data) > 12:
            _command(data[12])
        return None
    command, family = _command(data[12]), data[13]
    length = int.from_bytes(data[14:16], "big")
    consumed = 16 + length
    if consumed > MAX_BYTES:
        raise BadProxyHeader(f"a PROXY header of {consumed} bytes; at most {MAX_BYTES} are taken")
    if len(data) < consumed:
        return None
    if command == _LOCAL:
        return ProxyHeader(None, None, consumed)
    if family not in _FAMILIES:
        # Datagrams and local sockets cannot have carried this: section 2.2 lets the receiver ignore them.
        return ProxyHeader(None, None, consumed)
    domain, size = _FAMILIES[family]
    if length < 2 * size + 4:
        raise BadProxyHeader("the PROXY header is too short for its addresses")
    block = data[16:consumed]
    ports = block[2 * size : 2 * size + 4]
    return ProxyHeader(
        Endpoint(socket.inet_ntop(domain, block[:size]), int.from_bytes(ports[:2], "big")),
        Endpoint(socket.inet_ntop(domain, block[size : 2 * size]), int.from_bytes(ports[2:], "big")),
        consumed,
    )


def _command(byte: int) -> int:
    if byte >> 4 != 2:
        raise BadProxyHeader(f"PROXY protocol version {byte >> 4}; 1 and 2 are known")
    if byte & 15 not in (_LOCAL, _PROXY):
        raise BadProxyHeader(f"PROXY command {byte & 15}; LOCAL and PROXY are known")
    return byte & 15
