"""What to do with a DNS query: answered here for the names that are claimed, forwarded or refused for the rest. Pure.

A claimed name has our addresses and nothing else: every other type is answered empty (NOERROR with a SOA,
RFC 2308 section 2.2), HTTPS and SVCB too, so that no client learns of another way there.

What counts is the name that is asked for.  Another name that is an alias (CNAME) of a claimed one keeps the
addresses that its forwarder gives: its clients would come to us with their own name, which nobody claims here.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

from msgspec import Struct

from mxart.proto.dns_wire import (
    AA,
    HEADER,
    NAME_OF_QUESTION,
    QR,
    RA,
    RD,
    Ede,
    Malformed,
    Message,
    Question,
    Rcode,
    Type,
    limit_of,
    parse,
    record,
    reply,
)

_MAX_RECORDS = 16  # a query has an OPT record, hardly ever another
_INTERNET = 1
_ANY_CLASS = 255
_NEGATIVE = 600  # seconds; the names that are special by RFC do not change

_NOBODY = b"\x09localhost\x00\x06nobody\x07invalid\x00"


class Answer(Struct, frozen=True):
    """Send this. `outcome` for the metrics: own, refused or malformed."""

    wire: bytes
    outcome: str


class Forward(Struct, frozen=True):
    """Somebody else knows: ask, then answer `query`."""

    query: Message
    question: Question
    key: Key


class Ignore(Struct, frozen=True):
    """Say nothing: it is an answer itself (two servers would talk forever), or no message at all."""


Decision = Answer | Forward | Ignore


class Key(Struct, frozen=True):
    """What makes two questions equal: the same answer does for both."""

    name: bytes
    type: int
    klass: int
    do: bool
    cd: bool


class Claims:
    """Names in lower case; `*.example.com` is every name below, of any depth, without example.com itself."""

    def __init__(self, names: Iterable[str]) -> None:
        split = [tuple(name.encode().split(b".")) for name in names]
        self._names = {name for name in split if name[0] != b"*"}
        self._patterns = {name[1:] for name in split if name[0] == b"*"}
        self._above = {name[depth:] for name in split for depth in range(1, len(name))}

    def __contains__(self, labels: tuple[bytes, ...]) -> bool:
        return labels in self._names or any(labels[depth:] in self._patterns for depth in range(1, len(labels)))

    def is_above(self, labels: tuple[bytes, ...]) -> bool:
        """Whether a claimed name lies below, so that this one exists, whatever others say (RFC 8020)."""
        return labels in self._above


class Rules:
    """The `[dns]` table, made ready. `addresses` are ours; `recursive`: there is somebody to forward to."""

    def __init__(self, claims: Claims, addresses: Sequence[str], ttl: float, *, recursive: bool) -> None:
        self.claims = claims
        self.recursive = recursive
        self._ttl = min(int(ttl), 0x7FFFFFFF)
        self._addresses = _by_type(addresses)

    def decide(self, wire: bytes, *, udp: bool) -> Decision:
        """What to do with a query of a client that may ask. Never raises."""
        if len(wire) < HEADER.size or int.from_bytes(wire[2:4], "big") & QR:
            return Ignore()
        try:
            query = parse(wire, max_records=_MAX_RECORDS)
        except Malformed:
            return Answer(_bare(wire, Rcode.FORMERR), "malformed")
        limit = limit_of(query, udp=udp)
        if query.opcode != 0:
            return Answer(_bare(wire, Rcode.NOTIMP), "refused")
        question = query.question
        if question is None:
            return Answer(_bare(wire, Rcode.FORMERR), "malformed")
        if query.edns is not None and query.edns.version != 0:  # RFC 6891 section 6.1.3
            return Answer(reply(query, Rcode.BADVERS, limit=limit), "refused")
        if question.klass != _INTERNET or question.type in (0, Type.OPT):
            return self._refuse(query, limit, (Ede.PROHIBITED, "only class IN is served"))
        if Type.FIRST_META <= question.type < Type.ANY:
            return self._refuse(query, limit, (Ede.PROHIBITED, "no transfers, no meta types"))
        if question.labels in self.claims:
            return Answer(self._own(query, question, self._addresses, len(question.labels), self._ttl, limit), "own")
        special = self._special(query, question, limit)
        if special is not None:
            return special
        if not self.recursive:
            return self._refuse(query, limit, (Ede.NOT_AUTHORITATIVE, "not served here, and nothing is forwarded"))
        if not query.flags & RD:
            return self._refuse(query, limit, (Ede.NOT_AUTHORITATIVE, "not served here; with RD it is forwarded"))
        do = query.edns is not None and query.edns.do
        return Forward(
            query, question, Key(question.name.lower(), question.type, question.klass, do, bool(query.flags & 0x10))
        )

    def failed(self, query: Message, ede: tuple[int, str], *, udp: bool) -> bytes:
        """SERVFAIL, saying why."""
        return reply(query, Rcode.SERVFAIL, limit=limit_of(query, udp=udp), flags=self._ra, ede=ede)

    @property
    def _ra(self) -> int:
        return RA if self.recursive else 0

    def _refuse(self, query: Message, limit: int, ede: tuple[int, str]) -> Answer:
        return Answer(reply(query, Rcode.REFUSED, limit=limit, flags=self._ra, ede=ede), "refused")

    def _special(self, query: Message, question: Question, limit: int) -> Answer | None:
        """Names that a forwarder answers itself: they mean this machine, nothing, or this resolver.

        RFC 6761 sections 6.3 and 6.4; RFC 9462 section 6.4: who asked our forwarder's resolver.arpa would go there
        directly, and round us.
        """
        if question.labels[-1:] == (b"localhost",):
            return Answer(self._own(query, question, _LOOPBACK, 1, _NEGATIVE, limit), "own")
        if question.labels[-1:] == (b"invalid",):
            soa = _soa(question, 1, _NEGATIVE)
            flags = AA | self._ra
            return Answer(reply(query, Rcode.NXDOMAIN, limit=limit, flags=flags, counts=(0, 1, 0), sections=soa), "own")
        if question.labels[-2:] == (b"resolver", b"arpa"):
            return Answer(self._own(query, question, {}, 2, _NEGATIVE, limit), "own")
        return None

    def _own(
        self, query: Message, question: Question, addresses: dict[int, list[bytes]], apex: int, ttl: int, limit: int
    ) -> bytes:
        found = addresses.get(question.type, [])
        kind = question.type
        if kind == Type.ANY:  # one set of records is enough (RFC 8482 section 4.1)
            kind, found = next(((type_, data) for type_, data in addresses.items() if data), (kind, []))
        if found:
            counts, sections = (len(found), 0, 0), b"".join(record(kind, ttl, data) for data in found)
        else:
            counts, sections = (0, 1, 0), _soa(question, apex, ttl)
        return reply(query, Rcode.NOERROR, limit=limit, flags=AA | self._ra, counts=counts, sections=sections)


def refuse_stranger(wire: bytes) -> bytes | None:
    """REFUSED to a client that may not ask: never longer than what it sent. None: not worth an answer."""
    if len(wire) < HEADER.size or int.from_bytes(wire[2:4], "big") & QR:
        return None
    try:
        query = parse(wire, max_records=_MAX_RECORDS)
    except Malformed:
        return None
    if query.question is None:
        return None
    return reply(Message(query.id, query.flags, query.question), Rcode.REFUSED, limit=512)


def _bare(wire: bytes, rcode: int) -> bytes:
    """An answer of a header only, to what could not be read further."""
    number, flags = struct.unpack_from("!HH", wire)
    return HEADER.pack(number, QR | (flags & (0x7800 | RD)) | rcode, 0, 0, 0, 0)


def _soa(question: Question, apex: int, ttl: int) -> bytes:
    """The SOA of the zone that the question's last `apex` labels name: how long "there is none" holds."""
    above = sum(len(label) + 1 for label in question.labels[: len(question.labels) - apex])
    owner = struct.pack("!H", 0xC000 | (HEADER.size + above)) if above else NAME_OF_QUESTION
    return record(Type.SOA, ttl, _NOBODY + struct.pack("!IIIII", 1, 3600, 600, 86400, ttl), owner)


def _by_type(addresses: Iterable[str]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {Type.A: [], Type.AAAA: []}
    for address in dict.fromkeys(addresses):
        ip = ipaddress.ip_address(address)
        found[Type.A if ip.version == 4 else Type.AAAA].append(ip.packed)
    return found


_LOOPBACK = _by_type(("127.0.0.1", "::1"))
