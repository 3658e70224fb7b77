"""A forwarder's answer: whether it is one, how long it may be kept, and what a later client gets of it."""

from __future__ import annotations

import contextlib
import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxart.proto.dns_kept import Failed, Kept, Truncated, answer, check
from mxart.proto.dns_wire import Malformed, Message, Question, parse, query

SOA = "localhost. nobody.invalid. 1 3600 600 86400 {minimum}"


def question(name: str, kind: str = "A") -> Question:
    found = parse(dns.message.make_query(name, kind).to_wire()).question
    assert found is not None
    return found


def reply(asked: Question, *records: tuple[str, str, int, str], rcode: int = 0, **more: object) -> dns.message.Message:
    """A forwarder's: `records` are section:owner, type, TTL, text."""
    message = dns.message.make_response(dns.message.from_wire(query(7, asked, do=True, cd=False)), **more)  # type: ignore[arg-type]
    message.flags |= dns.flags.RA
    message.set_rcode(dns.rcode.Rcode(rcode))
    for place, kind, ttl, text in records:
        section, _, owner = place.rpartition(":")
        where = {"": message.answer, "authority": message.authority, "additional": message.additional}[section]
        where.append(dns.rrset.from_text(owner, ttl, "IN", kind, text))
    return message


def kept(asked: Question, *records: tuple[str, str, int, str], rcode: int = 0) -> Kept:
    found = check(reply(asked, *records, rcode=rcode).to_wire(), 7, asked)
    assert isinstance(found, Kept)
    return found


def asking(name: str, kind: str = "A", **more: object) -> Message:
    return parse(dns.message.make_query(name, kind, **more).to_wire())


def told(found: Kept, name: str, kind: str = "A", age: float = 0.0, **more: object) -> dns.message.Message:
    wire = answer(asking(name, kind, **more), found, age, udp=True, exists=False)
    return dns.message.from_wire(wire)


def test_an_answer_is_kept_for_its_shortest_ttl_and_counts_down() -> None:
    asked = question("alias.test")
    found = kept(asked, ("alias.test.", "CNAME", 300, "real.test."), ("real.test.", "A", 100, "192.0.2.1"))
    assert found.lifetime == 100
    later = told(found, "ALIAS.test", age=60.7)
    assert [(rrset.name.to_text(), rrset.ttl) for rrset in later.answer] == [("ALIAS.test.", 240), ("real.test.", 40)]
    assert later.flags & dns.flags.RA
    assert not later.flags & dns.flags.AA


def test_ttls_beyond_reason_are_capped_and_negative_ones_are_none() -> None:
    asked = question("a.test")
    assert kept(asked, ("a.test.", "A", 2**31 - 1, "192.0.2.1")).lifetime == 86400
    wire = bytearray(reply(asked, ("a.test.", "A", 0x7ABBCCDD, "192.0.2.1")).to_wire())
    place = wire.index(b"\x7a\xbb\xcc\xdd")
    wire[place] = 0x80
    found = check(bytes(wire), 7, asked)
    assert isinstance(found, Kept)
    assert found.lifetime == 0
    assert kept(asked, ("a.test.", "A", 0, "192.0.2.1")).lifetime == 0


@pytest.mark.parametrize("rcode", [0, 3])
def test_what_is_not_there_is_kept_as_long_as_the_soa_says(rcode: int) -> None:
    asked = question("none.test")
    soa = ("authority:test.", "SOA", 900, SOA.format(minimum=120))
    found = kept(asked, soa, rcode=rcode)
    assert found.lifetime == 120
    later = told(found, "none.test", age=20)
    assert later.rcode() == rcode
    assert later.authority[0].ttl == 100
    assert kept(asked, ("authority:test.", "SOA", 10**7, SOA.format(minimum=10**7)), rcode=rcode).lifetime == 3600
    assert kept(asked, rcode=rcode).lifetime == 0, "nobody said how long"


def test_an_alias_to_nothing_is_negative_too() -> None:
    asked = question("alias.test", "AAAA")
    alias = ("alias.test.", "CNAME", 300, "real.test.")
    assert kept(asked, alias, ("authority:test.", "SOA", 60, SOA.format(minimum=50))).lifetime == 50
    assert kept(asked, alias).lifetime == 0


def test_a_name_above_a_claimed_one_exists_whatever_others_say() -> None:
    asked = question("corp.test")
    found = kept(asked, ("authority:test.", "SOA", 60, SOA.format(minimum=60)), rcode=3)
    message = dns.message.from_wire(answer(asking("corp.test"), found, 0, udp=True, exists=True))
    assert message.rcode() == dns.rcode.NOERROR
    assert not message.answer


def test_their_opt_record_ends_with_us_and_ours_goes_to_who_speaks_edns() -> None:
    asked = question("a.test")
    message = reply(asked, ("a.test.", "A", 60, "192.0.2.1"), our_payload=4096)
    message.use_edns(0, options=[dns.edns.GenericOption(65001, b"theirs")], payload=4096)
    found = check(message.to_wire(), 7, asked)
    assert isinstance(found, Kept)
    assert told(found, "a.test").edns == -1
    ours = told(found, "a.test", use_edns=0)
    assert (ours.edns, ours.payload, ours.options) == (0, 1232, ())


def test_authentic_is_only_told_to_who_wants_to_know() -> None:
    asked = question("a.test")
    message = reply(asked, ("a.test.", "A", 60, "192.0.2.1"))
    message.flags |= dns.flags.AD
    found = check(message.to_wire(), 7, asked)
    assert isinstance(found, Kept)
    assert not told(found, "a.test").flags & dns.flags.AD
    assert told(found, "a.test", want_dnssec=True).flags & dns.flags.AD


def test_a_stale_answer_says_so_and_is_not_kept_for_long() -> None:
    found = kept(question("a.test"), ("a.test.", "A", 300, "192.0.2.1"))
    wire = answer(asking("a.test", use_edns=0), found, 5000, udp=True, exists=False, stale=True)
    message = dns.message.from_wire(wire)
    assert message.answer[0].ttl == 30
    assert [option.code for option in message.options if isinstance(option, dns.edns.EDEOption)] == [3]


def test_a_large_answer_is_truncated_for_a_small_client() -> None:
    asked = question("big.test", "TXT")
    found = kept(asked, *(("big.test.", "TXT", 60, letter * 200) for letter in "abcde"))
    assert told(found, "big.test", "TXT").flags & dns.flags.TC
    whole = told(found, "big.test", "TXT", use_edns=0, payload=1232)
    assert not whole.flags & dns.flags.TC
    assert sum(len(rrset) for rrset in whole.answer) == 5


def test_only_the_answer_to_this_very_question_counts() -> None:
    asked = question("a.test")
    good = reply(asked, ("a.test.", "A", 60, "192.0.2.1")).to_wire()
    assert check(good, 8, asked) is None
    assert check(good, 7, question("b.test")) is None
    assert check(good, 7, question("a.test", "AAAA")) is None
    assert check(query(7, asked, do=True, cd=False), 7, asked) is None, "a question is no answer"
    assert check(good[:5], 7, asked) is None
    assert isinstance(check(good, 7, question("A.tEsT")), Kept)


def test_a_forwarder_that_cannot_answer_is_told_from_one_that_knows() -> None:
    asked = question("a.test")
    for rcode in (2, 4, 5, 9):
        found = check(reply(asked, rcode=rcode).to_wire(), 7, asked)
        assert found == Failed(rcode)
    assert str(Failed(5)) == "REFUSED"
    assert str(Failed(9)) == "rcode 9"
    assert check(struct.pack("!HHHHHH", 7, 0x8181, 0, 0, 0, 0), 7, asked) == Failed(1)
    assert check(struct.pack("!HHHHHH", 7, 0x8180, 0, 0, 0, 0), 7, asked) is None


def test_a_truncated_answer_is_worth_nothing_but_the_way_to_the_whole_one() -> None:
    asked = question("a.test")
    message = reply(asked)
    message.flags |= dns.flags.TC
    assert check(message.to_wire(), 7, asked) == Truncated()


_GOOD = reply(
    question("a.test"),
    ("a.test.", "CNAME", 60, "b.test."),
    ("b.test.", "A", 60, "192.0.2.1"),
    ("authority:test.", "NS", 60, "ns.test."),
    ("additional:ns.test.", "A", 60, "192.0.2.2"),
).to_wire()


def test_an_answer_cut_anywhere_is_no_answer() -> None:
    asked = question("a.test")
    for length in range(12, len(_GOOD)):
        with pytest.raises(Malformed):
            check(_GOOD[:length], 7, asked)


def test_a_name_that_points_into_the_header_is_refused() -> None:
    """It would be another one in each answer, whose id and flags are others."""
    asked = question("a.test")
    place = 12 + len(asked.wire) + 1
    for offset in range(12):
        with pytest.raises(Malformed):
            check(_GOOD[:place] + bytes([offset]) + _GOOD[place + 1 :], 7, asked)


@pytest.mark.parametrize("byte", range(4))
def test_a_name_that_points_into_a_ttl_is_refused(byte: int) -> None:
    """TTLs are counted down, so it would be another one in each answer."""
    asked = question("a.test")
    first, second = ("a.test.", "A", 60, "192.0.2.1"), ("a.test.", "A", 0x01020000, "192.0.2.2")
    wire = bytearray(reply(asked, first, second).to_wire())
    start = 12 + len(asked.wire)
    assert isinstance(check(bytes(wire), 7, asked), Kept)
    wire[start + 16 + 1] = start + 6 + byte  # the owner of the second points into the TTL of the first
    wire[start + 6 : start + 10] = b"\x01\x00\x00\x00"
    with pytest.raises(Malformed):
        check(bytes(wire), 7, asked)


@example([(62, 1), (72, 61)])
@given(st.lists(st.tuples(st.integers(2, len(_GOOD) - 1), st.integers(0, 255)), max_size=8))
def test_whatever_is_wrong_in_an_answer_what_clients_get_can_be_read(changes: list[tuple[int, int]]) -> None:
    wire = bytearray(_GOOD)
    for place, value in changes:
        wire[place] = value
    asked = question("a.test")
    try:
        found = check(bytes(wire), 7, asked)
    except Malformed:
        return
    if isinstance(found, Kept):
        client = asking("A.Test", use_edns=0)
        again = parse(answer(client, found, 1.0, udp=True, exists=False))
        assert again.question == client.question
        assert again.edns is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_not(wire: bytes) -> None:
    with contextlib.suppress(Malformed):
        check(b"\x00\x07" + wire, 7, question("a.test"))
