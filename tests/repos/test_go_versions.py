"""Versions in Go's order, which of them is the latest, and which may belong to which module."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.go.versions import (
    canonical,
    fits,
    is_canonical,
    is_pseudo,
    is_version,
    latest,
    order,
    pseudo_revision,
    pseudo_time,
)

# semver.org, 11, with the `v`.
ASCENDING = [
    "v0.0.0-20240102030405-0123456789ab", "v0.0.0-a", "v0.0.0", "v0.9.9", "v1.0.0-0", "v1.0.0-9", "v1.0.0-10",
    "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.beta", "v1.0.0-beta", "v1.0.0-beta.2", "v1.0.0-beta.11",
    "v1.0.0-rc.1", "v1.0.0", "v1.9.0", "v1.10.0", "v2.0.0+incompatible", "v10.0.0", "v99999999999999999999.0.0",
]  # fmt: skip

numbers = st.integers(0, 12).map(str)
identifiers = st.one_of(numbers, st.from_regex(r"[a-z][0-9a-z-]{0,3}", fullmatch=True))
versions = st.builds(
    lambda core, pre: "v" + ".".join(core) + ("-" + ".".join(pre) if pre else ""),
    st.tuples(numbers, numbers, numbers),
    st.lists(identifiers, max_size=3),
)


def test_the_order_of_versions() -> None:
    assert sorted(set(ASCENDING), key=order) == ASCENDING
    for lower, higher in pairwise(ASCENDING):
        assert order(lower) < order(higher)


@pytest.mark.parametrize(
    "text",
    ["1.0.0", "v", "v1.", "v01.0.0", "v1.0.0-01", "v1.0.0-", "v1.0.0+", "v1.0.0-a..b", "v1-a", "v1.0.0 ", "v1.0.0\n",
     "V1.0.0", "v1.0.0-ä", "v1.0.0.0", "master", "", "v" + "9" * 300],
)  # fmt: skip
def test_what_is_no_version(text: str) -> None:
    assert not is_version(text)
    assert canonical(text) == ""
    with pytest.raises(ValueError, match="not a version"):
        order(text)


def test_canonical_versions() -> None:
    assert canonical("v1") == "v1.0.0"
    assert canonical("v1.2") == "v1.2.0"
    assert canonical("v1.2.3+meta") == "v1.2.3"
    assert canonical("v2.0.0+incompatible") == "v2.0.0+incompatible"
    assert canonical("v1.2.3-rc.1") == "v1.2.3-rc.1"


@given(versions)
def test_what_is_canonical_stays_so(version: str) -> None:
    assert canonical(version) == version
    assert canonical(version + "+x.y") == version


@given(st.lists(versions, min_size=1))
def test_latest_is_a_release_if_there_is_one(found: list[str]) -> None:
    best = latest(found)
    releases = [version for version in found if "-" not in version]
    assert best == max(releases or found, key=order)


@pytest.mark.parametrize(
    ("version", "time", "revision"),
    [
        ("v0.0.0-20240102030405-0123456789ab", "20240102030405", "0123456789ab"),
        ("v1.2.4-0.20240102030405-0123456789ab", "20240102030405", "0123456789ab"),
        ("v1.2.3-rc.1.0.20240102030405-0123456789ab", "20240102030405", "0123456789ab"),
        ("v3.0.0-20240102030405-0123456789ab+incompatible", "20240102030405", "0123456789ab"),
    ],
)
def test_the_shapes_of_pseudo_versions(version: str, time: str, revision: str) -> None:
    assert is_pseudo(version)
    assert pseudo_time(version) == time
    assert pseudo_revision(version) == revision


@pytest.mark.parametrize(
    "version", ["v1.2.3", "v1.2.3-rc.1", "v1.2.3-20240102030405-0123456789ab", "v0.0.0-2024010203040-0123456789ab",
                "v0.0.0-20240102030405", "v0.0.0-20240102030405-01.23", "v0.1-20240102030405-0123456789ab"]
)  # fmt: skip
def test_what_only_looks_like_one(version: str) -> None:
    assert not is_pseudo(version)
    assert pseudo_time(version) == pseudo_revision(version) == ""


def test_latest_of_commits_is_the_newest_whatever_it_comes_after() -> None:
    older = "v1.2.4-0.20230102030405-0123456789ab"
    newer = "v0.0.0-20240102030405-0123456789ab"
    assert latest([older, newer]) == newer
    assert latest([older, newer, "v0.0.1-rc.1"]) == "v0.0.1-rc.1"
    assert latest([older, "v0.0.1", "v0.0.2-rc.1", "junk"]) == "v0.0.1"
    assert latest(["v1.9.0", "v1.10.0"]) == "v1.10.0"
    assert latest(["junk"]) == latest([]) == ""


@pytest.mark.parametrize(
    ("path", "version", "expected"),
    [
        ("example.com/a", "v1.0.0", True),
        ("example.com/a", "v0.1.0", True),
        ("example.com/a", "v2.0.0", False),
        ("example.com/a", "v2.0.0+incompatible", True),
        ("example.com/a/v2", "v2.0.0", True),
        ("example.com/a/v2", "v3.0.0", False),
        ("example.com/a/v2", "v1.0.0", False),
        ("gopkg.in/yaml.v2", "v2.4.0", True),
        ("gopkg.in/yaml.v2-unstable", "v2.4.0", True),
        ("gopkg.in/yaml.v1", "v0.0.0-20240102030405-0123456789ab", True),
        ("gopkg.in/yaml.v2", "v0.0.0-20240102030405-0123456789ab", False),
        ("example.com/a", "master", False),
    ],
)
def test_a_modules_path_tells_its_major_version(path: str, version: str, expected: bool) -> None:
    assert fits(path, version) is expected
    assert is_canonical(path, version) is expected


def test_a_short_version_is_not_for_good() -> None:
    assert fits("example.com/a", "v1.2")
    assert not is_canonical("example.com/a", "v1.2")
    assert not is_canonical("example.com/a", "v1.2.3+meta")
    assert not is_canonical("example.com/a", "")
