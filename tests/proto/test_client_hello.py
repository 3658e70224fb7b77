"""ClientHellos of real clients, cut anywhere; hellos that no client sends."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.tls import client_context, hello_bytes
from mxart.proto.authority import Authority
from mxart.proto.client_hello import (
    MAX_BYTES,
    BadClientHello,
    ClientHello,
    Records,
    bytes_missing,
    host_name,
    parse_client_hello,
    plain_alert,
)

AUTHORITY = Authority.ephemeral()
REAL = hello_bytes(client_context(AUTHORITY, ["h2", "http/1.1"]), "Registry-1.Docker.io")
RSA_ONLY = hello_bytes(client_context(AUTHORITY, version=ssl.TLSVersion.TLSv1_2), None)


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, body)


def sni(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def message(
    extensions: bytes | None = b"",
    *,
    version: bytes = b"\x03\x03",
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
    kind: int = 1,
    extra: bytes = b"",
) -> bytes:
    body = version + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, compression)
    if extensions is not None:
        body += vector(2, extensions)
    return bytes([kind]) + vector(3, body + extra)


def records(data: bytes, cuts: Sequence[int] = ()) -> bytes:
    """The message in records, cut at the given places."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return b"".join(b"\x16\x03\x01" + vector(2, data[start:end]) for start, end in pairwise(places))


def parsed(data: bytes) -> ClientHello:
    hello = parse_client_hello(data)
    assert hello is not None
    return hello


def test_what_a_real_client_asks_for() -> None:
    hello = parsed(REAL)
    assert hello.sni == "registry-1.docker.io"
    assert hello.alpn == (b"h2", b"http/1.1")
    assert hello.versions[0] == 0x0304
    assert (hello.ech, hello.wire_bytes) == (False, len(REAL))


def test_a_client_without_name_and_protocols() -> None:
    hello = parsed(RSA_ONLY)
    assert (hello.sni, hello.alpn, hello.versions) == (None, (), (0x0303,))


def test_a_hello_of_before_extensions() -> None:
    hello = parsed(records(message(None, version=b"\x03\x01")))
    assert (hello.sni, hello.alpn, hello.versions) == (None, (), (0x0301,))


@pytest.mark.parametrize("data", [REAL, RSA_ONLY])
def test_cut_anywhere_it_waits_and_never_for_more_than_there_is(data: bytes) -> None:
    for length in range(len(data)):
        assert parse_client_hello(data[:length]) is None
        assert 1 <= bytes_missing(data[:length]) <= len(data) - length
    assert bytes_missing(data) == 0


@given(st.lists(st.integers(1, len(REAL)), max_size=12), st.data())
def test_spread_over_any_records_and_cut_anywhere_it_reads_the_same(cuts: list[int], data: st.DataObject) -> None:
    wire = records(REAL[5:], cuts)
    whole, spread = parsed(REAL), parsed(wire)
    assert (spread.sni, spread.alpn, spread.versions) == (whole.sni, whole.alpn, whole.versions)
    assert spread.wire_bytes == len(wire)
    length = data.draw(st.integers(0, len(wire) - 1))
    assert parse_client_hello(wire[:length]) is None
    assert 1 <= bytes_missing(wire[:length]) <= len(wire) - length
    seen = Records()  # and read on from where it was left off
    for have in sorted({length, length // 2, length // 3}):
        assert parse_client_hello(wire[:have], seen) is None
        assert bytes_missing(wire[:have], seen) == bytes_missing(wire[:have])
    assert parse_client_hello(wire, seen) == spread
    assert parse_client_hello(wire, seen) == spread


def test_one_byte_a_record() -> None:
    data = REAL[5:]
    assert parsed(records(data, range(len(data)))).sni == "registry-1.docker.io"


def test_a_hello_in_crumbs_is_read_a_few_times_and_not_once_a_crumb() -> None:
    """Who peeks sleeps until what is missing may be there; one that sends a byte a record gains little."""
    body = message(extension(21, bytes(9000)))
    wire = records(body, range(len(body)))
    reads = have = 0
    while (missing := bytes_missing(wire[:have])) > 0:
        have += missing
        reads += 1
    assert reads < 80
    began, seen = process_time(), Records()
    for have in range(5, len(wire), 90):
        assert parse_client_hello(wire[:have], seen) is None
    assert process_time() - began < 0.5  # from the start each time: three seconds


def test_what_follows_the_hello_is_left_alone() -> None:
    assert parsed(REAL + b"\x17\x03\x03\x00\x05early").wire_bytes == len(REAL)


@given(st.binary(max_size=400))
def test_no_bytes_at_all_do_anything_but_wait_parse_or_refuse(data: bytes) -> None:
    for wire in (data, b"\x16\x03\x01" + data, records(b"\x01" + vector(3, data)), records(message(data))):
        with suppress(BadClientHello):
            parse_client_hello(wire)


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_one_wrong_byte_never_breaks_the_parser(position: int, byte: int) -> None:
    wire = REAL[:position] + bytes([byte]) + REAL[position + 1 :]
    with suppress(BadClientHello):
        parse_client_hello(wire)


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\x80\x2e\x01\x00\x02", "SSL 2"),
        (b"GET / HTTP/1.1\r\n", "record of type 71"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "record of type 21"),
        (b"\x16\x02", "record version 2"),
        (b"\x16\x03\x01\x00\x00", "empty handshake record"),
        (b"\x16\x03\x01\x40\x01", "16385 bytes"),
        (b"\x16\x03\x01\x00\x04\x02", "handshake message 2"),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", "65540 bytes"),
        (records(message(version=b"\x02\x00")), "version 2.0"),
        (records(message(session=bytes(33))), "session id"),
        (records(message(suites=b"")), "cipher suites"),
        (records(message(suites=b"\0\1\2")), "cipher suites"),
        (records(message(compression=b"")), "compression"),
        (records(message(extra=b"x")), "follows the extensions"),
        (records(message() + b"\x0b"), "follows the TLS hello"),
        (records(message(b"\0")), "middle of a field"),
        (records(message(sni(b"a.test") + sni(b"b.test"))), "twice"),
        (records(message(extension(0, b""))), "middle of a field"),
        (records(message(extension(0, b"\0\0"))), "server name"),
        (records(message(extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x"))), "server name"),
        (records(message(alpn(b""))), "empty protocol name"),
        (records(message(extension(16, b"\0\0"))), "ALPN"),
        (records(message(extension(43, b"\2\3\4x"))), "supported versions"),
        (records(message()[:-1] + b"\7"), "middle of a field"),
    ],
)
def test_what_is_no_hello_is_refused_with_a_reason(wire: bytes, why: str) -> None:
    with pytest.raises(BadClientHello, match=why):
        parse_client_hello(wire)


def test_a_wrong_start_is_refused_before_the_rest_is_there() -> None:
    with pytest.raises(BadClientHello):
        parse_client_hello(b"\x16\x03\x01\x02\x00\x02")


def test_a_hello_larger_than_the_bound_is_refused_when_it_says_so_or_by_its_records() -> None:
    with pytest.raises(BadClientHello, match="at most"):
        parse_client_hello(records(b"\x01" + (MAX_BYTES).to_bytes(3, "big")))
    crumbs = records(message(extension(21, bytes(20_000))), range(20_000))
    assert len(crumbs) > MAX_BYTES
    with pytest.raises(BadClientHello, match="longer than"):
        parse_client_hello(crumbs)
    assert parse_client_hello(records(message(extension(21, bytes(50_000))), range(0, 50_100, 16_000))) is not None


def test_grease_and_encrypted_hello_are_stepped_over_and_the_outer_name_decides() -> None:
    grease = extension(0x0A0A, b"") + extension(0xFE0D, b"\0" * 40)
    versions = extension(43, vector(1, b"\x7a\x7a\x03\x04\x03\x03"))
    hello = parsed(records(message(grease + sni(b"outer.test") + versions + alpn(b"\xca\xca", b"h2"))))
    assert (hello.sni, hello.ech, hello.versions) == ("outer.test", True, (0x0304, 0x0303))
    assert b"h2" in hello.alpn


def test_the_first_host_name_of_several_and_no_other_kind() -> None:
    names = b"\1" + vector(2, b"x") + b"\0" + vector(2, b"one.test") + b"\0" + vector(2, b"two.test")
    assert parsed(records(message(extension(0, vector(2, names))))).sni == "one.test"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"a.test", "a.test"),
        (b"A.Test.", "a.test"),
        (b"localhost", "localhost"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"my_service.internal", "my_service.internal"),
        (b"1.2.3.4.example", "1.2.3.4.example"),
        (b"10.0.0.1", None),
        (b"10.1", None),
        (b"0x7f.1", None),
        (b"::1", None),
        (b"[::1]", None),
        (b"", None),
        (b".", None),
        (b"a..b", None),
        (b"-a.test", None),
        (b"a b.test", None),
        (b"a.test\0.evil", None),
        (b"a.test\n", None),
        (b"*.test", None),
        ("bücher.example".encode(), None),
        (b"a" * 64 + b".test", None),
        (b"a" * 63 + b".test", "a" * 63 + ".test"),
        (b".".join([b"a" * 49] * 6), None),
    ],
)
def test_only_host_names_count_as_names(raw: bytes, name: str | None) -> None:
    assert host_name(raw) == name
    if raw:
        assert parsed(records(message(sni(raw)))).sni == name


def test_an_alert_as_openssl_reads_it() -> None:
    client = client_context(AUTHORITY)
    incoming = ssl.MemoryBIO()
    connection = client.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    incoming.write(plain_alert(112))
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        connection.do_handshake()
