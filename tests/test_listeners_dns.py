"""The DNS server's sockets: UDP and TCP together, kept over a reload, never those of a forwarder."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from mxart.config import Dns
from mxart.errors import ConfigError
from mxart.listeners_dns import bind_dns


def table(listen: str, *forward: str) -> Dns:
    return Dns(listen=listen, answer=("10.0.0.5",), forward=forward)


def test_without_the_table_nothing_is_bound() -> None:
    assert bind_dns(None) is None


@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("127.0.0.1:0", "dns://127.0.0.1:"),
        ("[::1]:0", "dns://[::1]:"),
        (":0", "dns://localhost:"),
        ("localhost:0", "dns://"),
    ],
)
def test_udp_and_tcp_share_a_port(listen: str, shown: str) -> None:
    bound = bind_dns(table(listen))
    assert bound is not None
    assert {sock.type for sock in bound.udp} == {socket.SOCK_DGRAM}
    assert {sock.type for sock in bound.tcp} == {socket.SOCK_STREAM}
    ports = {sock.getsockname()[1] for sock in bound.sockets}
    assert len(ports) == 1
    assert bound.url.startswith(shown)
    assert bound.url.endswith(f":{ports.pop()}")
    bound.close()


def test_a_reload_keeps_the_sockets_of_the_same_address() -> None:
    first = bind_dns(table("127.0.0.1:0"))
    again = bind_dns(table("127.0.0.1:0"), first)
    assert again is first
    moved = bind_dns(table("127.0.0.2:0"), first)
    assert moved is not None
    assert moved is not first
    for bound in (first, moved):
        assert bound is not None
        bound.close()


def test_a_port_that_is_taken_by_either_protocol_is_told_and_nothing_stays_bound() -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*another program"):
                bind_dns(table(f"127.0.0.1:{port}"))
        bound = bind_dns(table(f"127.0.0.1:{port}"))
        assert bound is not None
        bound.close()


def test_a_forwarder_that_is_this_server_is_refused() -> None:
    bound = bind_dns(table("127.0.0.1:0"))
    assert bound is not None
    port = bound.udp[0].getsockname()[1]
    with pytest.raises(ConfigError, match=r"dns.forward\[1\]: 127.0.0.1:\d+ is this server itself"):
        bind_dns(table("127.0.0.1:0", "9.9.9.9", f"127.0.0.1:{port}"), bound)
    assert bind_dns(table("127.0.0.1:0", f"127.0.0.2:{port}", "127.0.0.1"), bound) is bound, "these are others"
    bound.close()
    everywhere = bind_dns(table(":0"))
    assert everywhere is not None
    port = everywhere.udp[0].getsockname()[1]
    for ours in (f"127.0.0.9:{port}", f"[::1]:{port}"):
        with pytest.raises(ConfigError, match="this server itself"):
            bind_dns(table(":0", ours), everywhere)
    assert bind_dns(table(":0", f"192.0.2.1:{port}"), everywhere) is everywhere
    everywhere.close()


def test_a_host_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:53"):
        bind_dns(table("192.0.2.1:53"))


def test_a_resolver_that_is_open_to_everybody_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for clients, forward, told in (
        (("10.0.0.0/8",), ("9.9.9.9",), False),
        (("::/0",), (), False),
        (("10.0.0.0/8", "0.0.0.0/0"), ("9.9.9.9",), True),
    ):
        caplog.clear()
        bound = bind_dns(Dns(listen="127.0.0.1:0", answer=("10.0.0.5",), forward=forward, clients=clients))
        assert bound is not None
        bound.close()
        assert ("open resolver" in caplog.text) == told


def test_who_lacks_the_right_to_the_port_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_self: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(ConfigError, match=r"Permission denied; .*CAP_NET_BIND_SERVICE"):
        bind_dns(table("127.0.0.1:53"))
