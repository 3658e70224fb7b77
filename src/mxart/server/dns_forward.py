"""Asks other DNS servers: in their order, the next one as soon as one fails or is slow, and never for long.

Theory of operation.  A question is asked over UDP from a socket of its own, so with a source port and an id
that nobody else knows; the socket is connected, so that the kernel drops what comes from elsewhere and tells
us at once when nobody listens there.  A truncated answer, one to other letters than we wrote, or a crowd of wrong
ones (somebody guesses ids), is asked for again over TCP.  Attempts begin one after another while nothing has come,
and those that were begun stay open: the first good answer wins.  A forwarder that failed, or was too slow twice in
a row, stands behind the others for a while; once may be the name's fault.

The letters' case of the name is a pattern that follows from a secret which all workers share.  A query that
comes in with that very pattern is one of ours: the forwarders lead back to us.
"""

from __future__ import annotations

import hmac
import logging
import math
import secrets
import socket
import struct
from collections.abc import Sequence

import trio
from msgspec import Struct
from msgspec.structs import replace

from mxart.config import parse_address
from mxart.errors import MxartError
from mxart.proto.dns_kept import Failed, Kept, Truncated, check
from mxart.proto.dns_wire import Ede, Malformed, Question, Rcode, query

log = logging.getLogger("mxart.dns")

TOTAL_SECONDS = 3.8
"""For all forwarders together: clients ask again, or somebody else, after five (resolv.conf(5), `timeout`)."""

_GAPS = (0.7, 0.7, 0.8)  # seconds of silence before the next attempt begins
_BEHIND_SECONDS = 20.0
_WRONG = 16  # wrong answers until we ask over TCP
_TELLING_LETTERS = 12  # fewer could look like ours by chance


class Server(Struct, frozen=True):
    """A forwarder's address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def server_of(text: str) -> Server:
    """The server that a `forward` entry names; the configuration was checked."""
    if text.count(":") > 1 and not text.startswith("["):
        return Server(text, 53)
    return Server(*parse_address(text, default_port=53))


class Unanswered(MxartError):
    """No forwarder gave an answer. `ede` is the extended error for the client (RFC 8914)."""

    def __init__(self, ede: Ede, why: str) -> None:
        super().__init__(why)
        self.ede = ede


def patterned(question: Question, secret: bytes) -> tuple[bytes, int]:
    """The name with the case of its letters by our pattern, and how many letters it has. Never all in lower case."""
    plain = question.name.lower()
    bits = int.from_bytes(hmac.digest(secret, plain, "sha256"), "big")
    written = bytearray(plain)
    letters = [index for index, byte in enumerate(plain) if 97 <= byte <= 122]
    for number, index in enumerate(letters):
        if bits >> (number % 256) & 1:
            written[index] -= 32
    if letters and bytes(written) == plain:
        written[letters[0]] -= 32
    return bytes(written), len(letters)


class Forwarders:
    """The `forward` list of one worker. `secret` is shared by all workers of a server."""

    def __init__(self, servers: Sequence[str], secret: bytes) -> None:
        self._servers = [server_of(text) for text in servers]
        self._secret = secret
        self._behind: dict[Server, float] = {}
        self._last_answer: dict[Server, float] = {}
        self._was_slow: set[Server] = set()

    def is_ours(self, question: Question, *, under_way: bool) -> bool:
        """Whether this question is one that we sent: it has gone round.

        `under_way`: we are waiting for the answer to an equal one; then even a short name tells.
        """
        name, letters = patterned(question, self._secret)
        return name == question.name and letters >= (1 if under_way else _TELLING_LETTERS)

    async def ask(self, question: Question, *, do: bool, cd: bool) -> Kept:
        """An answer within `TOTAL_SECONDS`. Raises Unanswered. Cancellation closes what was opened."""
        name, _ = patterned(question, self._secret)
        round_ = _Round(self, replace(question, name=name), do=do, cd=cd)
        return await round_.run(self._order())

    def _order(self) -> list[Server]:
        """Those that answer first, each as configured; every one gets at least a second try when there are few."""
        now = trio.current_time()
        servers = sorted(self._servers, key=lambda server: now < self._behind.get(server, -math.inf))
        return servers * max(1, -(-(len(_GAPS) + 1) // len(servers)))

    def failed(self, server: Server, why: str) -> None:
        """Put a forwarder behind the others."""
        if server not in self._behind:
            log.warning("dns: forwarder %s: %s", server, why)
        self._behind[server] = trio.current_time() + _BEHIND_SECONDS

    def has_answered_since(self, server: Server, time: float) -> bool:
        """Whether it answered any question: its silence about one is then that name's fault."""
        return self._last_answer.get(server, -math.inf) >= time

    def slow(self, server: Server, why: str) -> None:
        """Another one was faster, though it was asked later."""
        if server in self._was_slow:
            self.failed(server, why)
        self._was_slow.add(server)

    def answered(self, server: Server) -> None:
        """It is well, or well again."""
        self._last_answer[server] = trio.current_time()
        self._was_slow.discard(server)
        if self._behind.pop(server, None) is not None:
            log.info("dns: forwarder %s answers again", server)


class _Round:
    """One question, asked of one forwarder after the other."""

    def __init__(self, forwarders: Forwarders, question: Question, *, do: bool, cd: bool) -> None:
        self._forwarders = forwarders
        self._question = question
        self._do = do
        self._cd = cd
        self._won: Kept | None = None
        self._winner: Server | None = None
        self._reasons: dict[Server, str] = {}
        self._refusals: set[Server] = set()
        self._begun: list[Server] = []

    async def run(self, order: Sequence[Server]) -> Kept:
        servers = set(order)
        began = trio.current_time()
        with trio.move_on_after(TOTAL_SECONDS):
            async with trio.open_nursery() as nursery:
                for number, server in enumerate(order):
                    if server in self._refusals:
                        continue  # it said that it cannot, and would say so again
                    over = trio.Event()
                    self._begun.append(server)
                    nursery.start_soon(self._attempt, server, over, nursery.cancel_scope)
                    last = number == len(order) - 1
                    with trio.move_on_after(math.inf if last else _GAPS[min(number, len(_GAPS) - 1)]):
                        await over.wait()
                    if self._won is not None or self._refusals == servers:
                        nursery.cancel_scope.cancel()
                        break
        if self._won is not None:
            first = self._begun[0]
            if first is not self._winner and first not in self._reasons:
                self._forwarders.slow(first, f"slower than {self._winner}")
            return self._won
        for server in servers - self._reasons.keys():
            why = f"no answer within {TOTAL_SECONDS:g} s"
            if self._forwarders.has_answered_since(server, began):
                self._reasons[server] = why
            else:
                self._failed(server, why)
        said = self._refusals == servers
        why = "; ".join(f"{server}: {reason}" for server, reason in sorted(self._reasons.items(), key=str))
        raise Unanswered(Ede.OTHER if said else Ede.NO_REACHABLE_AUTHORITY, why)

    def _failed(self, server: Server, why: str) -> None:
        self._reasons[server] = why
        self._forwarders.failed(server, why)

    async def _attempt(self, server: Server, over: trio.Event, all_attempts: trio.CancelScope) -> None:
        try:
            found = await _ask_udp(server, self._question, do=self._do, cd=self._cd)
            if isinstance(found, Failed) and found.rcode in (Rcode.FORMERR, Rcode.NOTIMP):
                # Perhaps it is older than EDNS (RFC 6891 section 6.2.2).
                found = await _ask_udp(server, self._question, do=False, cd=self._cd, edns=False)
            if isinstance(found, Truncated):
                found = await _ask_tcp(server, self._question, do=self._do, cd=self._cd)
        except (OSError, Malformed) as error:
            why = (error.strerror if isinstance(error, OSError) else str(error)) or str(error)
            self._failed(server, why)
        else:
            if isinstance(found, Kept):
                self._forwarders.answered(server)
                self._won, self._winner = found, server
                all_attempts.cancel()
            else:
                # It is alive, and knows no answer to this one question; another may.
                self._reasons[server] = str(found)
                self._refusals.add(server)
        over.set()


async def _ask_udp(
    server: Server, question: Question, *, do: bool, cd: bool, edns: bool = True
) -> Kept | Truncated | Failed:
    """Raises OSError, Malformed. Waits without an end of its own."""
    number = secrets.randbelow(65536)
    with trio.socket.socket(server.family, socket.SOCK_DGRAM) as sock:
        await sock.connect((server.host, server.port))
        await sock.send(query(number, question, do=do, cd=cd, edns=edns))
        for _ in range(_WRONG):
            wire = await sock.recv(65535)
            try:
                found = check(wire, number, question, udp=True)
            except Malformed:
                continue
            if found is not None:
                return found
    return Truncated()


async def _ask_tcp(server: Server, question: Question, *, do: bool, cd: bool) -> Kept | Failed:
    """RFC 7766. Raises OSError, Malformed. Waits without an end of its own."""
    number = secrets.randbelow(65536)
    wire = query(number, question, do=do, cd=cd)
    with trio.socket.socket(server.family, socket.SOCK_STREAM) as sock:
        await sock.connect((server.host, server.port))
        rest = struct.pack("!H", len(wire)) + wire
        while rest:
            rest = rest[await sock.send(rest) :]
        (length,) = struct.unpack("!H", await _read(sock, 2))
        found = check(await _read(sock, length), number, question)
    if found is None or isinstance(found, Truncated):
        raise Malformed("a wrong answer over TCP")
    return found


async def _read(sock: trio.socket.SocketType, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await sock.recv(count - len(data))
        if not piece:
            raise Malformed("the connection ended within the answer")
        data += piece
    return data
