"""Heads of requests and answers, judged without a connection."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.message import Headers
from mxart.proto.http2_head import Fields, Head, Malformed, Refused, judge_trailers, read_head, response_fields

GET: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example:8443"), (b":path", b"/v2/?x")]


def test_a_head_becomes_what_a_handler_needs() -> None:
    fields = [*GET, (b"accept", b"a"), (b"accept", b"b"), (b"x", b"caf\xe9"), (b"content-length", b"7")]
    head = read_head([*fields, (b"expect", b"100-Continue")], 65536)
    assert isinstance(head, Head)
    assert (head.method, head.target, head.authority, head.length) == ("GET", "/v2/?x", "a.example:8443", 7)
    assert head.expects
    assert head.headers.get_all("accept") == ["a", "b"]
    assert head.headers.get("x") == "café"


def test_the_size_counts_as_the_specification_does() -> None:
    size = sum(32 + len(name) + len(value) for name, value in GET)
    assert isinstance(read_head(GET, size), Head)
    refused = read_head(GET, size - 1)
    assert isinstance(refused, Refused)
    assert refused.status == 431


def test_options_of_the_server_and_trailers() -> None:
    fields: Fields = [(b":method", b"OPTIONS"), *GET[1:3], (b":path", b"*"), (b"te", b"trailers")]
    head = read_head(fields, 65536)
    assert isinstance(head, Head)
    assert head.target == "*"
    assert judge_trailers([(b"checksum", b"1")]) is None
    for bad in ((b":status", b"200"), (b"Upper", b""), (b"x", b"a\nb"), (b"transfer-encoding", b"chunked")):
        assert isinstance(judge_trailers([bad]), Malformed)


def test_a_connect_says_where_to_in_its_authority_and_nowhere_else() -> None:
    """RFC 9113 section 8.5; and no other protocol within (RFC 8441), which we never offered."""
    method, authority = (b":method", b"CONNECT"), (b":authority", b"a.test:443")
    assert isinstance(read_head([method, authority], 65536), Head)
    for fields in (
        [method],
        [method, (b"host", b"a.test:443")],
        [method, authority, (b"host", b"b.test:443")],
        [method, authority, (b":path", b"/")],
        [method, authority, (b":scheme", b"https")],
        [method, authority, (b":scheme", b"https"), (b":path", b"/"), (b":protocol", b"websocket")],
        [method, (b":authority", b"x@a.test:443")],
    ):
        assert isinstance(read_head(fields, 65536), Malformed)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b":method", b":path", b":scheme", b":authority", b"host", b"content-length", b"te", b"cookie"]
            )
            | st.binary(max_size=8),
            st.sampled_from([b"GET", b"/", b"https", b"a.example", b"5"]) | st.binary(max_size=8),
        ),
        max_size=10,
    )
)
def test_whatever_comes_is_judged(fields: Fields) -> None:
    head = read_head(fields, 65536)
    if isinstance(head, Head):
        assert re.fullmatch(r"[!-~]+", head.target)
        assert re.fullmatch(r"[!-~]+", head.authority)
        for name, value in head.headers:
            assert name == name.lower()
            assert not set(":\r\n\0 ") & set(name)
            assert not set("\r\n\0") & set(value)
            assert value == value.strip(" \t")


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=4))
def test_nothing_is_sent_that_could_be_taken_for_something_else(fields: list[tuple[str, str]]) -> None:
    try:
        sent = response_fields(200, Headers(fields), 3, "now")
    except ValueError:
        return
    for name, value in sent[1:]:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9a-z]+", name)
        assert not set(b"\r\n\0") & set(value)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, 1000])
def test_only_final_answers_are_sent(status: int) -> None:
    with pytest.raises(ValueError, match="final answer"):
        response_fields(status, Headers(), None, "now")
