"""What a configuration says to clients: the server's URL, and which registries it stands for."""

from __future__ import annotations

import pytest

from kit.settings import configured
from mxart.setup.facts import HUB, Registry, default_url, server
from mxart.setup.plan import SetupError

_HUB = """
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
"""
_QUAY = """
[repository.quay]
format = "oci"
kind = "proxy"
upstream = "https://quay.io"
path = "/quay"
"""
_NAMES = 'hosts = ["docker.io", "registry-1.docker.io", "index.docker.io"]\n'
_OWN = 'hosts = ["docker.io", "registry-1.docker.io", "index.docker.io", "hub.test"]\n'


@pytest.mark.parametrize(
    ("listeners", "url"),
    [
        ('[[listener]]\naddress = ":443"\ntls = true', "https://box"),
        (
            '[[listener]]\naddress = ":8443"\ntls = true\n[tls]\nnames = ["10.0.0.5", "images.test"]',
            "https://images.test:8443",
        ),
        ('[[listener]]\naddress = "0.0.0.0:80"', "http://box"),
        ('[[listener]]\naddress = "10.0.0.5:8080"', "http://10.0.0.5:8080"),
        ('[[listener]]\naddress = "[fd00::5]:8080"', "http://[fd00::5]:8080"),
        ('[[listener]]\naddress = "127.0.0.1:80"\n[[listener]]\naddress = ":8443"\ntls = true', "https://box:8443"),
        ('[[listener]]\naddress = ":80"\nproxy_protocol = true\n[[listener]]\naddress = ":81"', "http://box:81"),
        ('[[listener]]\naddress = ":80"\ntransparent = true\n[[listener]]\naddress = ":81"', "http://box:81"),
    ],
)
def test_the_first_listener_that_others_can_reach(listeners: str, url: str) -> None:
    assert default_url(configured(listeners), "Box") == url


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", ":0"])
def test_where_nobody_else_can_reach_us_the_user_is_asked(address: str) -> None:
    with pytest.raises(SetupError, match=r"--url http://HOST:PORT .*--url http://(127|localhost|\[::1)"):
        default_url(configured(f'[[listener]]\naddress = "{address}"'), "box")


@pytest.mark.parametrize(
    "url",
    [
        "images.test",
        "ftp://a",
        "https://a/b",
        "https://a?x",
        "https://u:p@a",
        "http://a:x",
        "http://a:0",
        "http://a:65536",
        "http://[::1",
        'http://a"b',
        "http://a b",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="write http://host:port or https://host:port"):
        server(configured(""), url)


def test_the_default_configuration_stands_for_the_public_registries() -> None:
    found = server(configured(""), "https://images.test:443/")
    assert found.url == "https://images.test"
    assert [registry.host for registry in found.registries] == [
        HUB, "gcr.io", "ghcr.io", "k8s.gcr.io", "quay.io", "registry.k8s.io"
    ]  # fmt: skip
    assert all(registry.prefix == registry.host and registry.by_namespace for registry in found.registries)
    assert found.mirror == ""  # the root is a local repository's


def test_a_proxy_without_hosts_stands_for_its_upstream_by_path() -> None:
    (registry,) = server(configured(_QUAY), "http://images.test").registries
    assert registry == Registry("quay.io", "quay", "quay", by_namespace=False)


def test_a_name_of_our_own_is_a_mirror_of_docker_hub() -> None:
    config = configured(_HUB + _OWN + 'path = "/docker.io"' + _QUAY)
    found = server(config, "https://images.test:8443")
    assert found.mirror == "https://hub.test:8443"
    assert [registry.host for registry in found.registries] == [HUB, "quay.io"]


def test_by_a_name_that_is_claimed_only_its_repository_is_reached() -> None:
    found = server(configured(_HUB + _OWN + _QUAY), "https://hub.test")
    assert found.mirror == "https://hub.test"
    assert found.registries == (
        Registry(HUB, "hub", "", by_namespace=True),
        Registry("quay.io", "quay", None, by_namespace=False),
    )


def test_a_group_at_the_root_is_a_mirror_if_docker_hub_is_in_it() -> None:
    groups = '[repository.all]\nformat = "oci"\nkind = "group"\nmembers = ["inner"]\npath = "/"\n'
    groups += '[repository.inner]\nformat = "oci"\nkind = "group"\nmembers = ["hub"]\n'
    config = configured(_HUB + _NAMES + groups)
    assert server(config, "http://images.test:8080").mirror == "http://images.test:8080"
    assert server(configured(_HUB + _NAMES + _QUAY), "http://images.test:8080").mirror == ""
