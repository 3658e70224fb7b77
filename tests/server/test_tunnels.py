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
        (None, None),
    ],
)
def test_a_name_leads_where_the_most_specific_rule_says_or_nowhere(name: str | None, target: Target | None) -> None:
    assert TABLE.find(name) == target


def test_a_target_is_shown_as_it_would_be_dialled() -> None:
    assert str(target_of("db:5432")) == "db:5432"
    assert str(target_of("[::1]:1")) == "[::1]:1"
