"""What the URLs of a GOPROXY mean, and that nothing else means anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.errors import BadRequest, MethodNotAllowed, NotFound, Problem
from mxart.message import Headers
from mxart.repos.go.format import Go
from mxart.repos.go.requests import MAX_PATH
from mxart.repos.operations import Artifact, Document, Listing, Operation, Static

TOML = "github.com/BurntSushi/toml"
BASE = "github.com/!burnt!sushi/toml"


def parse(path: str, *fields: tuple[str, str], method: str = "GET", query: str = "") -> Operation:
    return Go().parse(method, path, query, Headers(fields))


@pytest.mark.parametrize("prefix", [f"/{BASE}", "/github.com/%21burnt%21sushi/toml", "/github.com/%21burnt!sushi/toml"])
def test_percent_escapes_go_first_and_then_the_bangs(prefix: str) -> None:
    assert parse(f"{prefix}/@v/list") == Listing(TOML, f"{BASE}/@v/list", "list", "tags")
    assert parse(f"{prefix}/@latest") == Document(
        TOML, f"{BASE}/@latest", "latest", mutable=True, small=True, chosen=True
    )
    for kind in ("info", "mod"):
        path = f"{BASE}/@v/v1.2.0-!r!c.1.{kind}"
        asked = f"{prefix}/@v/v1.2.0-%21r%21c.1.{kind}"
        assert parse(asked) == Document(TOML, path, kind, mutable=False, small=True)
    assert parse(f"{prefix}/@v/v1.2.0.zip", method="HEAD") == Artifact(TOML, f"{BASE}/@v/v1.2.0.zip", "zip", head=True)


@pytest.mark.parametrize("version", ["master", "0123456789ab", "v1.2", "v2.0.0", "v1.2.3+meta", "release-1.x"])
def test_what_is_no_version_of_the_module_has_an_info_that_may_change_and_nothing_else(version: str) -> None:
    operation = parse(f"/{BASE}/@v/{version}.info")
    assert isinstance(operation, Document)
    assert operation.mutable
    for kind in ("mod", "zip"):
        with pytest.raises(BadRequest):
            parse(f"/{BASE}/@v/{version}.{kind}")


@pytest.mark.parametrize(
    "version",
    ["v1.2.3", "v0.0.0-20240102030405-0123456789ab", "v3.0.0+incompatible", "v1.2.4-0.20240102030405-0123456789ab"],
)
def test_versions_and_commits_are_for_good(version: str) -> None:
    for written in (version, version.replace("+", "%2B")):
        operation = parse(f"/{BASE}/@v/{written}.info")
        assert operation == Document(TOML, f"{BASE}/@v/{version}.info", "info", mutable=False, small=True)


def test_a_toolchain_is_a_module_like_any_other() -> None:
    path = "golang.org/toolchain/@v/v0.0.1-go1.24.0.linux-amd64.zip"
    assert parse(f"/{path}") == Artifact("golang.org/toolchain", path, "zip")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (f"/cached-only/{BASE}/@v/list", ()),
        (f"/{BASE}/@v/list", (("disable-module-fetch", "true"),)),
        (f"/{BASE}/@v/list", (("disable-module-fetch", "True"),)),
    ],
)
def test_who_wants_nothing_fetched_says_so_as_to_googles_proxy(path: str, fields: tuple[tuple[str, str], ...]) -> None:
    assert parse(path, *fields) == Listing(TOML, f"{BASE}/@v/list", "list", "tags", kept=True)


@pytest.mark.parametrize(
    ("path", "problem", "why"),
    [
        ("/", NotFound, "GOPROXY"),
        ("/favicon.ico", NotFound, "GOPROXY"),
        (f"/{BASE}", NotFound, "@latest"),
        (f"/{BASE}/@v/", NotFound, "list"),
        (f"/{BASE}/@v/v1.0.0", NotFound, ".info"),
        (f"/{BASE}/@v/v1.0.0.lock", NotFound, ".info"),
        (f"/{BASE}/@v/v1.0.0.ziphash", NotFound, ".info"),
        (f"/{TOML}/@v/list", BadRequest, "not escaped"),
        (f"/{BASE}/@v/v1.0.0-RC1.info", BadRequest, "not escaped"),
        (f"/{BASE}/@v/a/b.info", BadRequest, "slash|characters"),
        (f"/{BASE}/@v/a%2Fb.info", BadRequest, "escape"),
        ("/github.com%2fa/b/@v/list", BadRequest, "escape"),
        ("/github.com/a%00/@v/list", BadRequest, "escape"),
        ("/github.com/a%/@v/list", BadRequest, "escape"),
        ("/github.com/../a/@v/list", BadRequest, "module path"),
        ("/localhost/@v/list", BadRequest, "dot"),
        ("/github.com/%C3%A4/@v/list", BadRequest, "ASCII"),
        ("/github.com/%FF/@v/list", BadRequest, "ASCII"),
        (f"/{BASE}/@v/v1.zip", BadRequest, "v1.0.0 instead of v1"),
        (f"/{BASE}/@v/v2.0.0.mod", BadRequest, "cannot have version v2.0.0"),
        (f"/{BASE}/@v/master.zip", BadRequest, "is none"),
        ("/example.com/" + "a" * MAX_PATH + "/@v/list", BadRequest, "longer"),
    ],
)
def test_what_means_nothing_is_refused_with_what_would_be_right(path: str, problem: type[Problem], why: str) -> None:
    with pytest.raises(problem, match=why) as caught:
        parse(path)
    assert caught.value.message.isprintable()


def test_a_module_path_at_its_limit() -> None:
    longest = "example.com/" + "a" * (MAX_PATH - len("/example.com/" + "/@v/list"))
    operation = parse(f"/{longest}/@v/list")
    assert isinstance(operation, Listing)
    assert operation.package == longest


def test_a_version_is_written_by_its_zip_only() -> None:
    for method, name in (("POST", "v1.0.0.zip"), ("PATCH", "v1.0.0.zip"), ("PUT", "v1.0.0.mod"), ("DELETE", "list")):
        with pytest.raises(MethodNotAllowed) as caught:
            parse(f"/{BASE}/@v/{name}", method=method)
        assert ("PUT" in dict(caught.value.headers)["allow"]) == name.endswith(".zip")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_nothing_but_a_problem_comes_of_any_path(text: str) -> None:
    for path in (f"/{text}", f"/{text}/@v/list", f"/{BASE}/@v/{text}.info", f"/{text}/@latest"):
        try:
            parse(path)
        except Problem:
            continue


def test_a_refusal_is_text_that_the_go_command_shows() -> None:
    word = Go().word
    response = word(NotFound("one\ntwo\n\n\x1b[31mthree\x00", detail="\n".join("456789")))
    assert response.status == 404
    assert response.headers.get("content-type") == "text/plain; charset=utf-8"
    (text,) = response.body.segments
    assert isinstance(text, bytes)
    assert text == b"one\ntwo\n?[31mthree?\n4\n5\n6\n7\n8\n"


@pytest.mark.parametrize("sign", ["x", "é", "字", "😀"])
def test_a_refusal_is_no_longer_than_the_go_command_shows(sign: str) -> None:
    """Of a text that is too long it shows its first lines, of a line that is too long nothing."""
    for text in (sign * 2000, f"{sign * 280}\n" * 12, f"short\n{sign * 299}\n{sign * 299}\n{sign * 299}"):
        (data,) = Go().word(NotFound(text)).body.segments
        assert isinstance(data, bytes)
        shown = data.decode().split("\n")
        assert shown.pop() == ""
        assert len(shown) <= 8
        assert len("\n\t".join(shown).encode()) <= 648
        assert shown[0].startswith((sign * 100, "short"))
        assert shown[-1].endswith("...")


def test_a_host_of_our_own_says_that_its_modules_are_here() -> None:
    for path in ("/", "/team/lib", "/team/lib/v2/sub"):
        operation = Go().parse("GET", path, "go-get=1", Headers(), "https://Modules.test:8443")
        assert isinstance(operation, Static)
        (page,) = operation.response.body.segments
        assert isinstance(page, bytes)
        assert b'<meta name="go-import" content="modules.test mod https://Modules.test:8443">' in page
        assert operation.response.headers.get("content-type") == "text/html; charset=utf-8"


@pytest.mark.parametrize("root", ["", "https://box.test/go", "https://"])
def test_a_path_of_ours_is_no_host_of_modules(root: str) -> None:
    with pytest.raises(NotFound):
        Go().parse("GET", "/team/lib", "go-get=1", Headers(), root)


def test_only_the_one_query_means_something() -> None:
    for query in ("go-get=0", "xgo-get=1", "go-get=11", "q"):
        operation = Go().parse("GET", f"/{BASE}/@v/list", query, Headers(), "https://modules.test")
        assert isinstance(operation, Listing)


@given(st.text(max_size=30))
def test_no_host_can_write_into_the_page(text: str) -> None:
    try:
        operation = Go().parse("GET", "/", "go-get=1", Headers(), f"https://{text}")
    except Problem:
        return
    assert isinstance(operation, Static)
    (page,) = operation.response.body.segments
    assert isinstance(page, bytes)
    assert page.count(b"<") == 6
    assert page.count(b'"') == 4
