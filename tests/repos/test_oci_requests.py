"""What the registry API's paths mean, and that nothing else means anything."""

from __future__ import annotations

import json
from inspect import signature

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxart.digest import Digest
from mxart.errors import BadRequest, MethodNotAllowed, NotFound, Problem
from mxart.message import Headers
from mxart.repos.oci.errors import code
from mxart.repos.oci.format import Oci
from mxart.repos.oci.names import is_docker_hub, is_tag
from mxart.repos.operations import Blob, Document, Listed, Listing, Operation, Static

SHA256 = Digest.of(b"x")
SHA512 = Digest.of(b"x", "sha512")

words = st.text("abz019", min_size=1, max_size=5) | st.sampled_from(["manifests", "blobs", "tags", "list", "v2"])
components = st.builds(
    lambda first, rest: first + "".join(rest),
    words,
    st.lists(st.builds(str.__add__, st.sampled_from([".", "_", "__", "-", "---"]), words), max_size=2),
)
image_names = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = st.builds(str.__add__, st.sampled_from("aZ0_"), st.text("aZ0_.-", max_size=127))


def parse(path: str, query: str = "", method: str = "GET") -> Operation:
    return Oci().parse(method, path, query, Headers())


@given(image_names, tags)
@example("manifests", "manifests")
@example("a/manifests/b", "blobs")
@example("a/blobs/tags", "list")
def test_a_tag_of_any_name_is_a_moving_manifest(name: str, tag: str) -> None:
    path = f"{name}/manifests/{tag}"
    assert parse(f"/v2/{path}") == Document(name, path, "manifest", mutable=True, tag=tag)


@given(image_names, st.sampled_from([SHA256, SHA512]))
def test_a_digest_is_a_manifest_or_a_blob_for_good(name: str, digest: Digest) -> None:
    for shown in (str(digest), str(digest).replace(":", "%3A"), str(digest).replace(":", "%3a")):
        assert parse(f"/v2/{name}/manifests/{shown}") == Document(
            name, f"{name}/manifests/{digest}", "manifest", False, digest
        )
        path = f"{name}/blobs/{digest}"
        assert parse(f"/v2/{path}") == Blob(name, path, "blob", digest)
        assert parse(f"/v2/{path}", method="HEAD") == Blob(name, path, "blob", digest, head=True)


def test_the_ping_says_that_this_is_a_registry() -> None:
    for path in ("/v2/", "/v2"):
        operation = parse(path)
        assert isinstance(operation, Static)
        assert operation.response.status == 200
        assert operation.response.headers.get("docker-distribution-api-version") == "registry/2.0"


def test_the_namespace_parameter_is_the_routers() -> None:
    assert parse("/v2/a/manifests/b", "ns=docker.io") == parse("/v2/a/manifests/b")


def test_lists_take_n_and_last() -> None:
    assert parse("/v2/a/b/tags/list") == Listing("a/b", "a/b/tags/list", "name", "tags")
    assert parse("/v2/a/tags/list", "last=v1%2B2&n=7") == Listing("a", "a/tags/list", "name", "tags", "v1+2", 7)
    assert parse("/v2/a/tags/list", "n=0") == Listing("a", "a/tags/list", "name", "tags", "", 0)
    assert parse("/v2/_catalog", "n=100000") == Listing("", "_catalog", "list", "packages", "", 1000)


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "99999999999", "%00", "١", "+1", "1e3"])
def test_a_bad_n_is_refused(n: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse("/v2/a/tags/list", f"n={n}")
    assert code(caught.value) == "PAGINATION_NUMBER_INVALID"


@pytest.mark.parametrize("query", ["last=%ff%fe", "&".join("a=b" for _ in range(100))])
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        parse("/v2/a/tags/list", query)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/", "GET, HEAD"),
        ("/v2/x", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/manifests/b", "GET, HEAD, PUT, DELETE"),
        (f"/v2/a/blobs/{SHA256}", "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/1", "GET, HEAD, PATCH, PUT, DELETE"),
    ],
)
def test_what_nothing_takes_is_refused_and_says_what_is_allowed(method: str, path: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        parse(path, method=method)
    assert code(caught.value) == "UNSUPPORTED"
    assert caught.value.headers == (("allow", allowed),)


HOSTILE = {
    "upper case": "/v2/Alpine/manifests/b",
    "dots": "/v2/../manifests/b",
    "dots within": "/v2/a/../b/manifests/c",
    "a dot": "/v2/./a/manifests/c",
    "escaped dots": "/v2/a/%2e%2e/b/manifests/c",
    "escaped slash": "/v2/a%2Fb/manifests/c",
    "escaped slash in the reference": "/v2/a/manifests/..%2f..%2fetc%2fpasswd",
    "doubly escaped": "/v2/a/manifests/%252e",
    "half an escape": "/v2/a/manifests/b%",
    "not an escape": "/v2/a/manifests/%zz",
    "NUL": "/v2/a%00b/manifests/c",
    "raw NUL": "/v2/a\x00b/manifests/c",
    "new line": "/v2/a/manifests/b%0a",
    "new line after a digest": f"/v2/a/blobs/{SHA256}%0A",
    "no UTF-8": "/v2/a%ff/manifests/b",
    "latin-1": "/v2/\xe4/manifests/b",
    "empty component": "/v2/a//b/manifests/c",
    "leading slash": "/v2//a/manifests/c",
    "no name": "/v2/manifests/c",
    "an empty name": "/v2//manifests/c",
    "backslash": "/v2/a\\b/manifests/c",
    "overlong name": "/v2/" + "a" * 256 + "/manifests/b",
    "overlong path": "/v2/" + "a/" * 5000 + "manifests/b",
    "overlong tag": "/v2/a/manifests/" + "t" * 129,
    "tag with a dash first": "/v2/a/manifests/-b",
    "no reference": "/v2/a/manifests/",
    "trailing slash": "/v2/a/manifests/b/",
    "separator at the end": "/v2/a-/manifests/b",
    "three underscores": "/v2/a___b/manifests/c",
    "short digest": "/v2/a/blobs/sha256:abc",
    "no digest": "/v2/a/blobs/latest",
    "baddigest": "/v2/a/blobs/sha256:baddigeststring",
    "upper-case digest": f"/v2/a/blobs/{str(SHA256).upper()}",
    "unknown algorithm": "/v2/a/blobs/md5:" + "0" * 32,
    "baddigest of a manifest": "/v2/a/manifests/sha256:baddigeststring",
    "an upload of nothing": "/v2/blobs/uploads/123",
    "unknown": "/v2/a/b/c",
    "below the catalog": "/v2/_catalog/x",
    "another version": "/v1/search",
    "close to v2": "/v2x/a/manifests/b",
    "tags without list": "/v2/a/tags/",
    "space": "/v2/a b/manifests/c",
    "query in the name": "/v2/a%3fn=1/manifests/c",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_paths_are_400_or_404(case: str) -> None:
    with pytest.raises((BadRequest, NotFound)) as caught:
        parse(HOSTILE[case])
    response = Oci().word(caught.value)
    (body,) = response.body.segments
    assert isinstance(body, bytes)
    (error,) = json.loads(body)["errors"]
    assert error["code"] in {"NAME_INVALID", "DIGEST_INVALID", "MANIFEST_INVALID", "UNSUPPORTED"}
    assert len(error["message"]) < 300


@given(st.text(max_size=300), st.text(max_size=60))
def test_whatever_is_sent_is_parsed_or_refused(tail: str, query: str) -> None:
    try:
        operation = parse("/v2/" + tail, query)
    except (BadRequest, NotFound):
        return
    if isinstance(operation, Document | Blob):
        # What comes through can be asked of upstream and kept as it is.
        assert not {"..", ".", ""} & set(operation.path.split("/"))
        assert operation.path.isascii()
        assert operation.path.isprintable()
        assert not set(operation.path) & set("%?#\\ ")


@given(image_names, st.sampled_from(["manifests/3", f"blobs/{SHA256}", "tags/list"]))
def test_docker_hub_puts_library_before_single_names_only_and_once(name: str, rest: str) -> None:
    hub, other = Oci(("https://registry-1.docker.io",)), Oci(("https://ghcr.io", "https://docker.io"))
    operation = hub.parse("GET", f"/v2/{name}/{rest}", "", Headers())
    assert not isinstance(operation, Static)
    adopted = hub.adopt(operation)
    full = name if "/" in name else f"library/{name}"
    assert (adopted.package, adopted.path) == (full, f"{full}/{rest}")
    assert hub.adopt(adopted) == adopted
    assert other.adopt(operation) == operation


@pytest.mark.parametrize("host", ["registry-1.docker.io", "docker.io", "index.docker.io", "REGISTRY-1.docker.io"])
def test_docker_hub_is_known_by_its_names(host: str) -> None:
    assert is_docker_hub([f"https://{host}"])
    assert is_docker_hub([f"http://{host}:5000/mirror"])
    assert not is_docker_hub([f"https://{host}.example"])
    assert not is_docker_hub([])


def test_a_tag_is_not_a_digest() -> None:
    assert not is_tag(str(SHA256))


def render(listed: Listed, target: str, limit: int | None) -> tuple[str | None, object]:
    headers, data = Oci().paging.render(Listing("a", "a/tags/list", "name", "tags", "", limit), listed, target)
    return headers.get("link"), json.loads(data)


def test_the_next_page_is_linked_under_the_name_that_the_client_uses() -> None:
    link, body = render(Listed(["1", "2"], more=True), "/v2/ghcr.io/a/tags/list?n=2", 2)
    assert link == '</v2/ghcr.io/a/tags/list?n=2&last=2>; rel="next"'
    assert body == {"name": "ghcr.io/a", "tags": ["1", "2"]}


def test_the_next_page_keeps_the_namespace() -> None:
    link, _ = render(Listed(["1"], more=True), "/v2/a/tags/list?ns=ghcr.io&n=1", 1)
    assert link == '</v2/a/tags/list?n=1&last=1&ns=ghcr.io>; rel="next"'
    link, _ = render(Listed(["1"], more=True), "/v2/a/tags/list?ns=&n=1", 1)
    assert link == '</v2/a/tags/list?n=1&last=1>; rel="next"'


def test_the_last_page_has_no_link_and_n_0_is_empty_without_one() -> None:
    assert render(Listed(["1"], more=False), "/v2/a/tags/list", 2) == (None, {"name": "a", "tags": ["1"]})
    assert render(Listed([], more=True), "/v2/a/tags/list?n=0", 0) == (None, {"name": "a", "tags": []})


PROBLEMS: list[tuple[Problem, int, str]] = [
    (NotFound("x", subject="blob"), 404, "BLOB_UNKNOWN"),
    (NotFound("x", subject="manifest"), 404, "MANIFEST_UNKNOWN"),
    (NotFound("x", subject="name"), 404, "NAME_UNKNOWN"),
    (Problem("x"), 500, "UNKNOWN"),
]


@pytest.mark.parametrize(("problem", "status", "name"), PROBLEMS)
def test_a_problem_is_worded_for_the_client(problem: Problem, status: int, name: str) -> None:
    response = Oci().word(problem)
    assert (response.status, code(problem)) == (status, name)
    assert response.headers.get("content-type") == "application/json"


def every(kind: type[Problem]) -> list[type[Problem]]:
    """All but those that word themselves."""
    mine = [kind] if "detail" in signature(kind).parameters else []
    return [*mine, *(found for sub in kind.__subclasses__() for found in every(sub))]


@pytest.mark.parametrize("kind", every(Problem))
def test_every_problem_has_words(kind: type[Problem]) -> None:
    problem = kind('say "this"\n', detail="more", retry_after=0.2, headers=(("www-authenticate", "Bearer"),))
    response = Oci().word(problem)
    (body,) = response.body.segments
    assert isinstance(body, bytes)
    assert json.loads(body) == {"errors": [{"code": code(problem), "message": 'say "this"\n', "detail": "more"}]}
    assert response.status == kind.status
    assert response.headers.get("retry-after") == "1"
    assert response.headers.get("www-authenticate") == "Bearer"
