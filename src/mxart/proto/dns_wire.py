"""DNS messages as bytes (RFC 1035 section 4.1): taken apart as far as a forwarder needs, and put together. Pure.

Records are walked, not understood: what a record says passes through untouched, of whatever type it is.
dnspython's parser reads the names, bounded against pointers that go round.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from dns.exception import DNSException
from dns.name import from_wire_parser
from dns.wire import Parser
from msgspec import Struct

from mxart.errors import MxartError

HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHIH")  # type, class, TTL, length; the owner's name stands before it

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000  # in the TTL of an OPT record (RFC 3225)

PAYLOAD = 1232
"""What we send and take over UDP, in bytes: it fits the least IPv6 link (RFC 9715, appendix A)."""

NAME_OF_QUESTION = b"\xc0\x0c"
"""A pointer to where the question stands."""

# In place of the header: a name that pointed into it would be another one in each answer, whose id is another.
_NO_NAME = b"\xff" * HEADER.size


class Type(IntEnum):
    """Record types that this server treats in a way of their own."""

    A = 1
    CNAME = 5
    SOA = 6
    AAAA = 28
    OPT = 41
    FIRST_META = 128  # to 255: TKEY, TSIG, transfers, ANY (RFC 6895 section 3.1)
    ANY = 255


class Rcode(IntEnum):
    """RFC 1035 section 4.1.1, RFC 6891 section 9."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Ede(IntEnum):
    """Extended errors (RFC 8914 section 5.2)."""

    OTHER = 0
    STALE = 3
    PROHIBITED = 18
    STALE_NXDOMAIN = 19
    NOT_AUTHORITATIVE = 20
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23


class Malformed(MxartError):
    """These bytes are not a DNS message."""


class Question(Struct, frozen=True):
    """What is asked. `name` as it was written, in wire format; `labels` in lower case, without the root."""

    name: bytes
    labels: tuple[bytes, ...]
    type: int
    klass: int

    @property
    def wire(self) -> bytes:
        return self.name + struct.pack("!HH", self.type, self.klass)

    @property
    def text(self) -> str:
        """For a log line."""
        return b".".join(self.labels).decode("ascii", "backslashreplace") or "."


class Record(Struct, frozen=True):
    """One resource record and where it stands. `section`: 0 answer, 1 authority, 2 additional."""

    section: int
    type: int
    klass: int
    ttl: int
    ttl_at: int
    data: bytes


class Edns(Struct, frozen=True):
    """An OPT record (RFC 6891 section 6.1). Of its options nothing is looked at."""

    payload: int
    extended_rcode: int
    version: int
    do: bool


class Message(Struct, frozen=True):
    """A message taken apart. `question` is None where there is none, or more than one."""

    id: int
    flags: int
    question: Question | None
    records: tuple[Record, ...] = ()
    edns: Edns | None = None

    @property
    def opcode(self) -> int:
        return (self.flags >> 11) & 0xF

    @property
    def rcode(self) -> int:
        """All its bits."""
        return (self.flags & 0xF) | ((self.edns.extended_rcode << 4) if self.edns is not None else 0)


def parse(wire: bytes, *, max_records: int = 4096, strict: bool = True) -> Message:
    """Take a whole message apart. `strict` refuses bytes behind its end. Raises Malformed."""
    try:
        return _parse(wire, max_records, strict)
    except (DNSException, struct.error) as error:
        raise Malformed(str(error)) from None


def _parse(wire: bytes, max_records: int, strict: bool) -> Message:
    number, flags, questions, *counts = HEADER.unpack_from(wire)
    parser = Parser(_NO_NAME + wire[HEADER.size :], HEADER.size)
    if questions != 1:
        return Message(number, flags, None)
    name = from_wire_parser(parser)
    if parser.current != HEADER.size + sum(len(label) + 1 for label in name.labels):
        raise Malformed("a compressed question")
    labels = tuple(label.lower() for label in name.labels[:-1])
    question = Question(wire[HEADER.size : parser.current], labels, *parser.get_struct("!HH"))
    if sum(counts) > max_records:
        raise Malformed("too many records")
    records: list[Record] = []
    edns: Edns | None = None
    for section, count in enumerate(counts):
        for _ in range(count):
            at_root = not from_wire_parser(parser).labels[:-1]
            ttl_at = parser.current + 4
            kind, klass, ttl, length = parser.get_struct("!HHIH")
            data = parser.get_bytes(length)
            if kind == Type.OPT and section == 2:
                if edns is not None or not at_root:  # RFC 6891 section 6.1.1
                    raise Malformed("a wrong OPT record")
                edns = Edns(klass, ttl >> 24, (ttl >> 16) & 0xFF, bool(ttl & DO))
            records.append(Record(section, kind, klass, ttl, ttl_at, data))
    if strict and parser.remaining():
        raise Malformed("bytes behind the end")
    return Message(number, flags, question, tuple(records), edns)


def record(kind: int, ttl: int, data: bytes, owner: bytes = NAME_OF_QUESTION) -> bytes:
    """A record of class IN, as bytes."""
    return owner + RECORD.pack(kind, 1, ttl, len(data)) + data


def opt(*, payload: int = PAYLOAD, rcode: int = 0, do: bool = False, ede: tuple[int, str] | None = None) -> bytes:
    """An OPT record, with an extended error if there is one."""
    options = b""
    if ede is not None:
        text = ede[1].encode()
        options = struct.pack("!HHH", 15, 2 + len(text), ede[0]) + text
    return b"\x00" + RECORD.pack(Type.OPT, payload, (rcode >> 4) << 24 | (DO if do else 0), len(options)) + options


def query(number: int, question: Question, *, do: bool, cd: bool, edns: bool = True) -> bytes:
    """A recursive query of our own. AD says that we want to know whether the answer was validated (RFC 6840, 5.7)."""
    flags = RD | AD | (CD if cd else 0)
    ours = opt(do=do) if edns else b""
    return HEADER.pack(number, flags, 1, 0, 0, 1 if edns else 0) + question.wire + ours


def reply(
    query: Message,
    rcode: int,
    *,
    limit: int,
    flags: int = 0,
    counts: tuple[int, int, int] = (0, 0, 0),
    sections: bytes = b"",
    ede: tuple[int, str] | None = None,
) -> bytes:
    """The answer to a query, in at most `limit` bytes: what does not fit is left out, and TC says so.

    The question stands there as it was asked, letter for letter.  OPT answers OPT, and nothing of it is echoed
    but DO (RFC 6891 section 7).
    """
    edns = query.edns
    flags |= QR | (query.flags & (0x7800 | RD | CD)) | (rcode & 0xF)
    question = query.question.wire if query.question is not None else b""
    asked = 1 if query.question is not None else 0
    ours = opt(rcode=rcode, do=edns.do, ede=ede) if edns is not None else b""
    more = 1 if ours else 0
    if HEADER.size + len(question) + len(sections) + len(ours) > limit:
        flags |= TC
        counts, sections = (0, 0, 0), b""
        if ede is not None:  # its text is what may be missed first
            ours = opt(rcode=rcode, do=edns.do if edns is not None else False)
    return HEADER.pack(query.id, flags, asked, counts[0], counts[1], counts[2] + more) + question + sections + ours


def limit_of(query: Message, *, udp: bool) -> int:
    """The largest answer that may be sent (RFC 6891 section 6.2.3), in bytes."""
    if not udp:
        return 65535
    return 512 if query.edns is None else max(512, min(query.edns.payload, PAYLOAD))
