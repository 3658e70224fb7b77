"""Which module a repository holds where, and what its tags and commits are as versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.go.commits import Place, Tagged, base_of, guide, is_major, newest_of_majors, pseudo, tagged
from mxart.repos.go.hosts import Root, Urls, well_known
from mxart.repos.go.imports import MAX_PAGE, Import, check_folder, choose, read
from mxart.repos.go.versions import is_canonical, is_pseudo, order

ROOT = "example.com/team/app"
TIME = 1_704_164_645  # 2024-01-02T03:04:05Z
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# places


@pytest.mark.parametrize(
    ("module", "root", "below", "folder", "second", "lacks"),
    [
        (ROOT, ROOT, "", "", "", True),
        (f"{ROOT}/v2", ROOT, "", "", "v2", False),
        (f"{ROOT}/sub/dir", ROOT, "", "sub/dir", "", False),
        (f"{ROOT}/sub/v3", ROOT, "", "sub", "sub/v3", False),
        (f"{ROOT}/v2", f"{ROOT}/v2", "", "", "", False),
        ("gopkg.in/yaml.v2", "gopkg.in/yaml.v2", "", "", "", True),
        (ROOT, ROOT, "go", "go", "", False),
        (f"{ROOT}/v2", ROOT, "go", "go", "go/v2", False),
        (f"{ROOT}/sub", ROOT, "go", "sub/go", "", False),
    ],
)
def test_a_module_lies_in_a_folder_and_perhaps_in_that_of_its_major_version(
    module: str, root: str, below: str, folder: str, second: str, lacks: bool
) -> None:
    place = Place.of(module, root, below)
    assert (place.folder, place.second, place.may_lack_mod) == (folder, second, lacks)


@pytest.mark.parametrize(
    ("module", "root"), [("example.com/team", ROOT), (f"{ROOT}x", ROOT), (f"{ROOT}/v2", f"{ROOT}/v2/sub")]
)
def test_a_repository_holds_nothing_from_elsewhere(module: str, root: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        Place.of(module, root)


# tags

TAGS = ["v1.0.0", "v1.10.0", "v1.9.0", "v1.2", "v1.2.0+meta", "v2.0.0", "v2.1.0-rc.1", "v3.0.0", "sub/v0.1.0", "latest"]


def test_tags_are_versions_of_the_module_that_they_are_about() -> None:
    assert tagged(Place.of(ROOT, ROOT), TAGS) == Tagged(
        ("v1.0.0", "v1.9.0", "v1.10.0"), ("v2.0.0", "v2.1.0-rc.1", "v3.0.0")
    )
    assert tagged(Place.of(f"{ROOT}/v2", ROOT), TAGS) == Tagged(("v2.0.0", "v2.1.0-rc.1"))
    assert tagged(Place.of(f"{ROOT}/sub", ROOT), TAGS) == Tagged(("v0.1.0",))
    assert tagged(Place.of(f"{ROOT}/other", ROOT), TAGS) == Tagged(())
    assert tagged(Place.of("gopkg.in/app.v2", "gopkg.in/app.v2"), TAGS) == Tagged(("v2.0.0", "v2.1.0-rc.1"))
    assert tagged(Place.of("gopkg.in/app.v2-unstable", "gopkg.in/app.v2-unstable"), TAGS) == Tagged(())


def test_a_tag_that_looks_like_a_commits_version_is_none() -> None:
    assert tagged(Place.of(ROOT, ROOT), ["v0.0.0-20240102030405-0123456789ab", "v1.0.0+incompatible"]) == Tagged(())


def test_a_tag_with_more_behind_says_what_a_commit_comes_after() -> None:
    place = Place.of(f"{ROOT}/sub", ROOT)
    assert place.version("sub/v1.2.3") == ("v1.2.3", True)
    assert place.version("sub/v1.2.3+meta") == ("v1.2.3", False)
    assert place.version("sub/v1.2") == ("", False)
    assert place.version("v1.2.3") == ("", False)
    assert place.tag("v1.2.3") == "sub/v1.2.3"
    assert Place.of(ROOT, ROOT).tag("v2.0.0+incompatible") == "v2.0.0"


def test_the_last_version_of_each_major_one_tells_whether_it_has_go_mods() -> None:
    assert newest_of_majors(["v2.0.0", "v2.10.0", "v2.9.0", "v3.0.0-rc"]) == {"v2": "v2.10.0", "v3": "v3.0.0-rc"}


def test_the_newest_release_says_which_are_retracted_or_the_newest_of_all() -> None:
    assert guide(["v1.0.0", "v1.1.0", "v1.2.0-rc"]) == "v1.1.0"
    assert guide(["v1.2.0-a", "v1.2.0-b"]) == "v1.2.0-b"
    assert guide([]) == ""


# commits


@pytest.mark.parametrize(
    ("major", "base", "version"),
    [
        ("", "", "v0.0.0-20240102030405-0123456789ab"),
        ("v2", "", "v2.0.0-20240102030405-0123456789ab"),
        ("", "v1.2.3", "v1.2.4-0.20240102030405-0123456789ab"),
        ("", "v1.2.9", "v1.2.10-0.20240102030405-0123456789ab"),
        ("", "v1.2.3-rc.1", "v1.2.3-rc.1.0.20240102030405-0123456789ab"),
        ("", "v2.0.0+incompatible", "v2.0.1-0.20240102030405-0123456789ab+incompatible"),
    ],
)
def test_a_commit_has_a_version_after_the_one_that_it_descends_from(major: str, base: str, version: str) -> None:
    made = pseudo(major, base, TIME, COMMIT)
    assert made == version
    assert is_pseudo(made)
    assert base_of(made) == base


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("v1.2.3", "no version of a commit"),
        ("v1.2.0-0.20240102030405-0123456789ab", "before every version"),
        ("v1.0.0-20240102030405-0123456789ab+incompatible", "comes after no version"),
    ],
)
def test_what_comes_after_nothing_is_refused(version: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        base_of(version)


@given(
    st.builds(
        "v{}.{}.{}{}".format,
        st.integers(0, 1),
        st.integers(0, 99),
        st.integers(0, 99),
        st.sampled_from(["", "-rc.1", "-alpha", "-0.x"]),
    )
)
def test_a_commits_version_lies_right_after_its_base(base: str) -> None:
    made = pseudo("", base, TIME, COMMIT)
    assert order(base) < order(made)
    assert is_canonical(ROOT, made)
    assert base_of(made) == base


@pytest.mark.parametrize(
    ("declared", "module", "fits"),
    [
        (ROOT, ROOT, True),
        ("", ROOT, False),
        (f"{ROOT}/v2", ROOT, False),
        ("gopkg.in/yaml.v2", ROOT, True),
        (f"{ROOT}/v2", f"{ROOT}/v2", True),
        ("example.com/fork/v2", f"{ROOT}/v2", True),
        (ROOT, f"{ROOT}/v2", False),
        ("gopkg.in/yaml.v2", "gopkg.in/yaml.v2", True),
        ("gopkg.in/yaml.v3", "gopkg.in/yaml.v2", False),
        ("example.com/x/v1", ROOT, False),
    ],
)
def test_a_go_mod_has_to_declare_the_major_version_that_is_asked_for(declared: str, module: str, fits: bool) -> None:
    assert is_major(declared, Place.of(module, module if "gopkg" in module else ROOT)) is fits


# where the repository is


def page(*contents: str, rest: str = "") -> bytes:
    metas = "".join(f'<meta name="go-import" content="{content}">' for content in contents)
    return f"<!DOCTYPE html><html><head>{metas}</head><body>{rest}</body></html>".encode()


def test_a_page_tells_root_kind_url_and_perhaps_a_folder() -> None:
    text = page(f"{ROOT} git https://git.example.com/app", f"{ROOT}/x git https://git.example.com/x sub/dir", "a b")
    said = read(text)
    assert said == (
        Import(ROOT, "git", "https://git.example.com/app"),
        Import(f"{ROOT}/x", "git", "https://git.example.com/x", "sub/dir"),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not a page at all \xff\xfe",
        page(rest=f'<meta name="go-import" content="{ROOT} git https://evil.test">'),
        f'<head></head><meta name="go-import" content="{ROOT} git https://evil.test">'.encode(),
        f"<script>\"<meta name=go-import content='{ROOT} git https://evil.test'>\"</script>".encode(),
        f'<!-- <meta name="go-import" content="{ROOT} git https://evil.test"> -->'.encode(),
        f'<meta name="go-source" content="{ROOT} git https://evil.test">'.encode(),
        b" " * MAX_PAGE + page(f"{ROOT} git https://evil.test"),
    ],
    ids=["nothing", "noise", "body", "behind the head", "script", "comment", "other name", "far behind"],
)
def test_only_the_head_of_a_page_counts(text: bytes) -> None:
    assert read(text) == ()


def test_a_page_is_read_as_people_write_them() -> None:
    text = f"<HTML><HEAD><META content='{ROOT}\n git  https://git.example.com/a?x=1&amp;y' NAME=go-import /><p>"
    assert read(text.encode()) == (Import(ROOT, "git", "https://git.example.com/a?x=1&y"),)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "says nothing"),
        ([Import("example.com/other", "git", "https://x.test")], "says nothing"),
        ([Import(ROOT, "git", "https://x.test"), Import("example.com", "git", "https://y.test")], "several things"),
        ([Import(ROOT, "hg", "https://x.test")], "repository of 'hg'"),
        ([Import(ROOT, "mod", "https://x.test")], "at a GOPROXY, 'https://x.test'"),
    ],
)
def test_a_page_has_to_say_one_thing_of_git(said: list[Import], why: str) -> None:
    with pytest.raises(LookupError, match=why):
        choose(said, f"{ROOT}/sub")


def test_git_is_chosen_where_a_proxy_is_named_beside() -> None:
    git = Import(ROOT, "git", "https://x.test")
    assert choose([Import(ROOT, "mod", "https://proxy.test"), git], ROOT) == git


@pytest.mark.parametrize("folder", ["/abs", "-x", "a/../b", "a//b", "a/", ".", "a\nb"])
def test_a_folder_lies_within_its_repository(folder: str) -> None:
    assert check_folder("a/b") == "a/b"
    with pytest.raises(ValueError, match="no folder"):
        check_folder(folder)


def test_some_hosts_need_not_be_asked() -> None:
    assert well_known("github.com/Owner/name/sub/v2") == Root("github.com/Owner/name", "https://github.com/Owner/name")
    assert well_known("bitbucket.org/a/b") == Root("bitbucket.org/a/b", "https://bitbucket.org/a/b")
    dotted = "git.example.com/deep/er/app.git"
    assert well_known(f"{dotted}/sub") == Root(dotted, f"https://{dotted}")
    assert well_known("gitlab.com/a/b") is None
    assert well_known("example.git") is None
    assert well_known("example.com/.git") is None


@pytest.mark.parametrize("module", ["github.com", "github.com/owner", "github.com/own~er/name"])
def test_a_path_without_owner_and_name_is_no_repository_there(module: str) -> None:
    with pytest.raises(LookupError, match="names no repository"):
        well_known(module)


def test_the_configuration_names_roots_and_their_urls() -> None:
    urls = Urls(
        {
            "corp.test/*/*": "ssh://git@git.corp.test/*/*.git",
            "corp.test/libs/special": "https://special.test/repo",
            "corp.test/mono": "https://git.corp.test/mono",
        }
    )
    assert urls.find("corp.test/a/b/sub/v2") == Root("corp.test/a/b", "ssh://git@git.corp.test/a/b.git")
    assert urls.find("corp.test/libs/special/x") == Root("corp.test/libs/special", "https://special.test/repo")
    assert urls.find("corp.test/mono") == Root("corp.test/mono", "https://git.corp.test/mono")
    assert urls.find("corp.test/a") is None
    assert urls.find("other.test/a/b") is None


@pytest.mark.parametrize(
    ("root", "url", "why"),
    [
        ("corp.test/a*", "https://x.test/*", "whole element"),
        ("corp.test/*", "https://x.test/a", "same number"),
        ("corp", "https://x.test/a", "lacks a dot"),
    ],
)
def test_what_names_no_root_is_refused(root: str, url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Urls({root: url})
