"""Ports: bound once, kept over a reload, named to the user as they are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mxart.config import Config, Listener, Tunnel
from mxart.errors import ConfigError
from mxart.listeners import Bound, Role, bind_all


def config(*listeners: Listener, tunnels: tuple[Tunnel, ...] = ()) -> Config:
    return Config(data=Path("unused"), workers=1, listeners=listeners, tunnels=tunnels)


def close(*bounds: Bound) -> None:
    for bound in bounds:
        for sock in bound.sockets:
            sock.close()


def test_every_address_has_its_role_and_its_real_port() -> None:
    bound = bind_all(
        config(
            Listener(address="127.0.0.1:0", tls=True, proxy_protocol=True),
            Listener(address="[::1]:0"),
            Listener(address=":0"),
            tunnels=(Tunnel(listen="127.0.0.1:0", to="db:5432"), Tunnel(sni=("a.test",))),
        )
    )
    assert [one.role for one in bound] == [
        Role(tls=True, proxy_protocol=True),
        Role(),
        Role(),
        Role(tunnel_to="db:5432"),
    ]
    for one, start in zip(bound, ("https://127.0.0.1:", "http://[::1]:", "http://localhost:", "tcp://"), strict=True):
        assert one.url.startswith(start)
        assert int(one.url.rpartition(":")[2]) > 0
        assert not any(sock.getblocking() for sock in one.sockets)
    close(*bound)


def test_a_transparent_listener_may_take_what_is_for_others(caplog: pytest.LogCaptureFixture) -> None:
    listeners = [Listener(address=address, transparent=True) for address in ("127.0.0.1:0", ":0", "[::1]:0")]
    bounds = bind_all(config(*listeners))
    assert all(bound.role == Role(transparent=True) for bound in bounds)
    flags = [
        sock.getsockopt(socket.IPPROTO_IPV6, 75) if sock.family == socket.AF_INET6 else sock.getsockopt(0, 19)
        for bound in bounds
        for sock in bound.sockets
    ]
    if os.geteuid() == 0:
        assert flags == [1, 1, 1]
    else:
        assert "not TPROXY" in caplog.text, "the rest works without the right"
    close(*bounds)


def test_every_address_means_both_families() -> None:
    (bound,) = bind_all(config(Listener(address=":0")))
    port = bound.sockets[0].getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), timeout=5).close()
    close(bound)


def test_a_name_is_bound_on_each_of_its_addresses_with_one_port() -> None:
    (bound,) = bind_all(config(Listener(address="localhost:0")))
    assert len({sock.getsockname()[1] for sock in bound.sockets}) == 1
    close(bound)


def test_a_reload_keeps_the_sockets_that_it_still_wants_and_their_order() -> None:
    plain, tls = Listener(address="127.0.0.1:0"), Listener(address="127.0.0.1:0", tls=True)
    first = bind_all(config(plain, tls))
    second = bind_all(config(plain, Listener(address="[::1]:0"), tls), first)
    assert second[0].sockets is first[0].sockets
    assert second[2].sockets is first[1].sockets, "port 0 twice: each keeps its own"
    third = bind_all(config(tls), second[:1])
    assert third[0].sockets is first[0].sockets
    assert third[0].role.tls, "the role is the new configuration's"
    close(*second)


def test_a_port_that_cannot_be_had_is_named_and_nothing_new_stays_bound() -> None:
    kept = bind_all(config(Listener(address="127.0.0.1:0")))
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        wrong = config(
            Listener(address="127.0.0.1:0"),
            Listener(address=f"127.0.0.1:{free}"),
            Listener(address=f"127.0.0.1:{taken.getsockname()[1]}"),
        )
        with pytest.raises(ConfigError, match="another program listens there"):
            bind_all(wrong, kept)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free), timeout=5)
    socket.create_connection(kept[0].sockets[0].getsockname(), timeout=5).close()
    close(*kept)


@pytest.mark.parametrize("address", [f"{'a' * 80}:80", "a..b:80"])
def test_an_address_that_nobody_has_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        bind_all(config(Listener(address=address)))
