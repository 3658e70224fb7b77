"""Module paths and file names, to the letter of golang.org/x/mod/module."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxart.repos.go.paths import (
    check_file_path,
    check_path,
    escape,
    fold,
    split_major,
    unescape_path,
    unescape_version,
)

GOOD = [
    "example.com/a", "x.y/z", "github.com/BurntSushi/toml", "k8s.io/api", "gopkg.in/yaml.v3", "gopkg.in/check.v0",
    "gopkg.in/a/b.v1-unstable", "example.com/a/v2", "example.com/a/v22", "example.com/a~b/c_d", "example.com/a/v2.x",
    "example.com/a/w2", "example.com/v2x", "a.b", "123.com/x", "example.com/x/vv2", "example.com/com10/x",
]  # fmt: skip
BAD = [
    "", "a", "a/b.c", "/example.com/a", "example.com/a/", "example.com//a", "-example.com/a", "Example.com/a",
    "example_x.com/a", "example.com/a b", "example.com/a+b", "example.com/.git", "example.com/a.", "example.com/..",
    "example.com/.", "example.com/a@b", "example.com/ä", "example.com/a/v1", "example.com/a/v0", "example.com/a/v02",
    "example.com/a/v2.1", "example.com/nul", "example.com/CON.x/a", "example.com/a~1", "example.com/a~12.x",
    "gopkg.in/yaml", "gopkg.in/yaml.v01", "gopkg.in/yaml.v2.1", "example.com/a\n", "example.com/com1",
    "example.com/a\\b",
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
def test_a_good_module_path(path: str) -> None:
    assert check_path(path) == path
    assert unescape_path(escape(path)) == path


@pytest.mark.parametrize("path", BAD)
def test_a_bad_module_path_is_refused_with_what_is_wrong(path: str) -> None:
    with pytest.raises(ValueError, match="no module path"):
        check_path(path)


@given(st.lists(st.text("abzABZ019-._~", min_size=1, max_size=6), min_size=1, max_size=4).map("example.com/".join))
@example("x.yzA/Z")
def test_what_is_escaped_comes_back_and_has_no_upper_case(path: str) -> None:
    written = escape(path)
    assert written == written.lower()
    try:
        check_path(path)
    except ValueError:
        with pytest.raises(ValueError, match="no module path"):
            unescape_path(written)
    else:
        assert unescape_path(written) == path


@pytest.mark.parametrize(
    "written",
    ["example.com/Upper", "example.com/a!", "example.com/!!a", "example.com/!1", "example.com/!A", "!ex.com/a"],
)
def test_a_path_that_is_not_escaped_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"is not escaped|is no module path"):
        unescape_path(written)


def test_versions_are_escaped_too() -> None:
    assert unescape_version("v1.0.0-!r!c1") == "v1.0.0-RC1"
    assert unescape_version("v2.0.0+incompatible") == "v2.0.0+incompatible"
    assert unescape_version("master") == "master"
    for written in ("v1.0.0-RC1", "", "..", "a/b", "a:b", "a!", "v1.", "nul", "a*"):
        with pytest.raises(ValueError, match=r"is not escaped|is no version"):
            unescape_version(written)


@pytest.mark.parametrize(
    "name", ["a.go", "go.mod", ".github/x", "a b/c", "a+b!c", "ümlaut.go", "日本/x", "x~1", "[a](b)"]
)
def test_a_file_name_that_a_module_may_have(name: str) -> None:
    assert check_file_path(name) == name


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b",
             "../a", "a/../b", "a/./b", "a.", "a:b", "a*", "a\\b", "a\nb", "a\0", "aux.go", "a/NUL",
             "x/com9.txt", "a'b", "a|b", "¼", "a?", "<a>", '"a"', "a\u00a0b"]
)  # fmt: skip
def test_a_file_name_that_no_module_may_have(name: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        check_file_path(name)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("example.com/a", ("example.com/a", "")),
        ("example.com/a/v2", ("example.com/a", "/v2")),
        ("gopkg.in/yaml.v2", ("gopkg.in/yaml", ".v2")),
        ("gopkg.in/a/b.v2-unstable", ("gopkg.in/a/b", ".v2-unstable")),
        ("example.com/a/v1", None),
        ("gopkg.in/yaml", None),
    ],
)
def test_the_major_version_at_the_end_of_a_path(path: str, parts: tuple[str, str] | None) -> None:
    assert split_major(path) == parts


def test_folding_is_simple_folding() -> None:
    assert fold("ABC") == fold("abc")
    assert fold("ẞ") == fold("ß") != fold("ss")
    assert fold("\u212a") == fold("k") == fold("K")  # the Kelvin sign
    assert fold("Σ") == fold("σ") == fold("ς")
    assert fold("ﬁ") != fold("fi")


@given(st.text(max_size=30))
def test_nothing_but_a_refusal_comes_of_any_text(text: str) -> None:
    for function in (check_path, check_file_path, unescape_path, unescape_version):
        try:
            function(text)
        except ValueError:
            continue
