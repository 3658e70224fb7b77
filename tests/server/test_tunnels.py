"""Which names are passed on as raw TCP: those that are listed, and no others."""

from __future__ import annotations

import pytest

from mxart.config import Tunnel
from mxart.server.tunnels import Target, TunnelTable, target_of

TABLE = TunnelTable(
    [
        Tunnel(sni=("*.example.com", "example.org")),
        Tunnel(sni=("api.example.com",), to="10.0.0.9"),
        Tunnel(sni=("*.deep.example.com",), to="[::1]:8443"),
        Tunnel(listen=":5432", to="db:5432"),
    ]
)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("www.example.com", Target("www.example.com", 443, explicit=False)),
        ("a.b.example.com", Target("a.b.example.com", 443, explicit=False)),
        ("api.example.com", Target("10.0.0.9", 443, explicit=True)),
        ("x.deep.example.com", Target("::1", 8443, explicit=True)),
        ("example.org", Target("example.org", 443, explicit=False)),
        ("example.com", None),
        ("www.example.org", None),
        ("evil-example.com", None),
        ("example.com.evil.test", None),
        ("", None),
    ],
)
def test_a_name_leads_where_the_most_specific_rule_says_or_nowhere(name: str, target: Target | None) -> None:
    assert (TABLE.exact(name) or TABLE.wildcard(name)) == target


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("10.1.2.3", 22, True),
        ("10.1.2.3", 23, False),
        ("192.0.2.7", 1, True),
        ("192.0.2.8", 1, False),
        ("::ffff:10.1.2.3", 22, True),
        ("fd00::5", 22, True),
        ("fd00:1::5", 22, False),
        ("fe80::1%eth0", 22, False),
        ("registry.example", 22, False),
    ],
)
def test_an_address_is_reached_in_a_network_that_is_listed_and_on_its_ports(
    address: str, port: int, allowed: bool
) -> None:
    table = TunnelTable(
        [Tunnel(networks=("10.0.0.0/8", "fd00::/64"), ports=(22, 443)), Tunnel(networks=("192.0.2.7/32",))]
    )
    found = table.address(address, port)
    assert found == (Target(address.removeprefix("::ffff:"), port, explicit=False) if allowed else None)


def test_a_target_is_shown_as_it_would_be_dialled() -> None:
    assert str(target_of("db:5432")) == "db:5432"
    assert str(target_of("[::1]:1")) == "[::1]:1"
