"""What the registry API's writes mean, where their answers point to, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxart.digest import Digest
from mxart.errors import BadRequest, MethodNotAllowed, NotFound, UriTooLong
from mxart.message import Headers, Response
from mxart.repos.oci.format import Oci
from mxart.repos.operations import Operation
from mxart.repos.publishing import (
    Append,
    Begin,
    Cancel,
    Delete,
    Finish,
    Gone,
    Outcome,
    Progress,
    Publish,
    Published,
    Stored,
    Uploading,
    Write,
)

SUM = Digest.of(b"x")
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def parse(method: str, path: str, query: str = "", *fields: tuple[str, str]) -> Operation:
    return Oci().parse(method, path, query, Headers(fields))


@pytest.mark.parametrize("name", ["a", "a/b", "blobs/uploads", "a/blobs/uploads", "a/manifests", "blobs", "uploads/x"])
def test_every_write_of_any_name(name: str) -> None:
    here = f"/v2/{name}"
    uploads, one = f"{here}/blobs/uploads/", f"{here}/blobs/uploads/u_-1"
    blob = f"{name}/blobs/{SUM}"
    assert parse("POST", uploads) == parse("POST", uploads[:-1]) == Begin(name, "blob")
    assert parse("POST", uploads, f"digest={SUM}") == Begin(name, "blob", "sha256", SUM, path=blob)
    assert parse("POST", uploads, "digest-algorithm=sha512") == Begin(name, "blob", "sha512")
    mount = Begin(name, "blob", mount=SUM, path=blob, source="c/d")
    assert parse("POST", uploads, f"mount={SUM}&from=c%2Fd") == mount
    endless = parse("POST", uploads, f"mount={SUM}&from={'a/' * 30_000}b")
    assert endless == Begin(name, "blob", mount=SUM, path=blob)
    assert parse("PATCH", one) == Append(name, "upload", "u_-1")
    assert parse("PATCH", one, "", ("content-range", "7-9")) == Append(name, "upload", "u_-1", 7)
    assert parse("PUT", one, f"digest={str(SUM).replace(':', '%3A')}") == Finish(name, "upload", "u_-1", blob, SUM)
    assert parse("GET", one) == parse("HEAD", one) == Progress(name, "upload", "u_-1")
    assert parse("DELETE", one) == Cancel(name, "upload", "u_-1")
    assert parse("DELETE", f"/v2/{blob}") == Delete(name, blob, "blob")
    tagged = (("t", f"{name}/manifests/t"),)
    assert parse("PUT", f"{here}/manifests/t") == Publish(name, "manifest", "", None, tagged, tagged[0][1])
    typed = parse("PUT", f"{here}/manifests/{SUM}", "tag=t&tag=t", ("content-type", "A/b; c=d"), ("if-match", "*"))
    condition = Headers((("if-match", "*"),))
    assert typed == Publish(name, "manifest", "a/b", SUM, tagged, f"{name}/manifests/{SUM}", condition)
    assert parse("DELETE", f"{here}/manifests/t") == Delete(name, f"{name}/manifests/t", "manifest")
    assert parse("DELETE", f"{here}/manifests/{SUM}") == Delete(name, f"{name}/manifests/{SUM}", "manifest", str(SUM))


HOSTILE = {
    "upper case": "/v2/Alpine/{}",
    "dots": "/v2/../{}",
    "dots within": "/v2/a/../b/{}",
    "escaped dots": "/v2/a/%2e%2e/b/{}",
    "escaped slash": "/v2/a%2Fb/{}",
    "doubly escaped": "/v2/a%252fb/{}",
    "half an escape": "/v2/a%/{}",
    "NUL": "/v2/a%00/{}",
    "new line": "/v2/a%0a/{}",
    "no UTF-8": "/v2/a%ff/{}",
    "empty component": "/v2/a//{}",
    "leading slash": "/v2//a/{}",
    "no name": "/v2/{}",
    "backslash": "/v2/a\\b/{}",
    "overlong": "/v2/" + "a" * 256 + "/{}",
    "overlong path": "/v2/" + "a/" * 2000 + "{}",
    "not the API": "/v1/a/{}",
}
TAILS = {
    "POST": "blobs/uploads/",
    "PATCH": "blobs/uploads/u",
    "PUT": "manifests/t",
    "DELETE": f"blobs/{SUM}",
}


@pytest.mark.parametrize("method", TAILS)
@pytest.mark.parametrize("case", HOSTILE)
def test_path_tricks_are_400_or_404_in_every_write(case: str, method: str) -> None:
    with pytest.raises((BadRequest, NotFound, MethodNotAllowed)):
        parse(method, HOSTILE[case].format(TAILS[method]))


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("PUT", "/v2/a/manifests/..%2f..%2fetc", ""),
        ("PUT", "/v2/a/manifests/" + "t" * 129, ""),
        ("PUT", "/v2/a/manifests/", ""),
        ("PUT", f"/v2/a/manifests/{SUM}", "tag=../x"),
        ("PUT", f"/v2/a/manifests/{SUM}", "tag=%ff"),
        ("PUT", f"/v2/a/manifests/{SUM}", "tag="),
        ("PUT", "/v2/a/blobs/uploads/u", ""),
        ("PUT", "/v2/a/blobs/uploads/u", f"digest={SUM}&digest={SUM}"),
        ("PUT", "/v2/a/blobs/uploads/u", "digest=sha256:../../../x"),
        ("POST", "/v2/a/blobs/uploads/", "mount=../x&from=b"),
        ("POST", "/v2/a/blobs/uploads/", "digest-algorithm=../x"),
        ("POST", "/v2/a/blobs/uploads/", "digest=%ff"),
        ("DELETE", "/v2/a/blobs/..", ""),
        ("DELETE", "/v2/a/manifests/..", ""),
    ],
)
def test_tricks_in_references_and_parameters_are_refused(method: str, path: str, query: str) -> None:
    with pytest.raises(BadRequest):
        parse(method, path, query)


def test_endless_parameters_are_refused() -> None:
    with pytest.raises(UriTooLong):
        parse("PUT", f"/v2/a/manifests/{SUM}", "&".join(f"tag=t{number}" for number in range(5000)))
    with pytest.raises(BadRequest):
        parse("POST", "/v2/a/blobs/uploads/", "&".join("a=b" for _ in range(5000)))


@given(st.sampled_from(WRITES), st.text(max_size=200), st.text(max_size=60), st.text(max_size=30))
@example("PATCH", "a/blobs/uploads/u", "", "0-99999999999999999999")
def test_whatever_is_sent_is_parsed_or_refused(method: str, tail: str, query: str, content_range: str) -> None:
    try:
        operation = parse(method, "/v2/" + tail, query, ("content-range", content_range))
    except (BadRequest, NotFound, MethodNotAllowed):
        return
    path = getattr(operation, "path", "")
    # What comes through can be a name in the catalog, and is part of no path on disk.
    assert not {"..", "."} & set(path.split("/"))
    assert path.isascii()
    assert not set(path) & set("%?#\\ ")


def answer(operation: Write, outcome: Outcome, target: str) -> Response:
    if isinstance(outcome, Gone):
        assert isinstance(operation, Delete | Cancel)
        return Oci().gone(operation, outcome)
    assert isinstance(outcome, Uploading | Stored | Published)
    return Oci().pushing.outcome(operation, outcome, target)


@pytest.mark.parametrize(
    ("prefix", "query", "kept"),
    [("a", "", ""), ("docker.io/a/b", "ns=x%3A1&n=2", "?ns=x%3A1"), ("a/blobs/uploads", "", ""), ("a%2Db", "", "")],
)
def test_answers_point_to_where_the_client_came_in(prefix: str, query: str, kept: str) -> None:
    here = f"/v2/{prefix}"
    clear = here.replace("%2D", "-")
    begin, publish = Begin("a", "blob"), Publish("a", "manifest", "", None, ())
    finish = Finish("a", "upload", "u", f"a/blobs/{SUM}", SUM)
    for path, operation, outcome, location in (
        ("blobs/uploads/", begin, Uploading("u", 0), "blobs/uploads/u"),
        ("blobs/uploads", begin, Uploading("u", 0), "blobs/uploads/u"),
        ("blobs/uploads/", begin, Stored(SUM, mounted=True), f"blobs/{SUM}"),
        ("blobs/uploads/u", Append("a", "upload", "u"), Uploading("u", 5), "blobs/uploads/u"),
        ("blobs/uploads/u", Progress("a", "upload", "u"), Uploading("u", 5), "blobs/uploads/u"),
        ("blobs/uploads/u", finish, Stored(SUM), f"blobs/{SUM}"),
        ("manifests/manifests", publish, Published(SUM, ("manifests",)), f"manifests/{SUM}"),
    ):
        response = answer(operation, outcome, f"{here}/{path}?{query}")
        assert response.headers.get("location") == f"{clear}/{location}{kept}"


def test_an_answer_stands_a_query_that_cannot_be_read() -> None:
    endless = "&".join(f"a{number}=b" for number in range(5000))
    target = f"/v2/a/blobs/uploads/u?{endless}&ns=%ff"
    assert answer(Progress("a", "upload", "u"), Uploading("u", 0), target).status == 204


def test_a_warning_is_for_people_and_short() -> None:
    response = answer(Delete("a", "a/blobs/x", "blob"), Gone("two manifests need it"), "/v2/a/blobs/x")
    assert (response.status, response.headers.get("warning")) == (202, '299 - "two manifests need it"')
    assert answer(Cancel("a", "upload", "u"), Gone(), "/v2/a/blobs/uploads/u").status == 204
