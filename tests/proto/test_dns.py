"""What becomes of a DNS query: our addresses, nothing, a refusal, or somebody else's answer."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.proto.dns import Answer, Claims, Decision, Forward, Ignore, Rules, refuse_stranger
from mxart.proto.dns_wire import HEADER, Malformed, parse

OURS = ["10.0.0.5", "10.0.0.6", "fd00::5"]
CLAIMS = Claims(["docker.io", "registry-1.docker.io", "*.corp.test"])
RULES = Rules(CLAIMS, OURS, 60, recursive=True)
ALONE = Rules(CLAIMS, ["10.0.0.5"], 60, recursive=False)


def ask(name: str, kind: str = "A", **more: object) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **more)


def told(query: dns.message.Message, rules: Rules = RULES, *, udp: bool = True) -> dns.message.Message:
    """The answer, read by a library that did not write it, and found to belong to the question."""
    decision = rules.decide(query.to_wire(), udp=udp)
    assert isinstance(decision, Answer), decision
    answer = dns.message.from_wire(decision.wire)
    assert query.is_response(answer)
    return answer


def addresses(answer: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in answer.answer for record in rrset]


def is_empty(answer: dns.message.Message) -> bool:
    """NOERROR without an answer, and with what makes that cacheable."""
    soa = [rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA]
    return answer.rcode() == dns.rcode.NOERROR and not answer.answer and len(soa) == 1


def test_a_claimed_name_has_our_addresses_of_the_family_that_is_asked_for() -> None:
    answer = told(ask("docker.io"))
    assert addresses(answer) == ["10.0.0.5", "10.0.0.6"]
    assert answer.answer[0].ttl == 60
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA
    assert addresses(told(ask("docker.io", "AAAA"))) == ["fd00::5"]


def test_a_family_that_we_have_no_address_of_is_answered_empty_so_that_clients_take_the_other() -> None:
    answer = told(ask("docker.io", "AAAA"), ALONE)
    assert is_empty(answer)
    assert answer.authority[0].ttl == answer.authority[0][0].minimum == 60


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "MX", "TXT", "CNAME", "DS", "SRV", "TYPE65400"])
def test_every_other_type_of_a_claimed_name_is_empty_so_that_no_client_goes_round(kind: str) -> None:
    assert is_empty(told(ask("registry-1.docker.io", kind)))


def test_any_is_answered_by_one_set_of_records() -> None:
    assert addresses(told(ask("docker.io", "ANY"))) == ["10.0.0.5", "10.0.0.6"]
    six = Rules(CLAIMS, ["fd00::5"], 60, recursive=False)
    assert addresses(told(ask("docker.io", "ANY"), six)) == ["fd00::5"]


def test_the_letters_case_of_the_question_comes_back_as_it_was_sent() -> None:
    answer = told(ask("dOcKeR.Io"))
    assert answer.question[0].name.to_text() == "dOcKeR.Io."
    assert answer.answer[0].name.to_text() == "dOcKeR.Io."
    assert addresses(answer) == ["10.0.0.5", "10.0.0.6"]


def test_a_pattern_claims_what_lies_below_it_and_not_the_name_itself() -> None:
    assert addresses(told(ask("a.corp.test"))) == addresses(told(ask("b.a.corp.test"))) != []
    for outside in ("corp.test", "xcorp.test", "a.corp.test.example", "io", "x.docker.io", "."):
        assert isinstance(RULES.decide(ask(outside).to_wire(), udp=True), Forward), outside
    assert CLAIMS.is_above((b"corp", b"test"))
    assert CLAIMS.is_above((b"io",))
    assert not CLAIMS.is_above((b"docker", b"test"))


def test_dots_within_a_label_do_not_make_it_a_claimed_name() -> None:
    query = HEADER.pack(1, 0x100, 1, 0, 0, 0) + b"\x09docker.io\x00" + struct.pack("!HH", 1, 1)
    assert isinstance(RULES.decide(query, udp=True), Forward)


def test_what_is_not_claimed_is_forwarded_under_a_key_of_what_makes_a_difference() -> None:
    first = RULES.decide(ask("Example.test").to_wire(), udp=True)
    same = RULES.decide(ask("example.TEST", use_edns=0, payload=4096).to_wire(), udp=False)
    assert isinstance(first, Forward)
    assert isinstance(same, Forward)
    assert first.key == same.key
    checking = ask("example.test")
    checking.flags |= dns.flags.CD
    others = [ask("example.test", want_dnssec=True), ask("example.test", "AAAA"), checking]
    keys = {RULES.decide(query.to_wire(), udp=True).key for query in others}  # type: ignore[union-attr]
    assert len(keys | {first.key}) == 4


def test_a_type_whose_number_looks_like_a_letter_is_not_mixed_up() -> None:
    """HTTPS is 65, an "A" in ASCII: only names are compared without case."""
    keys = {RULES.decide(ask("a.test", kind).to_wire(), udp=True).key.type for kind in ("HTTPS", "TYPE97")}  # type: ignore[union-attr]
    assert keys == {65, 97}


def test_without_a_forwarder_unknown_names_are_refused_and_no_recursion_is_offered() -> None:
    answer = told(ask("example.test", use_edns=0), ALONE)
    assert answer.rcode() == dns.rcode.REFUSED
    assert not answer.flags & dns.flags.RA
    assert any(isinstance(option, dns.edns.EDEOption) and option.code == 20 for option in answer.options)
    assert addresses(told(ask("docker.io"), ALONE)) == ["10.0.0.5"]


def test_who_does_not_want_recursion_learns_our_names_and_nothing_of_what_others_asked() -> None:
    shy, shy_own = ask("example.test"), ask("docker.io")
    shy.flags = shy_own.flags = dns.flags.Flag(0)
    assert told(shy).rcode() == dns.rcode.REFUSED
    assert addresses(told(shy_own)) == ["10.0.0.5", "10.0.0.6"]


def test_names_that_mean_this_machine_or_nothing_are_not_asked_of_others() -> None:
    assert addresses(told(ask("localhost"))) == ["127.0.0.1"]
    assert addresses(told(ask("x.localhost", "AAAA"))) == ["::1"]
    answer = told(ask("made.up.invalid"))
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.authority[0].name.to_text() == "invalid."
    # Where our forwarder may be reached by other means, a client would learn from it, and go round us.
    assert is_empty(told(ask("_dns.resolver.arpa", "SVCB")))


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "TSIG", "TKEY", "MAILB", "OPT"])
def test_transfers_and_meta_types_are_refused(kind: str) -> None:
    query = HEADER.pack(1, 0x100, 1, 0, 0, 0) + b"\x06docker\x02io\x00"
    query += struct.pack("!HH", dns.rdatatype.from_text(kind), 1)
    decision = RULES.decide(query, udp=True)
    assert isinstance(decision, Answer)
    assert parse(decision.wire).rcode == dns.rcode.REFUSED


def test_other_classes_are_refused_the_servers_version_too() -> None:
    query = ask("version.bind", "TXT", rdclass=dns.rdataclass.CH)
    assert told(query).rcode() == dns.rcode.REFUSED
    assert told(ask("docker.io", "A", rdclass=dns.rdataclass.ANY)).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_only_queries_are_implemented(opcode: int) -> None:
    query = bytearray(ask("docker.io").to_wire())
    query[2] = query[2] & 0x87 | opcode << 3
    decision = RULES.decide(bytes(query), udp=True)
    assert isinstance(decision, Answer)
    assert decision.wire[:2] == query[:2]
    assert decision.wire[3] & 0xF == dns.rcode.NOTIMP
    assert (decision.wire[2] >> 3) & 0xF == opcode


def test_answers_are_never_answered_or_two_servers_would_talk_forever() -> None:
    reply = bytearray(ask("docker.io").to_wire())
    reply[2] |= 0x80
    assert isinstance(RULES.decide(bytes(reply), udp=True), Ignore)
    assert refuse_stranger(bytes(reply)) is None


@pytest.mark.parametrize("questions", [0, 2, 65535])
def test_other_than_one_question_is_a_format_error(questions: int) -> None:
    query = bytearray(ask("docker.io").to_wire())
    query[4:6] = struct.pack("!H", questions)
    decision = RULES.decide(bytes(query), udp=True)
    assert isinstance(decision, Answer)
    assert parse(decision.wire).rcode == dns.rcode.FORMERR


def test_edns_is_answered_by_edns_without_an_echo_of_options() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    strange = dns.edns.GenericOption(65001, b"x" * 20)
    answer = told(ask("docker.io", use_edns=0, payload=4096, options=[cookie, strange], want_dnssec=True))
    assert answer.edns == 0
    assert answer.payload == 1232
    assert answer.options == ()
    assert answer.ednsflags & dns.flags.DO
    assert not answer.flags & dns.flags.AD
    assert told(ask("docker.io")).edns == -1


def test_a_newer_edns_is_told_which_version_we_speak() -> None:
    answer = told(ask("docker.io", use_edns=7))
    assert answer.rcode() == dns.rcode.BADVERS
    assert answer.edns == 0
    assert not answer.answer


def test_two_opt_records_or_a_named_one_are_a_format_error() -> None:
    wire = ask("docker.io", use_edns=0).to_wire()
    twice = wire[:10] + b"\x00\x02" + wire[12:] + wire[-11:]
    named = wire[:-11] + b"\x01a" + wire[-11:]
    for query in (twice, named):
        decision = RULES.decide(query, udp=True)
        assert isinstance(decision, Answer)
        assert parse(decision.wire).rcode == dns.rcode.FORMERR


def test_what_does_not_fit_into_a_datagram_says_so_and_fits_tcp() -> None:
    many = Rules(CLAIMS, [f"10.0.{number // 200}.{number % 200}" for number in range(100)], 60, recursive=False)
    for query, size in ((ask("docker.io"), 512), (ask("docker.io", use_edns=0, payload=100), 512)):
        answer = told(query, many)
        assert answer.flags & dns.flags.TC
        assert len(answer.to_wire()) <= size
        assert not answer.answer
    assert told(ask("docker.io", use_edns=0, payload=4096), many).flags & dns.flags.TC  # more than we send in one piece
    assert len(addresses(told(ask("docker.io"), many, udp=False))) == 100
    few = Rules(CLAIMS, [f"10.0.0.{number}" for number in range(60)], 60, recursive=False)
    assert len(addresses(told(ask("docker.io", use_edns=0, payload=1232), few))) == 60


def test_a_stranger_gets_no_more_bytes_than_it_sent() -> None:
    for query in (ask("docker.io"), ask("docker.io", use_edns=0), ask("a" * 60 + ".test", "ANY")):
        wire = query.to_wire()
        refusal = refuse_stranger(wire)
        assert refusal is not None
        assert len(refusal) <= len(wire)
        assert dns.message.from_wire(refusal).rcode() == dns.rcode.REFUSED
        assert query.is_response(dns.message.from_wire(refusal))
    assert refuse_stranger(b"x" * 11) is None
    assert refuse_stranger(b"\0" * 12) is None


def hostile() -> list[bytes]:
    """Messages that have hung or crashed servers."""
    head = HEADER.pack(7, 0x100, 1, 0, 0, 0)
    tail = struct.pack("!HH", 1, 1)
    return [
        head + b"\xc0\x0c" + tail,  # a name that points to itself
        head + b"\x01a\xc0\x0c" + tail,
        head + b"\xc0\x00" + tail,  # into the header
        head + b"\xc0\xff" + tail,  # forward
        head + b"\x40a" + tail,  # a label type that there is not
        head + b"\x3f" + b"a" * 62,  # cut within a label
        head + (b"\x3f" + b"a" * 63) * 5 + b"\x00" + tail,  # longer than a name may be
        head + b"\x01" * 300 + b"\x00" + tail,
        HEADER.pack(7, 0x100, 1, 65535, 65535, 65535) + b"\x00" + tail,
        HEADER.pack(7, 0x100, 1, 0, 0, 1) + b"\x00" + tail + b"\x00" + struct.pack("!HHIH", 41, 512, 0, 65535),
        head + b"\x00" + tail + b"more",
    ]


@pytest.mark.parametrize("wire", hostile())
def test_a_message_that_cannot_be_read_is_a_format_error_of_twelve_bytes(wire: bytes) -> None:
    assert RULES.decide(wire, udp=True) == Answer(HEADER.pack(7, 0x8101, 0, 0, 0, 0), "malformed")


def _sound(wire: bytes, decision: Decision) -> None:
    match decision:
        case Ignore():
            assert len(wire) < 12 or wire[2] & 0x80
        case Forward():
            assert decision.key.name == decision.question.name.lower()
        case Answer():
            assert decision.wire[:2] == wire[:2]
            assert decision.wire[2] & 0x80
            assert parse(decision.wire).id == int.from_bytes(wire[:2], "big")
            assert len(decision.wire) <= 1232


@given(st.binary(max_size=600))
def test_any_bytes_are_ignored_forwarded_or_answered_soundly(wire: bytes) -> None:
    _sound(wire, RULES.decide(wire, udp=True))


_QUERY = ask("registry-1.docker.io", use_edns=0, want_dnssec=True).to_wire()


@given(st.lists(st.tuples(st.integers(0, len(_QUERY) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 60))
def test_a_query_with_some_bytes_wrong_or_cut_off_is_dealt_with_soundly(
    changes: list[tuple[int, int]], cut: int
) -> None:
    wire = bytearray(_QUERY)
    for place, value in changes:
        wire[place] = value
    short = bytes(wire[: len(wire) - cut])
    _sound(short, RULES.decide(short, udp=True))
    _sound(short, ALONE.decide(short, udp=False))


@given(st.binary(max_size=300))
def test_reading_any_bytes_gives_a_message_or_says_that_there_is_none(wire: bytes) -> None:
    try:
        message = parse(wire, strict=False)
    except Malformed:
        return
    assert message.question is None or len(message.question.name) <= 255
