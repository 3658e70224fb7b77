"""What a client is told to log in with: always a header that can be read, whatever the request holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.access.base import Action, Denied, LoginWanted, WrongCredentials
from mxart.message import Headers, Peer, Request
from mxart.server.challenges import Challenges
from mxart.server.routes import ToRepository

PEER = Peer("192.0.2.9", 5, scheme="https", local_address="2001:db8::1", local_port=443)
FORM = re.compile(r'Bearer (?:[a-z]+="[^"\\\x00-\x1f\x7f]*")(?:,[a-z]+="[^"\\\x00-\x1f\x7f]*")*\Z')


def wanted(action: Action) -> LoginWanted:
    return LoginWanted("log in", Denied(action, "oci", "x"))


@pytest.mark.parametrize(
    ("method", "target", "action", "scope"),
    [
        ("GET", "/v2/a/b/manifests/1", "read", "repository:a/b:pull"),
        ("HEAD", "/v2/a/blobs/sha256:0", "fetch", "repository:a:pull"),
        ("GET", "/v2/a/tags/list?n=1", "read", "repository:a:pull"),
        ("GET", "/v2/blobs/manifests/manifests/1", "read", "repository:blobs/manifests:pull"),
        ("POST", "/v2/a/blobs/uploads/", "publish", "repository:a:pull,push"),
        ("PATCH", "/v2/a/blobs/uploads/5", "publish", "repository:a:pull,push"),
        ("PUT", "/v2/a/manifests/1", "overwrite", "repository:a:pull,push"),
        ("DELETE", "/v2/a/manifests/1", "delete", "repository:a:delete"),
        ("GET", "/v2/%61/manifests/1", "read", "repository:a:pull"),
        ("GET", "/v2/_catalog?n=5", "read", "registry:catalog:*"),
        ("GET", "/v2/", "read", ""),
        ("GET", '/v2/a"b/manifests/1', "read", ""),
        ("GET", "/v2/a%0d%0ab/manifests/1", "read", ""),
    ],
)
def test_the_scope_is_what_the_request_needs(method: str, target: str, action: Action, scope: str) -> None:
    said = Challenges().oci(Request(method, target, "a.test", Headers(), PEER), None, wanted(action))
    assert said == 'Bearer realm="https://a.test/-/token",service="a.test"' + (f',scope="{scope}"' if scope else "")


def test_a_wrong_password_on_a_push_leads_to_a_token_for_pushing() -> None:
    request = Request("POST", "/v2/a/blobs/uploads/", "a.test", Headers(), PEER)
    assert 'scope="repository:a:pull,push"' in Challenges().oci(request, None, WrongCredentials("no"))


def test_a_host_of_the_token_server_is_the_realm_for_its_registry_only() -> None:
    challenges = Challenges("", ["auth.docker.io"])
    hub = ToRepository("hub", "/v2/", by="host")
    for host, realm in (
        ("registry-1.docker.io", "https://auth.docker.io/token"),
        ("quay.io", "https://quay.io/-/token"),
    ):
        said = challenges.oci(Request("GET", "/v2/", host, Headers(), PEER), hub, wanted("read"))
        assert f'realm="{realm}",service="{host}"' in said
    request = Request("GET", "/v2/", "a.test", Headers(), PEER)
    assert "https://a.test/-/token" in challenges.oci(request, ToRepository("hub", "/v2/"), wanted("read"))


anything = st.text(st.characters(max_codepoint=255), max_size=40)


@given(anything, anything, anything)
def test_nothing_in_a_request_breaks_out_of_the_header(authority: str, path: str, query: str) -> None:
    request = Request("GET", f"/v2/{path}/manifests/1?ns={query}", authority, Headers(), PEER)
    said = Challenges().oci(request, ToRepository("oci", "/v2/", by="ns"), wanted("read"))
    assert FORM.match(said), said
