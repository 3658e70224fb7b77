from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.message import Headers
from mxart.proto.heads import BadHead, Head, Memo, read_head, recall, remember, render_head


def parsed(raw: bytes) -> Head | None:
    """The ordinary way, for a head without a body."""
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(raw)
    try:
        event = wire.next_event()
        return read_head(event) if type(event) is h11.Request else None
    except (h11.RemoteProtocolError, BadHead):
        return None


token = st.text("abcXYZ-019", min_size=1, max_size=8)
field = st.tuples(
    token, st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), max_size=10)
)


@given(st.sampled_from(["GET", "HEAD", "DELETE"]), st.lists(field, max_size=5), st.binary(max_size=30))
def test_what_is_recalled_is_what_would_be_read(method: str, fields: list[tuple[str, str]], after: bytes) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    raw = f"{method} /v2/ HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode("latin-1")
    head = parsed(raw)
    if head is None:
        return
    remember(raw, head)
    assert recall(raw + after) == (head, len(raw))
    assert recall(raw[:-1]) is None
    assert recall(b"X" + raw) is None


def test_a_head_is_only_recalled_by_its_exact_bytes() -> None:
    raw = b"GET /exact HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n"
    head = parsed(raw)
    assert head is not None
    remember(raw, head)
    for index in range(len(raw)):
        assert recall(raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]) is None


def test_the_memory_keeps_what_was_used_last() -> None:
    memo: Memo[int, str] = Memo(3)
    for number in range(3):
        memo.put(number, str(number))
    assert memo.get(0) == "0"
    memo.put(3, "3")
    assert [memo.get(number) for number in range(4)] == ["0", None, "2", "3"]


@pytest.mark.parametrize(
    ("length", "head", "version", "keep", "framing"),
    [
        (5, False, "1.1", True, b"Content-Length: 5\r\n\r\n"),
        (5, True, "1.1", True, b"Content-Length: 5\r\n\r\n"),
        (5, False, "1.1", False, b"Content-Length: 5\r\nConnection: close\r\n\r\n"),
        (5, False, "1.0", False, b"Content-Length: 5\r\nConnection: close\r\n\r\n"),
        (None, False, "1.1", True, b"Transfer-Encoding: chunked\r\n\r\n"),
        (None, True, "1.1", True, b"Transfer-Encoding: chunked\r\n\r\n"),
        (None, False, "1.0", False, b"Connection: close\r\n\r\n"),
    ],
)
def test_framing_suits_the_client(length: int | None, head: bool, version: str, keep: bool, framing: bytes) -> None:
    framed = render_head(200, Headers().items, length, head=head, version=version, keep_alive=keep)
    assert framed.before == b"HTTP/1.1 200 OK\r\n"
    assert framed.after == framing
    assert framed.chunked == (length is None and version == "1.1" and not head)


@pytest.mark.parametrize("status", [99, 100, 199, 1000])
def test_what_is_no_final_status_cannot_be_sent(status: int) -> None:
    with pytest.raises(ValueError, match="status_code"):
        render_head(status, (), 0, head=False, version="1.1", keep_alive=True)
