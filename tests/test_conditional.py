from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxart.body import Body, Span
from mxart.conditional import (
    MAX_RANGES,
    Failed,
    NotModified,
    Ranges,
    Unsatisfiable,
    Verdict,
    Whole,
    evaluate,
    parse_date,
    respond,
)
from mxart.message import Headers, Peer, Request

ETAG = '"v1"'
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
EARLIER = "Wed, 21 Oct 2015 07:27:59 GMT"
LATER = "Wed, 21 Oct 2015 07:28:01 GMT"


def judge(method: str = "GET", size: int | None = 1000, etag: str = ETAG, date: str = DATE, **fields: str) -> Verdict:
    headers = Headers([(name.replace("_", "-"), value) for name, value in fields.items()])
    return evaluate(method, headers, etag, date, size)


@pytest.mark.parametrize(
    "field",
    ['"v1"', 'W/"v1"', '"v0", "v1"', '"v0",W/"v1" , "v2"', "*", ' "v1"', ',,"v1",', '"a,b", "v1"', 'junk, "v1"'],
)
def test_a_client_that_has_it_is_told_so(field: str) -> None:
    assert judge(if_none_match=field) == NotModified()
    assert judge("HEAD", if_none_match=field) == NotModified()
    assert judge("PUT", if_none_match=field) == Failed()


@pytest.mark.parametrize("field", ['"v0"', "v1", '"v1', 'v1"', "", '"v1"x', '"x"v1"', 'w/"v1"', "**"])
def test_a_client_that_has_something_else_gets_the_whole(field: str) -> None:
    assert judge(if_none_match=field) == Whole()
    assert judge("PUT", if_none_match=field) == Whole()


def test_if_none_match_outranks_if_modified_since() -> None:
    assert judge(if_none_match='"v0"', if_modified_since=LATER) == Whole()
    assert judge(if_none_match='"v1"', if_modified_since=EARLIER) == NotModified()


def test_not_modified_since() -> None:
    assert judge(if_modified_since=DATE) == NotModified()
    assert judge(if_modified_since=LATER) == NotModified()
    assert judge(if_modified_since=EARLIER) == Whole()
    assert judge(if_modified_since="yesterday") == Whole()
    assert judge(if_modified_since=DATE, date="") == Whole()
    assert judge("PUT", if_modified_since=DATE) == Whole()


def test_if_match_compares_strongly() -> None:
    assert judge(if_match='"v1"') == Whole()
    assert judge(if_match='"v0", "v1"') == Whole()
    assert judge(if_match="*") == Whole()
    assert judge(if_match='"v0"') == Failed()
    assert judge(if_match='W/"v1"') == Failed()
    assert judge(if_match='W/"v1"', etag='W/"v1"') == Failed()
    assert judge(if_match="v1") == Failed()
    assert judge(if_match='"v1"', etag="") == Failed()


def test_unmodified_since() -> None:
    assert judge(if_unmodified_since=DATE) == Whole()
    assert judge(if_unmodified_since=EARLIER) == Failed()
    assert judge(if_unmodified_since="junk") == Whole()
    assert judge(if_unmodified_since=EARLIER, if_match=ETAG) == Whole(), "If-Match outranks it"


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("bytes=0-0", ((0, 1),)),
        ("bytes=0-999", ((0, 1000),)),
        ("bytes=500-", ((500, 500),)),
        ("bytes=-200", ((800, 200),)),
        ("bytes=-5000", ((0, 1000),)),
        ("bytes=999-5000", ((999, 1),)),
        ("BYTES=1-2", ((1, 2),)),
        ("bytes=0-9, 20-29", ((0, 10), (20, 10))),
        ("bytes=20-29,0-9", ((20, 10), (0, 10))),
        ("bytes= 0-9 ,, 20-29 ,", ((0, 10), (20, 10))),
        ("bytes=0-9,10-19", ((0, 10), (10, 10))),
        ("bytes=0-9,5-19", ((0, 20),)),
        ("bytes=50-59,0-9,5-55", ((0, 60),)),
        ("bytes=0-9,5000-6000", ((0, 10),)),
        ("bytes=0-" + "9" * 5000, ((0, 1000),)),
    ],
)
def test_ranges_are_as_asked(field: str, parts: tuple[tuple[int, int], ...]) -> None:
    assert judge(range=field) == Ranges(parts)
    assert judge("HEAD", range=field) == Whole()
    assert judge("PUT", range=field) == Whole()
    assert judge(range=field, size=None) == Whole()
    assert judge(range=field, size=0) == Whole()


@pytest.mark.parametrize(
    "field",
    ["bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=1-2-3", "bytes=+1-2", "bytes=0x1-2",
     "bytes=1 - 2", "lines=1-2", "bytes:1-2", "", "bytes=٣-٤", "bytes==0-1"],
)  # fmt: skip
def test_a_range_that_is_not_understood_is_ignored(field: str) -> None:
    assert judge(range=field) == Whole()


@pytest.mark.parametrize(
    "field", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=5000-6000,7000-", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_past_the_end_cannot_be_satisfied(field: str) -> None:
    assert judge(range=field) == Unsatisfiable()


@pytest.mark.parametrize("field", ["bytes=5-4", "bytes=500-0", "bytes=0-1,5-4"])
def test_a_range_that_ends_before_it_begins_is_rejected(field: str) -> None:
    assert judge(range=field) == Unsatisfiable()


def test_too_many_ranges_are_answered_with_the_whole() -> None:
    specs = [f"{2 * i}-{2 * i}" for i in range(MAX_RANGES + 1)]
    assert judge(range="bytes=" + ",".join(specs)) == Whole()
    assert judge(range="bytes=" + ",".join(specs[1:])) != Whole()


def test_if_range_lets_only_the_same_bytes_be_continued() -> None:
    part = Ranges(((1, 2),))
    assert judge(range="bytes=1-2", if_range=ETAG) == part
    assert judge(range="bytes=1-2", if_range=DATE) == part
    assert judge(range="bytes=1-2", if_range="Wednesday, 21-Oct-15 07:28:00 GMT") == part
    assert judge(range="bytes=1-2", if_range='"v0"') == Whole()
    assert judge(range="bytes=1-2", if_range='W/"v1"') == Whole()
    assert judge(range="bytes=1-2", if_range='W/"v1"', etag='W/"v1"') == Whole()
    assert judge(range="bytes=1-2", if_range=LATER) == Whole()
    assert judge(range="bytes=1-2", if_range=DATE, date="") == Whole()
    assert judge(range="bytes=1-2", if_range="junk") == Whole()
    assert judge(range="bytes=5000-", if_range='"v0"') == Whole()


def test_preconditions_come_before_ranges() -> None:
    assert judge(range="bytes=5000-", if_none_match=ETAG) == NotModified()
    assert judge(range="bytes=1-2", if_match='"v0"') == Failed()


def test_fields_sent_on_several_lines_are_one_list() -> None:
    headers = Headers([("range", "bytes=0-1"), ("if-none-match", '"v0"'), ("if-none-match", ETAG)])
    assert evaluate("GET", headers, ETAG, "", 10) == NotModified()
    assert evaluate("GET", Headers([("range", "bytes=0-1"), ("range", "4-5")]), ETAG, "", 10) == Ranges(
        ((0, 2), (4, 2))
    )


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_dates_are_read_in_all_three_forms(when: datetime) -> None:
    moment = when.replace(microsecond=0)
    assert parse_date(format_datetime(moment, usegmt=True)) == moment
    assert (
        parse_date(
            moment.strftime("%a %b ") + f"{moment.day:2d}" + moment.strftime(" %H:%M:%S ") + f"{moment.year:04d}"
        )
        == moment
    )
    if 1970 <= moment.year < 2070:
        assert parse_date(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT")) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "2015-10-21T07:28:00Z",
        "Wed, 31 Feb 2015 07:28:00 GMT",
        "Wed, 21 Okt 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 25:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +0200",
    ],
)
def test_what_is_not_a_date_is_none(text: str) -> None:
    assert parse_date(text) is None


spec = st.one_of(
    st.builds("{}-{}".format, st.integers(0, 60), st.integers(0, 60)),
    st.builds("{}-".format, st.integers(0, 60)),
    st.builds("-{}".format, st.integers(0, 60)),
)


def wanted_bytes(specs: list[str], size: int) -> set[int] | None:
    """The simple model: which positions were asked for; None if the field is invalid."""
    wanted: set[int] = set()
    for text in specs:
        first, _, last = text.partition("-")
        if not first:
            wanted |= set(range(max(0, size - int(last)), size))
        elif not last:
            wanted |= set(range(int(first), size))
        elif int(last) < int(first):
            return None
        else:
            wanted |= set(range(int(first), min(int(last) + 1, size)))
    return wanted


@given(st.lists(spec, min_size=1, max_size=12), st.integers(1, 50))
@example(["20-29", "0-9", "5-25"], 50)
def test_ranges_hold_exactly_the_bytes_asked_for_each_once(specs: list[str], size: int) -> None:
    verdict = judge(range="bytes=" + ",".join(specs), size=size)
    wanted = wanted_bytes(specs, size)
    if not wanted:
        assert verdict == Unsatisfiable()
    else:
        assert isinstance(verdict, Ranges)
        got = [position for start, length in verdict.parts for position in range(start, start + length)]
        assert sorted(got) == sorted(wanted)
        assert all(length > 0 for _, length in verdict.parts)


@given(st.text(max_size=40), st.sampled_from(["range", "if-range", "if-match", "if-none-match", "if-modified-since"]))
def test_no_field_value_can_do_harm(value: str, name: str) -> None:
    fields = Headers([("range", "bytes=0-1"), (name, value)])
    evaluate("GET", fields, ETAG, DATE, 10)


# --- respond ------------------------------------------------------------------------------------

CONTENT = bytes(range(100))
FIELDS = Headers([("content-type", "application/octet-stream"), ("docker-content-digest", "sha256:0")])


class Closing:
    """A source of which only its closing matters."""

    total: int | None = 100

    def __init__(self) -> None:
        self.closed = False

    def fileno(self) -> int:
        raise AssertionError("nobody reads here")

    def ready(self, offset: int) -> int:
        raise AssertionError("nobody reads here")

    async def available(self, offset: int) -> int:
        raise AssertionError("nobody reads here")

    def close(self) -> None:
        self.closed = True


def ask(method: str = "GET", **fields: str) -> Request:
    headers = Headers([(name.replace("_", "-"), value) for name, value in fields.items()])
    return Request(method, "/", "example.com", headers, Peer("127.0.0.1", 1))


def flat(body: Body) -> bytes:
    return b"".join(
        segment if isinstance(segment, bytes) else CONTENT[segment.offset : segment.offset + (segment.length or 0)]
        for segment in body.segments
    )


def test_the_whole_comes_with_its_validators() -> None:
    response = respond(ask(), FIELDS, CONTENT, etag=ETAG, last_modified=DATE)
    assert response.status == 200
    assert flat(response.body) == CONTENT
    assert dict(response.headers) == {
        **dict(FIELDS), "etag": ETAG, "last-modified": DATE, "accept-ranges": "bytes",
    }  # fmt: skip


def test_a_source_of_unknown_length_is_sent_to_its_end_and_promises_no_ranges() -> None:
    source = Closing()
    source.total = None
    response = respond(ask(range="bytes=0-1"), FIELDS, source, etag=ETAG)
    assert (response.status, response.body.length) == (200, None)
    assert response.body.segments == (Span(source, 0, None),)
    assert "accept-ranges" not in response.headers
    assert not source.closed


def test_one_range_says_where_it_is_from() -> None:
    response = respond(ask(range="bytes=-10"), FIELDS, CONTENT, etag=ETAG)
    assert (response.status, flat(response.body)) == (206, CONTENT[90:])
    assert response.headers.get("content-range") == "bytes 90-99/100"
    assert response.headers.get("content-type") == "application/octet-stream"


@pytest.mark.parametrize("content", [CONTENT, Closing()])
def test_several_ranges_are_parts_of_one_message(content: bytes | Closing) -> None:
    response = respond(ask(range="bytes=50-59,0-9,-1"), FIELDS, content, etag=ETAG)
    body = flat(response.body)
    assert response.status == 206
    assert response.body.length == len(body)
    assert "content-range" not in response.headers
    kind = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]{32})", response.headers.get("content-type") or "")
    assert kind is not None
    mark = b"--" + kind[1].encode()
    assert body.startswith(mark + b"\r\n")
    assert body.endswith(b"\r\n" + mark + b"--\r\n")
    parts = [part.removeprefix(b"\r\n").removesuffix(b"\r\n") for part in body.split(mark)[1:-1]]
    assert parts == [
        b"Content-Type: application/octet-stream\r\nContent-Range: bytes 50-59/100\r\n\r\n" + CONTENT[50:60],
        b"Content-Type: application/octet-stream\r\nContent-Range: bytes 0-9/100\r\n\r\n" + CONTENT[0:10],
        b"Content-Type: application/octet-stream\r\nContent-Range: bytes 99-99/100\r\n\r\n" + CONTENT[99:],
    ]


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"if_none_match": ETAG}, 304), ({"if_match": '"v0"'}, 412), ({"range": "bytes=100-"}, 416)],
)
def test_a_source_that_is_not_sent_is_closed(fields: dict[str, str], status: int) -> None:
    source = Closing()
    response = respond(ask(**fields), FIELDS, source, etag=ETAG)
    assert (response.status, response.body.length) == (status, 0)
    assert source.closed
    assert "content-type" not in response.headers
    assert response.headers.get("etag") == ETAG
    assert response.headers.get("docker-content-digest") == "sha256:0"
    assert response.headers.get("content-range") == ("bytes */100" if status == 416 else None)


def test_head_has_the_body_that_get_would_have() -> None:
    source = Closing()
    response = respond(ask("HEAD", range="bytes=0-1"), FIELDS, source, etag=ETAG)
    assert (response.status, response.body.length, source.closed) == (200, 100, False)


def test_the_date_of_the_standard_library_is_read() -> None:
    assert parse_date(formatdate(usegmt=True)) is not None
