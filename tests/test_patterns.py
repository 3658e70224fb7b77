"""Patterns of paths: what they match, which of two says more, and that no path takes them long."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.patterns import PathPattern


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("**", ["", "a", "a/b/c"], []),
        ("a", ["a"], ["", "b", "a/b", "A"]),
        ("a/*", ["a/b", "a/bc"], ["a", "a/b/c", "", "ab/c"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["ab", "b/a", ""]),
        ("**/b", ["b", "a/b", "a/c/b"], ["a/b/c", "ab", ""]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/b"], ["a", "b", "a/b/c"]),
        ("te*m/app-*", ["team/app-", "tem/app-1"], ["team/app", "te/am/app-1", "team/app-1/x"]),
        ("*.example.com/**", ["a.example.com", "a.example.com/x"], ["example.com/x", "aXexample.com"]),
        ("***", [], []),
    ],
)
def test_what_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    if pattern == "***":
        with pytest.raises(ValueError, match="segment by itself"):
            PathPattern.parse(pattern)
        return
    parsed = PathPattern.parse(pattern)
    assert [path for path in (*matching, *others) if parsed.matches(path)] == matching


@pytest.mark.parametrize("text", ["", "/", "/a", "a/", "a//b", "a b", "a\nb", "a\0"])
def test_what_is_no_pattern_is_told_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        PathPattern.parse(text)


def test_the_more_a_pattern_says_the_more_specific_it_is() -> None:
    rising = ["**", "**/b", "*/**", "*", "*/b", "a*/b", "a/**", "a/*", "a/*b", "a/bb*", "a/b/**", "a/b/c/**", "a/b/c"]
    patterns = [PathPattern.parse(text) for text in rising]
    for lower, higher in pairwise(patterns):
        assert lower.specificity < higher.specificity, (lower, higher)
    assert PathPattern.parse("a").specificity > PathPattern.parse("a/**").specificity


def test_a_hostile_path_takes_no_time() -> None:
    began = time.perf_counter()
    assert not PathPattern.parse("/".join(["**", "a*a*a*a*a*b"] * 20)).matches("/".join(["a" * 60] * 200))
    assert time.perf_counter() - began < 2


segments = st.sampled_from(["a", "b", "ab", "*", "a*", "**"])
patterns = st.lists(segments, min_size=1, max_size=4).map("/".join)
paths = st.lists(st.sampled_from(["a", "b", "ab", "abc"]), max_size=4).map("/".join)


def reference(pattern: str) -> re.Pattern[str]:
    """Every path gets a slash at its end, and every segment one of its own."""
    parts = ["(?:[^/]+/)*" if part == "**" else part.replace("*", "[^/]*") + "/" for part in pattern.split("/")]
    return re.compile("".join(parts) + r"\Z")


@given(patterns, paths)
def test_patterns_match_as_their_definition_says(pattern: str, path: str) -> None:
    expected = reference(pattern).match(f"{path}/" if path else "") is not None
    assert PathPattern.parse(pattern).matches(path) == expected
