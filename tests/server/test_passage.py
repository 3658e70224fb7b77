"""What becomes of a connection, by each way in: a table of who asks for what, and what he gets."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mxart.config import Tunnel
from mxart.proto.client_hello import ClientHello
from mxart.server.passage import (
    Door,
    Pass,
    Passage,
    Refuse,
    Serve,
    TellPlain,
    Terminate,
    inside,
    split_authority,
)
from mxart.server.tunnels import Target, TunnelTable


class Ours:
    """We listen on 192.0.2.1:8080, and nowhere else."""

    def is_own(self, address: str, port: int) -> bool:
        return (address, port) == ("192.0.2.1", 8080)

    def is_here(self, address: str) -> bool:
        return address in ("192.0.2.1", "10.0.0.1")

    def has_port(self, port: int) -> bool:
        return port == 8080


PASSAGE = Passage(
    TunnelTable(
        [
            Tunnel(sni=("*.example.com",)),
            Tunnel(sni=("db.example.com",), to="10.0.0.9:8443"),
            Tunnel(sni=("exact.example.net",)),
            Tunnel(networks=("10.0.0.0/8", "fd00::/16"), ports=(22, 443)),
        ]
    ),
    ("docker.io", "served.example.com", "exact.example.net", "mxart.test", "203.0.113.5"),
    Ours(),
)
TLS, PLAIN = Door(tls=True, plain=False), Door(tls=False, plain=True)
BOUND = ("10.9.9.9", 443)
CLOSED = ("192.0.2.99", 443)
HERE = Door(tls=True, plain=True)
INSIDE = inside(HERE, "docker.io:443")


def hello(name: str | None) -> ClientHello:
    return ClientHello(name, (), (0x0304,), False, 200, b"r" * 32)


def passed(name: str, *, host: str = "", port: int = 443, explicit: bool = False) -> Pass:
    return Pass(Target(host or name, port, explicit=explicit), "sni", name)


def on(name: str = "") -> Pass:
    return Pass(Target("10.9.9.9", 443, explicit=False), "address", name)


@pytest.mark.parametrize(
    ("name", "tls", "plain", "redirected", "closed"),
    [
        ("docker.io", Terminate("docker.io"), TellPlain(), Terminate("docker.io"), Terminate("docker.io")),
        ("www.example.com", *[passed("www.example.com")] * 4),
        ("db.example.com", *[passed("db.example.com", host="10.0.0.9", port=8443, explicit=True)] * 4),
        # Served by its whole name, which is more than a pattern; listed by its whole name, which is more than served.
        ("served.example.com", Terminate("served.example.com"), TellPlain(), *[Terminate("served.example.com")] * 2),
        ("exact.example.net", *[passed("exact.example.net")] * 4),
        # Nobody's. At our own listener the certificates have the last word.
        ("evil.test", Terminate("evil.test"), TellPlain(), on("evil.test"), Refuse),
        (None, Terminate(None), TellPlain(), on(), Refuse),
    ],
)
def test_a_hello_is_judged_by_its_name_and_where_it_was_bound_for(
    name: str | None, tls: object, plain: object, redirected: object, closed: object
) -> None:
    for door, expected in (
        (TLS, tls),
        (PLAIN, plain),
        (replace(HERE, original=BOUND), redirected),
        (replace(HERE, original=CLOSED), closed),
    ):
        found = PASSAGE.hello(hello(name), door)
        assert found == expected or (expected is Refuse and isinstance(found, Refuse)), (door, found)


def test_what_cannot_be_read_goes_on_to_where_it_was_bound_for_or_nowhere() -> None:
    assert PASSAGE.fallback(replace(HERE, original=BOUND), "why") == on()
    refusal = PASSAGE.fallback(replace(HERE, original=("10.9.9.9", 80)), "why")
    assert isinstance(refusal, Refuse)
    assert "10.9.9.9:80" in refusal.reason
    assert PASSAGE.fallback(HERE, "why") == Refuse("why")


@pytest.mark.parametrize(
    ("host", "bound", "expected"),
    [
        ("docker.io", BOUND, Serve()),
        ("docker.io", CLOSED, Serve()),
        ("evil.test", BOUND, on("evil.test")),
        ("", BOUND, on()),
        ("evil.test", CLOSED, Refuse),
        ("", CLOSED, Refuse),
    ],
)
def test_plain_http_that_was_redirected_is_judged_by_its_host(
    host: str, bound: tuple[str, int], expected: object
) -> None:
    found = PASSAGE.host(host, replace(HERE, original=bound))
    assert found == expected or (expected is Refuse and isinstance(found, Refuse))


def connected(host: str, port: int = 443, *, name: str = "", explicit: bool = False) -> Pass:
    return Pass(Target(host, port, explicit=explicit), "connect", name or host)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("docker.io:443", Serve()),
        ("DOCKER.io.:443", Serve()),
        ("docker.io:80", Serve()),
        ("docker.io:8080", Serve()),  # a port of ours
        ("docker.io:22", 403),
        ("mxart.test:8080", Serve()),
        ("192.0.2.1:8080", Serve()),
        ("192.0.2.1:8081", 403),
        ("203.0.113.5:443", Serve()),
        ("served.example.com:443", Serve()),
        ("exact.example.net:443", connected("exact.example.net")),
        ("www.example.com:443", connected("www.example.com")),
        ("www.example.com:80", 403),
        ("www.example.com:8443", 403),
        ("db.example.com:443", connected("10.0.0.9", 8443, name="db.example.com", explicit=True)),
        ("db.example.com:8443", connected("10.0.0.9", 8443, name="db.example.com", explicit=True)),
        ("db.example.com:22", 403),
        ("10.1.1.1:22", connected("10.1.1.1", 22)),
        ("10.1.1.1:25", 403),
        ("10.0.0.1:22", 403),  # in a network that is listed, but it is ours
        ("[fd00::1]:443", connected("fd00::1")),
        ("[::ffff:10.1.1.1]:443", connected("10.1.1.1")),
        ("[fd01::1]:443", 403),
        ("127.0.0.1:22", 403),
        ("evil.test:443", 403),
        ("example.com:443", 403),
        ("evildocker.io:443", 403),
        ("docker.io", 400),
        ("docker.io:", 400),
        ("docker.io:0", 400),
        ("docker.io:99999", 400),
        (":443", 400),
        ("", 400),
        ("0x7f.1:443", 400),
        ("127.1:443", 400),
        ("2130706433:443", 400),
        ("user@docker.io:443", 400),
        ("docker.io:443:443", 400),
        ("fd00::1:443", 400),
        ("[docker.io]:443", 400),
        ("[fe80::1%25eth0]:443", 400),
        ("d\u00f6cker.io:443", 400),
        ("x" * 300 + ".test:443", 400),
    ],
)
def test_connect_reaches_what_is_listed_and_nothing_else(authority: str, expected: object) -> None:
    found = PASSAGE.connect(authority)
    if isinstance(found, Refuse):
        assert found.status == expected, found
    else:
        assert found == expected


def test_a_refused_connect_says_what_is_allowed() -> None:
    refusal = PASSAGE.connect("evil.test:443")
    assert isinstance(refusal, Refuse)
    assert "evil.test:443" in refusal.reason
    for word in ("docker.io", "*.example.com", "10.0.0.0/8"):
        assert word in refusal.allowed
        assert word not in refusal.reason


def test_behind_connect_the_name_in_tls_decides_and_the_connects_own_where_there_is_none() -> None:
    assert Door(tls=True, plain=True, through="docker.io") == INSIDE
    assert PASSAGE.hello(hello(None), INSIDE) == Terminate("docker.io")
    assert PASSAGE.hello(hello("mxart.test"), INSIDE) == Terminate("mxart.test")
    assert PASSAGE.hello(hello("www.example.com"), INSIDE) == passed("www.example.com")
    assert PASSAGE.hello(hello("evil.test"), INSIDE) == Terminate("evil.test"), "the certificates refuse it"
    assert PASSAGE.hello(hello(None), inside(HERE, "192.0.2.1:8080")) == Terminate(None)


@pytest.mark.parametrize(
    ("authority", "tls", "expected"),
    [
        ("docker.io", False, None),
        ("docker.io:80", False, None),
        ("docker.io", True, None),
        ("docker.io:8080", False, None),
        ("docker.io:81", False, 403),
        ("192.0.2.1:8080", False, None),
        ("192.0.2.1", False, 403),
        ("www.example.com", False, 403),
        ("evil.test", False, 403),
        ("127.1", False, 400),
        ("evil.test:x", False, 400),
    ],
)
def test_a_url_is_served_for_our_names_only(authority: str, tls: bool, expected: int | None) -> None:
    refusal = PASSAGE.absolute(authority, tls=tls)
    assert (None if refusal is None else refusal.status) == expected


def test_a_url_of_a_name_that_is_passed_on_is_told_to_connect() -> None:
    refusal = PASSAGE.absolute("www.example.com", tls=False)
    assert refusal is not None
    assert "CONNECT" in refusal.reason


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("A.test:1", None, ("a.test", 1)),
        ("a.test", 80, ("a.test", 80)),
        ("a.test:", 80, ("a.test", 80)),
        ("[2001:DB8::1]", 80, ("2001:db8::1", 80)),
        ("[2001:db8::1]:8", 80, ("2001:db8::1", 8)),
        ("192.0.2.1", 80, ("192.0.2.1", 80)),
        ("", 80, None),
        ("a b", 80, None),
    ],
)
def test_an_authority_is_a_host_and_a_port(text: str, default: int | None, expected: tuple[str, int] | None) -> None:
    assert split_authority(text, default) == expected
