"""Which addresses are ours, and what the kernel says of where a connection was bound for."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from kit.wire import tcp_pair
from mxart.server.addresses import OwnAddresses, original_destination, plain


@pytest.mark.parametrize(
    ("bound", "address", "port", "own"),
    [
        (("127.0.0.1", 80), "127.0.0.1", 80, True),
        (("127.0.0.1", 80), "127.0.0.1", 81, False),
        (("127.0.0.1", 80), "127.0.0.2", 80, False),
        (("0.0.0.0", 80), "127.0.0.2", 80, True),
        (("0.0.0.0", 80), "::1", 80, False),
        (("0.0.0.0", 80), "192.0.2.1", 80, False),
        (("::", 80), "127.0.0.2", 80, True),
        (("::", 80), "::1", 80, True),
        (("::", 80), "2001:db8::1", 80, False),
        (("::ffff:127.0.0.1", 80), "127.0.0.1", 80, True),
        (("127.0.0.1", 80), "::ffff:127.0.0.1", 80, True),
    ],
)
def test_a_listener_is_where_it_is_bound(bound: tuple[str, int], address: str, port: int, own: bool) -> None:
    ours = OwnAddresses([bound])
    assert ours.is_own(address, port) == own
    assert ours.has_port(80)
    assert not ours.has_port(81)


def test_an_address_of_this_machine_is_known_whatever_listens_there() -> None:
    for address in ("127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1"):  # translated, too
        assert OwnAddresses().is_here(address)
    assert not OwnAddresses().is_here("192.0.2.1")


async def test_a_connection_that_nobody_redirected_was_bound_for_us() -> None:
    server, client = tcp_pair()
    with server, client:
        assert original_destination(server) is None


class Redirected:
    """A connection that the kernel says was bound for elsewhere."""

    def __init__(self, family: int, local: str, answers: dict[tuple[int, int], bytes]) -> None:
        self.family = family
        self._local = local
        self._answers = answers

    def getsockname(self) -> tuple[str, int]:
        return self._local, 8443

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        try:
            return self._answers[level, option][:length]
        except KeyError:
            raise FileNotFoundError from None


V4 = struct.pack("!HH4s8x", socket.AF_INET, 443, socket.inet_aton("192.0.2.7"))
V6 = struct.pack("!HHI16sI", socket.AF_INET6, 443, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::7"), 0)


@pytest.mark.parametrize(
    ("sock", "expected"),
    [
        (Redirected(socket.AF_INET, "127.0.0.1", {(0, 80): V4}), ("192.0.2.7", 443)),
        (Redirected(socket.AF_INET6, "::ffff:127.0.0.1", {(0, 80): V4}), ("192.0.2.7", 443)),
        (Redirected(socket.AF_INET6, "::1", {(41, 80): V6}), ("2001:db8::7", 443)),
        # TPROXY: the connection's own name is where it was bound for.
        (Redirected(socket.AF_INET, "192.0.2.7", {}), ("192.0.2.7", 8443)),
        (Redirected(socket.AF_INET6, "2001:db8::7", {}), ("2001:db8::7", 8443)),
        (Redirected(socket.AF_INET6, "::ffff:192.0.2.7", {}), ("192.0.2.7", 8443)),
        (Redirected(socket.AF_INET, "127.0.0.1", {}), None),
        (Redirected(socket.AF_INET6, "fe80::1%lo", {}), None),  # the link's own, whatever its zone
    ],
)
def test_where_a_connection_was_bound_for(sock: Redirected, expected: tuple[str, int] | None) -> None:
    assert original_destination(sock) == expected  # type: ignore[arg-type]


async def test_a_connection_that_is_gone_was_bound_for_nowhere() -> None:
    sock = trio.socket.socket()
    sock.close()
    assert original_destination(sock) is None


def test_ipv4_in_ipv6_is_ipv4() -> None:
    assert plain("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain("::ffff:c000:201") == "::ffff:c000:201"
    assert plain("192.0.2.1") == "192.0.2.1"
