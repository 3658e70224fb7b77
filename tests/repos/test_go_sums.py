"""What a look-up says of a version, and which modules no database may hear of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.settings import configured
from kit.sumdb import Database, sum_of
from mxart.build_trust import Trust
from mxart.errors import ConfigError
from mxart.repos.go.notes import SignerKey, VerifierKey
from mxart.repos.go.sums import SUM_GOLANG_ORG, Private, Record, Sums
from mxart.repos.go.sums import Database as Setting


def test_a_look_up_tells_the_sums_of_its_version() -> None:
    database = Database()
    database.fill(3)
    database.add("github.com/Azure/x", "v1.2.3", sum_of("zip"), sum_of("mod"))
    record = Record.parse(database.lookup("github.com/Azure/x", "v1.2.3"))
    assert record.number == 3
    assert record.note == database.note()
    assert record.sums("github.com/Azure/x", "v1.2.3") == Sums(sum_of("zip"), sum_of("mod"))
    for module, version in (("github.com/azure/x", "v1.2.3"), ("github.com/Azure/x", "v1.2")):
        with pytest.raises(ValueError, match="says nothing of"):
            record.sums(module, version)


@pytest.mark.parametrize(
    "data",
    [b"", b"7", b"7\n", b"7\n\n\n", b"-7\na v1 h1:x\n\nnote", b"07\na\n\nnote", b"7\na\0b\n\nnote", b"7\n\xff\n\nnote",
     b"<!DOCTYPE html>\n<p>Log in\n\nhere</p>\n"],
)  # fmt: skip
def test_what_is_no_look_up_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="no record of a checksum database"):
        Record.parse(data)


@given(st.binary(max_size=200))
def test_noise_breaks_nothing(data: bytes) -> None:
    try:
        record = Record.parse(data)
    except ValueError:
        return
    with pytest.raises(ValueError, match="says nothing"):
        record.sums("example.org/m", "v1.0.0")


def test_sums_of_a_kind_that_is_not_known_are_passed_over() -> None:
    text = f"0\nm v1 h2:AAAA\nm v1 {sum_of('z')}\nm v1/go.mod {sum_of('m')}\n\nnote"
    assert Record.parse(text.encode()).sums("m", "v1") == Sums(sum_of("z"), sum_of("m"))


PATTERNS = [
    ("example.com", "example.com/a/b", True),
    ("example.com", "example.community/a", False),
    ("example.com/a", "example.com", False),
    ("example.com/*", "example.com/a/b/c", True),
    ("example.com/*/c", "example.com/a/b/c", False),
    ("example.com/*/b", "example.com/a/b/c", True),
    ("*.corp.example.com", "git.corp.example.com/x", True),
    ("*.corp.example.com", "corp.example.com/x", False),
    ("*.corp.example.com/team", "git.corp.example.com/team2", False),
    ("github.com/MyOrg", "github.com/MyOrg/x", True),
    ("github.com/MyOrg", "github.com/myorg/x", False),
    ("github.com/MyOrg", "github.com/!my!org/x", False),
    ("github.com/[a-cM]?Org/", "github.com/MyOrg/x", True),
    ("github.com/[^a-c]*", "github.com/bee", False),
    ("github.com/[^a-c]*", "github.com/dog", True),
    ("a.b/[z-a]x", "a.b/zx", False),
    (r"a.b/\*", "a.b/*", True),
    (r"a.b/\*", "a.b/x", False),
    ("one.example, two.example/x", "two.example/x/y", True),
    ("*", "anything.example/x", True),
    ("", "anything.example/x", False),
    (",/,", "anything.example/x", False),
]


@pytest.mark.parametrize(("pattern", "module", "private"), PATTERNS)
def test_patterns_are_those_of_goprivate(pattern: str, module: str, private: bool) -> None:
    assert (module in Private([pattern])) is private


@pytest.mark.parametrize("pattern", ["[", "a[", "a[]", "a[]b", "a[a", "a[a-", "a[a-]", "a[-]", "a\\", "[^", r"[\\"])
def test_a_pattern_that_the_go_command_would_pass_over_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no pattern as GOPRIVATE takes it"):
        Private([f"example.com/{pattern}"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('sumdb = "sums.example.test"', r"repository\.m\.sumdb: .*NAME\+HASH\+KEY"),
        ('private = ["example.com/["]', r"repository\.m\.private: .*no pattern"),
    ],
)
def test_a_configuration_that_is_wrong_is_told_at_the_start(line: str, why: str) -> None:
    text = f'[repository.m]\nformat = "go"\nkind = "proxy"\nupstream = "https://proxy.example"\n{line}\n'
    with pytest.raises(ConfigError, match=why):
        Trust.read(configured(text))


KEY = str(SignerKey.generate("sums.example.test").verifier)


def test_the_database_is_named_as_gosumdb_names_it() -> None:
    public = VerifierKey.parse(SUM_GOLANG_ORG)
    named = Setting.parse(f"{KEY} https://host.example/sums")
    assert named is not None
    assert (str(named.key), named.url) == (KEY, "https://host.example/sums")
    assert Setting.parse("") == Setting.parse("sum.golang.org") == Setting(public)
    assert Setting.parse("sum.golang.google.cn") == Setting(public, "https://sum.golang.google.cn")
    assert Setting.parse("off") is None
    assert Setting.parse(KEY) == Setting(VerifierKey.parse(KEY))


@pytest.mark.parametrize(
    "text",
    [
        "sums.example.test",
        "on",
        "off https://host.example",
        f"{KEY} ftp://host.example",
        f"{KEY} https://a@b",
        f"{KEY} x y",
    ],
    ids=lambda text: text.replace(KEY, "KEY"),
)
def test_what_is_no_database_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="NAME"):
        Setting.parse(text)
