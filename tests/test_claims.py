"""Which names are claimed, and what a CA that is made now is permitted: enough, and no more."""

from __future__ import annotations

import ipaddress

import pytest

from mxart.claims import ca_scope, claimed_hosts, own_names
from mxart.config_file import decode

CONFIG = """
[[listener]]
address = "192.0.2.7:443"
tls = true
[[listener]]
address = "[::]:8443"
tls = true
[tls]
names = ["images.corp.test", "198.51.100.4", "10.0.0.5"]
ca_domains = ["team.test"]
[dns]
answer = ["10.0.0.5"]
names = ["*.wild.test", "a.team.test"]
[token_server]
hosts = ["auth.docker.io"]
[repository.gitlab]
format = "oci"
kind = "proxy"
upstream = "https://registry.gitlab.com"
hosts = ["registry.gitlab.com", "203.0.113.9"]
"""

PUBLIC = ("docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io")


def test_a_new_ca_is_permitted_what_is_claimed_and_the_public_registries() -> None:
    config = decode(CONFIG, file="x", environment={})
    assert claimed_hosts(config) == ("registry.gitlab.com", "203.0.113.9", "auth.docker.io", "images.corp.test")
    scope = ca_scope(config, "Box-7")
    assert scope.domains == (
        *PUBLIC,
        "registry.gitlab.com",  # and not gitlab.com, nor corp.test
        "images.corp.test",
        "wild.test",
        "team.test",
        "localhost",
        "box-7",
    )
    assert ipaddress.ip_network("192.0.2.7/32") in scope.networks
    assert ipaddress.ip_network("203.0.113.9/32") in scope.networks
    assert ipaddress.ip_network("198.51.100.4/32") in scope.networks
    assert ipaddress.ip_network("10.0.0.5/32") not in scope.networks  # within 10.0.0.0/8 already
    assert not any(network.prefixlen == 0 for network in scope.networks)


def test_without_a_configuration_it_is_the_public_registries_and_this_machine() -> None:
    scope = ca_scope(decode("", file="x", environment={}), "build.corp.test")
    assert scope.domains == (*PUBLIC, "localhost", "build.corp.test")
    assert [str(network) for network in scope.networks] == [
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ]


@pytest.mark.parametrize(
    ("hostname", "names"),
    [
        ("Build.Corp.Test", ("localhost", "build.corp.test")),
        ("vm-1", ("localhost", "vm-1")),
        ("web1", ("localhost", "web1")),
        ("dev", ("localhost",)),  # *.dev is other people's
        ("xn--p1ai", ("localhost",)),
        ("my_box.test", ("localhost",)),
        ("10.0.0.1", ("localhost",)),
        ("", ("localhost",)),
    ],
)
def test_a_machine_whose_name_could_be_a_top_level_domain_does_not_open_that(
    hostname: str, names: tuple[str, ...]
) -> None:
    assert own_names(hostname) == names
