"""Which repository a request reaches, and that nothing unclaimed reaches any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.errors import BadRequest, MisdirectedRequest, NotFound, Problem
from mxart.server.routes import Mount, Routes, ToOwn, ToRepository, ToTokens, host_of, query_value

ROUTES = Routes(
    [
        Mount("hub", "oci", ("docker.io", "registry-1.docker.io"), "/docker.io"),
        Mount("quay", "oci", ("quay.io",), "/quay.io"),
        Mount("team", "oci", (), "/team/images"),
        Mount("mine", "oci", (), "/"),
        Mount("hidden", "oci"),
        Mount("modules", "go", ("go.test",), "/go"),
        Mount("special", "go", (), "/go-special/modules"),
    ]
)


@pytest.mark.parametrize(
    ("authority", "sni", "path", "query", "expected"),
    [
        (
            "registry-1.docker.io",
            None,
            "/v2/library/x/manifests/1",
            "",
            ToRepository("hub", "/v2/library/x/manifests/1", by="host"),
        ),
        ("Registry-1.Docker.IO:443", None, "/v2/", "", ToRepository("hub", "/v2/", by="host")),
        ("docker.io.", None, "/v2/", "", ToRepository("hub", "/v2/", by="host")),
        ("10.0.0.1", "docker.io", "/v2/x/tags/list", "", ToRepository("hub", "/v2/x/tags/list", by="host")),
        ("docker.io", "registry-1.docker.io", "/v2/", "", ToRepository("hub", "/v2/", by="host")),
        (
            "localhost:1",
            None,
            "/v2/library/x/manifests/1",
            "ns=quay.io",
            ToRepository("quay", "/v2/library/x/manifests/1", "quay.io", by="ns"),
        ),
        (
            "localhost:1",
            None,
            "/v2/x/blobs/y",
            "a=b&ns=docker%2Eio",
            ToRepository("hub", "/v2/x/blobs/y", "docker.io", by="ns"),
        ),
        ("localhost:1", None, "/v2/x/y", "ns=localhost%3A1", ToRepository("mine", "/v2/x/y")),
        ("localhost:1", None, "/v2/docker.io/a/b/manifests/1", "", ToRepository("hub", "/v2/a/b/manifests/1")),
        ("localhost:1", None, "/v2/team/images/a/tags/list", "", ToRepository("team", "/v2/a/tags/list")),
        ("localhost:1", None, "/v2/team/a/tags/list", "", ToRepository("mine", "/v2/team/a/tags/list")),
        ("localhost:1", None, "/v2/docker.iox/a/tags/list", "", ToRepository("mine", "/v2/docker.iox/a/tags/list")),
        ("", None, "/v2", "", ToRepository("mine", "/v2")),
        ("docker.io", None, "/-/health", "", ToOwn("/-/health")),
        ("localhost:1", None, "/go/a.b/%21c/@v/list", "", ToRepository("modules", "/a.b/%21c/@v/list")),
        ("localhost:1", None, "/go/", "", ToRepository("modules", "/")),
        ("localhost:1", None, "/go-special/modules/a.b/@latest", "", ToRepository("special", "/a.b/@latest")),
        ("go.test", None, "/a.b/c/@v/list", "", ToRepository("modules", "/a.b/c/@v/list", by="host")),
        ("go.test", None, "/go/a.b/c/@v/list", "", ToRepository("modules", "/go/a.b/c/@v/list", by="host")),
        ("10.0.0.1", "go.test", "/a.b/@latest", "", ToRepository("modules", "/a.b/@latest", by="host")),
        ("go.test", None, "/v2/", "", ToRepository("modules", "/v2/", by="host")),
        ("go.test", None, "/-/health", "", ToOwn("/-/health")),
        ("localhost:1", None, "/v2/go/a/tags/list", "", ToRepository("mine", "/v2/go/a/tags/list")),
    ],
)
def test_a_request_finds_its_repository(
    authority: str, sni: str | None, path: str, query: str, expected: ToRepository | ToOwn
) -> None:
    assert ROUTES.find(authority, sni, path, query) == expected


def test_a_namespace_that_nothing_claims_is_not_answered_by_somebody_else() -> None:
    with pytest.raises(NotFound):
        ROUTES.find("localhost", None, "/v2/x/manifests/1", "ns=evil.example")


def test_sni_and_host_of_two_repositories_are_a_misdirected_request() -> None:
    with pytest.raises(MisdirectedRequest):
        ROUTES.find("quay.io", "docker.io", "/v2/", "")


def test_without_a_root_an_unknown_prefix_is_not_found_but_the_ping_answers() -> None:
    routes = Routes([Mount("hub", "oci", (), "/hub")])
    with pytest.raises(NotFound, match="hub/"):
        routes.find("h", None, "/v2/x/manifests/1", "")
    assert routes.find("h", None, "/v2/", "") == ToRepository("hub", "/v2/")


@pytest.mark.parametrize("authority", ["a/b", "a@b", "[::1", "a:b", "[::1]x", "a b"])
def test_a_host_that_is_none_is_refused(authority: str) -> None:
    with pytest.raises(BadRequest):
        host_of(authority)


def test_addresses_in_brackets_are_hosts() -> None:
    assert host_of("[::1]:8080") == "::1"


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_request_breaks_the_table(authority: str, path: str, query: str) -> None:
    try:
        found = ROUTES.find(authority, None, "/" + path, query)
    except Problem:
        return
    assert isinstance(found, ToOwn | ToRepository)


def test_the_first_value_of_a_parameter_counts() -> None:
    assert query_value("a=1&ns=x&ns=y", "ns") == "x"
    assert query_value("ns", "ns") == ""
    assert query_value("", "ns") is None


def test_a_host_of_the_token_server_is_for_tokens_alone() -> None:
    routes = Routes([Mount("hub", "oci", ("docker.io",), "/")], ["auth.docker.io"])
    for path in ("/token", "/", "/v2/", "/v2/x/tags/list"):
        assert routes.find("auth.docker.io", None, path, "") == ToTokens()
        assert routes.find("Auth.Docker.io:443", "auth.docker.io", path, "") == ToTokens()
        assert routes.find("10.0.0.1", "auth.docker.io", path, "") == ToTokens()
    assert routes.find("auth.docker.io", None, "/-/health", "") == ToOwn("/-/health")
    assert routes.find("docker.io", None, "/v2/", "") == ToRepository("hub", "/v2/", by="host")
    for host, sni in (("auth.docker.io", "docker.io"), ("docker.io", "auth.docker.io")):
        with pytest.raises(MisdirectedRequest):
            routes.find(host, sni, "/v2/", "")


@pytest.mark.parametrize(
    ("authority", "path"),
    [("localhost", "/go"), ("localhost", "/gone/a.b/@latest"), ("localhost", "/go-special/a.b/@latest"),
     ("docker.io", "/go/a.b/@latest"), ("localhost", "/")],
)  # fmt: skip
def test_what_lies_below_no_path_is_told_which_paths_there_are(authority: str, path: str) -> None:
    with pytest.raises(NotFound, match=r"go below /go-special/modules, go below /go, this server's own"):
        ROUTES.find(authority, None, path, "")


def test_a_root_for_modules_leaves_images_and_own_pages_alone() -> None:
    routes = Routes([Mount("modules", "go", (), "/"), Mount("hub", "oci", (), "/docker.io")])
    assert routes.find("localhost", None, "/a.b/@latest", "") == ToRepository("modules", "/a.b/@latest")
    assert routes.find("localhost", None, "/v2/docker.io/a/tags/list", "") == ToRepository("hub", "/v2/a/tags/list")
    assert routes.find("localhost", None, "/-/health", "") == ToOwn("/-/health")


def test_no_image_is_found_by_the_name_of_a_host_of_modules() -> None:
    with pytest.raises(NotFound, match=r"stands for go\.test"):
        ROUTES.find("localhost", None, "/v2/a/manifests/1", "ns=go.test")
