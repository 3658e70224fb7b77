"""What a forwarder answered: checked, made ready to be kept, and made the answer to any equal question. Pure.

The sections behind the question are kept as bytes.  Compression pointers in them stay right, because the
question before them always has the same length; only its letters' case differs from client to client.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from mxart.proto.dns_wire import (
    AD,
    HEADER,
    RA,
    TC,
    Ede,
    Message,
    Question,
    Rcode,
    Record,
    Type,
    limit_of,
    parse,
    reply,
)

_LONGEST = 86400  # seconds; whatever upstream says, a day later we ask again
_LONGEST_NEGATIVE = 3600  # RFC 2308 section 5
STALE_TTL = 30  # seconds; what a stale answer's records are given (RFC 8767 section 4)


class Kept(Struct, frozen=True):
    """An answer with the OPT record gone. `lifetime` in seconds, 0: not to be kept; `ttls` are offsets and seconds."""

    rcode: int
    authentic: bool
    counts: tuple[int, int, int]
    sections: bytes
    ttls: tuple[tuple[int, int], ...]
    lifetime: int


class Truncated(Struct, frozen=True):
    """The rest is to be had over TCP."""


class Failed(Struct, frozen=True):
    """The forwarder answered that it cannot answer."""

    rcode: int

    def __str__(self) -> str:
        return next((known.name for known in Rcode if known == self.rcode), f"rcode {self.rcode}")


def check(wire: bytes, number: int, asked: Question, *, udp: bool = False) -> Kept | Truncated | Failed | None:
    """What a reply is worth. None: it does not belong to this query. Raises Malformed.

    Over UDP the name has to come back letter for letter: who only guesses does not know their case.  A server that
    does not keep it is asked again over TCP, so that is what a wrong one says (draft-vixie-dnsext-dns0x20).
    """
    if len(wire) < HEADER.size or int.from_bytes(wire[:2], "big") != number or not wire[2] & 0x80:
        return None
    message = parse(wire, strict=False)
    question = message.question
    if question is None:
        # Only a server that could not read the question answers without it.
        return Failed(message.rcode) if message.rcode != Rcode.NOERROR and not wire[4:6].strip(b"\x00") else None
    if (question.labels, question.type, question.klass) != (asked.labels, asked.type, asked.klass):
        return None
    if message.opcode != 0:
        return None
    if udp and question.name != asked.name:
        return Truncated()
    if message.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Failed(message.rcode)
    if message.flags & TC:
        return Truncated()
    return _keep(wire, message, asked)


def _keep(wire: bytes, message: Message, asked: Question) -> Kept:
    begin = HEADER.size + len(asked.wire)
    counts = [0, 0, 0]
    ttls: list[tuple[int, int]] = []
    end = begin
    positive = asked.type == Type.ANY
    lifetime = _LONGEST
    negative: int | None = None
    for one in message.records:
        if one.type == Type.OPT:
            break  # ours takes its place; what stands behind it (TSIG) was between the forwarder and us
        end = one.ttl_at + 6 + len(one.data)
        counts[one.section] += 1
        ttl = _ttl(one)
        if one.section == 0:
            positive = positive or one.type == asked.type
            lifetime = min(lifetime, ttl)
        elif one.section == 1 and one.type == Type.SOA and len(one.data) >= 22:
            ttl = negative = min(ttl, struct.unpack("!I", one.data[-4:])[0], _LONGEST_NEGATIVE)
        ttls.append((one.ttl_at - begin, ttl))
    _check_names(wire, message)
    if not positive or message.rcode == Rcode.NXDOMAIN:
        # Without a SOA nobody said how long it holds (RFC 2308 section 5).
        lifetime = min(lifetime, negative if negative is not None else 0)
    return Kept(
        message.rcode,
        bool(message.flags & AD),
        (counts[0], counts[1], counts[2]),
        wire[begin:end],
        tuple(ttls),
        lifetime,
    )


def _check_names(wire: bytes, message: Message) -> None:
    """Raises Malformed for a name that points into a TTL: it would be another one in each answer, or none."""
    without = bytearray(wire)
    for one in message.records:
        without[one.ttl_at : one.ttl_at + 4] = b"\xff\xff\xff\xff"
    parse(bytes(without), strict=False)


def _ttl(one: Record) -> int:
    return 0 if one.ttl & 0x80000000 else min(one.ttl, _LONGEST)  # RFC 2181 section 8


def answer(query: Message, kept: Kept, age: float, *, udp: bool, exists: bool, stale: bool = False) -> bytes:
    """The answer to a query out of what is kept since `age` seconds.

    `exists`: a name below is claimed, so that NXDOMAIN would be a lie about it.
    """
    sections = bytearray(kept.sections)
    for offset, ttl in kept.ttls:
        left = min(ttl, STALE_TTL) if stale else max(0, ttl - int(age))
        struct.pack_into("!I", sections, offset, left)
    flags = RA
    wants_authentic = query.flags & AD or (query.edns is not None and query.edns.do)
    if kept.authentic and wants_authentic and not stale:  # RFC 6840 section 5.8
        flags |= AD
    rcode = Rcode.NOERROR if kept.rcode == Rcode.NXDOMAIN and exists else kept.rcode
    ede: tuple[int, str] | None = None
    if stale:
        code = Ede.STALE_NXDOMAIN if rcode == Rcode.NXDOMAIN else Ede.STALE
        ede = (code, "the forwarders do not answer")
    return reply(
        query,
        rcode,
        limit=limit_of(query, udp=udp),
        flags=flags,
        counts=kept.counts,
        sections=bytes(sections),
        ede=ede,
    )
