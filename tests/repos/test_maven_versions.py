"""Versions in Maven's order: the published rules, the pairs of Maven's own tests, and what every order must be."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.maven.versions import ascending, build_of, is_base_snapshot, is_snapshot, order

# What follows is known from ComparableVersionTest, and from "Version Order Specification" of the POM's reference.
ASCENDING = {
    "qualifiers": [
        "1-alpha2snapshot", "1-alpha2", "1-alpha-123", "1-beta-2", "1-beta123", "1-m2", "1-m11", "1-rc", "1-cr2",
        "1-rc123", "1-SNAPSHOT", "1", "1-sp", "1-sp2", "1-sp123", "1-abc", "1-def", "1-pom-1", "1-1-snapshot", "1-1",
        "1-2", "1-123",
    ],
    "numbers": [
        "2.0", "2.0.a", "2-1", "2.0.2", "2.0.123", "2.1.0", "2.1-a", "2.1b", "2.1-c", "2.1-1", "2.1.0.1", "2.2",
        "2.123", "11.a2", "11.a11", "11.b2", "11.b11", "11.m2", "11.m11", "11", "11.a", "11b", "11c", "11m",
    ],
    "ordinary": ["0.7", "1", "1.0.1", "1.1", "1.2", "1.5", "2", "2.0.1", "2.5"],
    "specification": ["1-foo2", "1-foo10", "1.foo", "1-1", "1.1"],
    "ripeness": ["1.0-alpha-1-SNAPSHOT", "1.0-alpha-1", "1.0-alpha-2", "1.0-beta-1", "1.0-SNAPSHOT", "1.0", "1.0-1"],
    "words": ["2.0-1", "2.0.1", "2.0.1-klm", "2.0.1-lmn", "2.0.1-xyz", "2.0.1-123"],
    "MNG-5568": ["6.1.0rc3", "6.1.0", "6.1H.5-beta"],
    "MNG-6572": ["20190126.230843", "1234567890.12345", "123456789012345.1H.5-beta", "12345678901234567890.1H.5-beta"],
    "MNG-6964": ["1-0.alpha", "1-0.beta", "1"],
    "MNG-7714": ["1.0.final-redhat", "1.0-sp1-redhat"],
    "digits are more than letters": ["aardvark", "zebra", "ζέβρα", "\u0668", "1", "9"],
    "known cycle of older Mavens": ["1-alpha", "1", "1.sp.2"],
    "words of release with digits": ["1-ga", "1-ga1", "1-ga2"],
}  # fmt: skip
EQUAL = [
    ["1", "1.0", "1.0.0", "1-0", "1.0-0", "1-ga", "1ga", "1release", "1Final", "1FINAL", "1-0.0", "1.ga", "0001", "1-"],
    ["1a", "1-a", "1.0-a", "1.0.0-a", "1.0a", "1.0.0a", "1A", "1.a", "1.0.a"],
    ["1x", "1-x", "1.0-x", "1.0.0-x", "1.0x", "1.0.0x", "1X"],
    ["1cr", "1rc", "1Cr", "1-rC", "1.0.rc"], ["1a1", "1-alpha-1", "1alpha1", "1.0.0-alpha1", "1.0.0-ALPHA1"],
    ["1b2", "1-beta-2"], ["1m3", "1-milestone-3", "1MileStone3"], ["1.É", "1.é"], ["", "0", "0.0", "ga", "0" * 19],
    ["2-abc", "2.0.abc", "2.0.0.abc"],
]  # fmt: skip

pieces = st.sampled_from(
    ["0", "1", "2", "10", "007", "a", "b", "m", "alpha", "beta", "rc", "snapshot", "ga", "final", "sp", "x", "xyz",
     ".", "-", ".", "-", "_", "é"]
)  # fmt: skip
versions = st.lists(pieces, max_size=7).map("".join)


@pytest.mark.parametrize("name", ASCENDING)
def test_the_published_order(name: str) -> None:
    for lower, higher in combinations(ASCENDING[name], 2):
        if not (name == "specification" and lower.startswith("1-foo") and higher == "1.foo"):
            assert order(lower) < order(higher), (lower, higher)


@pytest.mark.parametrize("name", ["abc", "alpha", "a", "beta", "b", "def", "milestone", "m", "RC"])
def test_a_dot_before_a_word_is_a_dash_as_of_mng_7644(name: str) -> None:
    assert order(f"1.0.0.{name}1") < order(f"1.0.0-{name}2")
    assert order(f"2-{name}") == order(f"2.0.{name}") == order(f"2.0.0.{name}")


@pytest.mark.parametrize("same", EQUAL, ids=lambda same: same[0] or "empty")
def test_versions_that_are_the_same(same: list[str]) -> None:
    assert len({order(version) for version in same}) == 1


@given(versions, versions, versions)
def test_the_order_is_one(one: str, two: str, three: str) -> None:
    """Total and transitive, and the same for everything that it calls equal."""
    low, middle, high = sorted((one, two, three), key=order)
    assert order(low) <= order(middle) <= order(high)
    assert order(low) <= order(high)
    if order(low) == order(high):
        assert order(low) == order(middle)
    for first, second in combinations((one, two), 2):
        assert sum((order(first) < order(second), order(first) == order(second), order(first) > order(second))) == 1


@given(versions)
def test_zeros_and_case_say_nothing(version: str) -> None:
    assert order(version) == order(version.upper()) == order(version.lower())
    if version[-1:].isdigit():
        assert order(f"{version}.0") == order(version) == order(f"{version}-0.0") == order(f"{version}-ga")
        assert order(f"{version}-alpha") < order(f"{version}-SNAPSHOT") < order(version) < order(f"{version}.1")


@given(st.text(max_size=40))
def test_any_text_has_a_place(text: str) -> None:
    assert order(text) == order(text)


def test_an_endless_version_is_no_trouble() -> None:
    assert order("1" * 100_000) > order("9")
    assert order("1x" * 100_000) > order("1") > order("1a" * 100_000)
    assert order("1" + "-" * 100_000) == order("1")


def test_versions_that_the_order_holds_the_same_are_sorted_by_their_text() -> None:
    assert ascending(["1.10", "1", "1.9", "1.0", "1-rc1"]) == ["1-rc1", "1", "1.0", "1.9", "1.10"]


def test_snapshots_and_their_builds() -> None:
    assert build_of("1.0-20240102.030405-6") == ("1.0-SNAPSHOT", "20240102.030405", 6)
    assert build_of("20240102.030405-6") == ("SNAPSHOT", "20240102.030405", 6)
    for version in ("1.0", "1.0-SNAPSHOT", "1.0-20240102.030405-0", "1.0-20240102.030405", "1.0-2024.1-1", "1.0x"):
        assert build_of(version) is None
    assert is_snapshot("1.0-SNAPSHOT")
    assert is_snapshot("SNAPSHOT")
    assert is_snapshot("1.0-20240102.030405-6")
    assert not is_snapshot("1.0")
    assert not is_snapshot("1.0SNAPSHOT")
    assert not is_base_snapshot("1.0-20240102.030405-6")
