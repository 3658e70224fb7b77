"""The parts that only decide: challenges, URLs, times, the breaker."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.upstream.breaker import _TABLE, FAILURES, FIRST_REST, LONGEST_REST, Breaker, Event, State
from mxart.upstream.challenge import Challenge, parse_challenges
from mxart.upstream.failure import RULES, Cause, status_trouble
from mxart.upstream.timing import Patience, parse_retry_after, pause
from mxart.upstream.url import Url, keeps_credentials, registrable_domain, same_site


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'Bearer realm="https://a.example/token",service="r",scope="repository:x/y:pull,push"',
            [("bearer", {"realm": "https://a.example/token", "service": "r", "scope": "repository:x/y:pull,push"})],
        ),
        (
            "bEARER REALM=https://a/v2/token,Service=gcr.io",
            [("bearer", {"realm": "https://a/v2/token", "service": "gcr.io"})],
        ),
        (
            'Basic realm="a, b", Bearer realm="https://a"',
            [("basic", {"realm": "a, b"}), ("bearer", {"realm": "https://a"})],
        ),
        ("Negotiate", [("negotiate", {})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YII=, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm = "x" , scope = "a b"', [("bearer", {"realm": "x", "scope": "a b"})]),
        ('Bearer realm="a\\"b"', [("bearer", {"realm": 'a"b'})]),
        ('Bearer realm="never closed', [("bearer", {"realm": "never closed"})]),
        ('Bearer realm="a"scope="b"', [("bearer", {"realm": "a", "scope": "b"})]),
        ("Bearer error=invalid_token, realm=x", [("bearer", {"error": "invalid_token", "realm": "x"})]),
        ('scope="orphan", Bearer realm=x', [("bearer", {"realm": "x"})]),
        ("Bearer realm=first, realm=second", [("bearer", {"realm": "first"})]),
        (
            'Bearer realm="https://h:5000/t",scope="repository:h:5000/x:pull repository:y:pull"',
            [("bearer", {"realm": "https://h:5000/t", "scope": "repository:h:5000/x:pull repository:y:pull"})],
        ),
        ("", []),
        (",,, ;;;", []),
    ],
)
def test_challenges_are_read_as_registries_write_them(line: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([line]) == [Challenge(scheme, parameters) for scheme, parameters in expected]


def test_several_fields_hold_several_challenges() -> None:
    assert [found.scheme for found in parse_challenges(["Basic realm=x", "Bearer realm=y"])] == ["basic", "bearer"]


@given(st.text())
def test_no_challenge_is_an_accident(line: str) -> None:
    for found in parse_challenges([line]):
        assert found.scheme == found.scheme.lower()


_WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


@given(st.dictionaries(_WORDS, st.text(st.characters(codec="latin-1", exclude_characters="\r\n"))), _WORDS)
def test_what_is_quoted_comes_out_as_it_went_in(parameters: dict[str, str], scheme: str) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    line = f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
    assert parse_challenges([line]) == [Challenge(scheme, parameters)]


@pytest.mark.parametrize(
    ("base", "reference", "expected"),
    [
        ("https://a/v2/x", "/y?z=1", "https://a/y?z=1"),
        ("https://a/v2/x", "y", "https://a/v2/y"),
        ("https://a/v2/x", "//b:8443/y", "https://b:8443/y"),
        ("https://a/v2/x", "?q", "https://a/v2/x?q"),
        ("https://a/v2/x", "https://B/y#frag", "https://b/y"),
        ("https://a/v2/x", "/a b/%20c", "https://a/a%20b/%20c"),
        ("http://[::1]:5000/x", "/y", "http://[::1]:5000/y"),
        ("https://a:443/x", "y", "https://a/y"),
    ],
)
def test_a_location_leads_where_browsers_go(base: str, reference: str, expected: str) -> None:
    url = Url.parse(base).join(reference)
    assert f"{url.origin}{url.target}" == expected


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a/",
        "https://",
        "https://u:p@a/",
        "https://a:99999/",
        "file:///etc",
        "javascript:0",
        "https://a\\@b/",
        "http://[::1/",
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Url.parse(text)


@given(st.text(), st.text())
def test_no_location_is_an_accident(base: str, reference: str) -> None:
    for text in (base, reference):
        try:
            Url.parse("https://a.example/x").join(text)
        except ValueError:
            continue


def test_a_signed_url_is_never_shown() -> None:
    assert "secret" not in str(Url.parse("https://a/x?sig=secret"))
    assert "secret" not in repr(Url.parse("https://a/x?sig=secret"))


def test_a_path_is_put_below_the_mirrors_own() -> None:
    assert Url.parse("https://a/base/").child("v2/x?y=1").target == "/base/v2/x?y=1"
    assert Url.parse("https://a").child("v2/x").target == "/v2/x"


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("auth.docker.io", "docker.io"), ("docker.io", "docker.io"), ("a.b.co.uk", "b.co.uk"),
        ("x.azurecr.io", "x.azurecr.io"),
        ("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("a.example.", "a.example"),
    ],
)  # fmt: skip
def test_registrable_domains(host: str, domain: str) -> None:
    assert registrable_domain(host) == domain


def test_credentials_stay_where_they_belong() -> None:
    def origin(text: str):
        return Url.parse(text).origin

    assert same_site(origin("https://registry-1.docker.io"), origin("https://auth.docker.io"))
    assert not same_site(origin("https://registry-1.docker.io"), origin("https://evil.example"))
    assert not same_site(origin("https://a.docker.io"), origin("http://auth.docker.io"))
    assert not same_site(origin("https://a.azurecr.io"), origin("https://b.azurecr.io"))
    assert keeps_credentials(origin("http://a"), origin("https://a"))
    assert not keeps_credentials(origin("https://a"), origin("http://a"))
    assert not keeps_credentials(origin("https://a"), origin("https://a:8443"))
    assert not keeps_credentials(origin("https://a"), origin("https://b.a"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), ("5", 5.0), (" 0 ", 0.0), ("1.5", 1.5), ("99999999", 3600.0), ("-3", None), ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Thu, 99 Jan 1970", None),
    ],
)  # fmt: skip
def test_retry_after_in_both_forms(value: str | None, expected: float | None) -> None:
    assert parse_retry_after(value, 1000.0) == expected


def test_a_retry_after_that_is_a_point_in_time_is_taken_for_one() -> None:
    assert parse_retry_after("1700000030", 1_700_000_000.0) == 30.0


@given(st.text())
def test_no_retry_after_is_an_accident(value: str) -> None:
    found = parse_retry_after(value, 1e9)
    assert found is None or 0 <= found <= 3600


@given(st.integers(0, 10000))
def test_pauses_grow_within_bounds(attempt: int) -> None:
    found = pause(Patience(first_pause=0.5, longest_pause=4.0), attempt, random.Random(attempt))
    assert 0.25 <= found <= 4.0


def test_every_cause_has_a_rule_and_every_status_a_cause() -> None:
    assert set(RULES) == set(Cause)
    assert status_trouble(599, "").cause is Cause.SERVER
    assert status_trouble(418, "").cause is Cause.STATUS


def test_the_breakers_table_is_complete() -> None:
    assert set(_TABLE) == {(state, event) for state in State for event in Event}


def test_a_breaker_opens_after_failures_in_a_row_and_closes_by_itself() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.wait(0.0) is None
        breaker.note(Event.ADMITTED, 0.0)
        breaker.note(Event.FAILED, 0.0)
    assert breaker.wait(0.0) == FIRST_REST
    assert breaker.wait(FIRST_REST) is None
    breaker.note(Event.ADMITTED, FIRST_REST)
    assert breaker.wait(FIRST_REST) is not None  # one probe at a time
    breaker.note(Event.FAILED, FIRST_REST)
    assert breaker.wait(FIRST_REST) == 2 * FIRST_REST
    breaker.note(Event.ADMITTED, 3 * FIRST_REST)
    breaker.note(Event.ABANDONED, 3 * FIRST_REST)
    assert breaker.wait(3 * FIRST_REST) is None
    breaker.note(Event.ADMITTED, 3 * FIRST_REST)
    breaker.note(Event.ANSWERED, 3 * FIRST_REST)
    assert breaker.state is State.CLOSED


def test_a_success_in_between_keeps_it_closed() -> None:
    breaker = Breaker()
    for _ in range(FAILURES * 3):
        for event in (Event.FAILED, Event.SUCCEEDED):
            breaker.note(Event.ADMITTED, 0.0)
            breaker.note(event, 0.0)
    assert breaker.wait(0.0) is None


@given(st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 30))))
def test_a_breaker_always_opens_again_in_time(history: list[tuple[Event, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for event, later in history:
        now += later
        if event is not Event.ADMITTED or breaker.wait(now) is None:
            breaker.note(event, now)
    if breaker.state is not State.PROBING:  # its probe is still to be told of
        assert breaker.wait(now + LONGEST_REST) is None
