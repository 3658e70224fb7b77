"""Scopes of tokens: names as clients see them, and no more granted than was asked for and is permitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.access import Site
from kit.wire import PEER
from mxart.access.base import ACTIONS, Action
from mxart.access.scopes import Scope
from mxart.message import Headers, Request
from mxart.server.names import actions_of, words_granted

CONFIG = """
[token_server]
hosts = ["auth.docker.io"]
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["docker.io"]
path = "/docker.io"
[repository.oci]
format = "oci"
kind = "local"
path = "/"
[repository.all]
format = "oci"
kind = "group"
members = ["oci", "hub"]
path = "/all"
hosts = ["all.test"]
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, CONFIG)


def request(host: str, query: str = "") -> Request:
    return Request("GET", f"/-/token?{query}", host, Headers(), PEER)


@pytest.mark.parametrize(
    ("host", "query", "name", "place"),
    [
        ("localhost:8080", "", "team/app", ("oci", "team/app")),
        ("localhost:8080", "", "docker.io/alpine", ("hub", "library/alpine")),
        ("localhost:8080", "", "all/team/app", ("all", "team/app")),
        ("localhost:8080", "ns=docker.io", "alpine", ("hub", "library/alpine")),
        ("localhost:8080", "ns=nowhere.test", "alpine", None),
        ("docker.io", "", "alpine", ("hub", "library/alpine")),
        ("all.test", "", "x", ("all", "x")),
        # The token server's host: it is the registry's name that counts.
        ("auth.docker.io", "", "alpine", ("hub", "library/alpine")),
    ],
)
def test_a_name_means_what_the_client_means_by_it(
    site: Site, host: str, query: str, name: str, place: tuple[str, str] | None
) -> None:
    assert site.authenticator.names.place(request(host, query), name) == place


def test_a_scope_for_a_group_goes_for_its_members_each_by_its_own_name(site: Site) -> None:
    scopes = site.authenticator.names.scopes(
        request("localhost"), [Scope("repository", "all/alpine", ("pull",)), Scope("registry", "catalog", ("*",))]
    )
    assert scopes.catalog
    assert set(scopes.places) == {("all", "alpine"), ("oci", "alpine"), ("hub", "alpine"), ("hub", "library/alpine")}
    assert set(scopes.places.values()) == {frozenset(("read", "fetch"))}


def test_a_token_for_another_service_is_not_for_here(site: Site) -> None:
    names = site.authenticator.names
    for service, host, by, fits in (
        ("mxart.test:5000", "mxart.test:5000", "path", True),
        ("mxart.test", "mxart.test:5000", "path", True),
        ("mxart.test:5001", "mxart.test:5000", "path", False),
        ("other.test", "mxart.test:5000", "path", False),
        ("registry.docker.io", "registry-1.docker.io", "host", True),
        ("registry.docker.io", "registry-1.docker.io", "path", False),
        ("docker.io.evil.test", "registry-1.docker.io", "host", False),
        ("", "registry-1.docker.io", "host", False),
    ):
        assert names.is_service(service, request(host), by) == fits, (service, host, by)


words = st.lists(st.sampled_from(["pull", "push", "delete", "*", "other"]), max_size=4)


@given(words, st.frozensets(st.sampled_from(ACTIONS)))
def test_what_is_granted_is_within_what_was_asked_and_what_is_permitted(
    asked: list[str], permitted: frozenset[Action]
) -> None:
    found = words_granted(asked, lambda action: action in permitted)
    assert len(set(found)) == len(found)
    for word in found:
        assert word in asked or "*" in asked
        assert actions_of(word) & permitted
