"""DNS over UDP: datagrams of a socket that all workers share, answered from the address that they came to."""

from __future__ import annotations

import logging
import socket
import struct

import trio
from msgspec import Struct

from mxart.server.dns import Responder, Seldom, Waiting

log = logging.getLogger("mxart.dns")

IP_PKTINFO = 8  # linux/in.h; the socket module has it since Python 3.12 only
_IN_PKTINFO = struct.Struct("@I4s4s")
_IN6_PKTINFO = struct.Struct("@16sI")
_ROOM = socket.CMSG_SPACE(_IN6_PKTINFO.size) + socket.CMSG_SPACE(_IN_PKTINFO.size)
_DATAGRAM = 4096  # bytes; a longer one is no query
_IN_A_ROW = 32  # datagrams before others have their turn
_PAUSE = 0.1  # seconds before reading again when the system has no room

Ancillary = list[tuple[int, int, bytes]]


class _Sender(Struct):
    """A socket to answer by; closed when the last answer is out."""

    sock: socket.socket
    users: int = 1

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            self.sock.close()

    def send(self, wire: bytes, back: Ancillary, address: tuple[object, ...]) -> None:
        """Answer, or drop the answer: the client asks again."""
        try:
            self.sock.sendmsg([wire], back, 0, address)
        except OSError as error:
            log.debug("dns: no answer to %s: %s", address[0], error)


async def serve_udp(responder: Responder, shared: socket.socket, nursery: trio.Nursery) -> None:
    """Answer until cancelled; what takes waiting becomes a task of `nursery` and outlives this.

    `shared` is non-blocking, and is only borrowed.
    """
    sender = _Sender(shared.dup())
    seldom = Seldom()
    try:
        while True:
            await trio.lowlevel.wait_readable(sender.sock)
            try:
                _read_some(responder, sender, nursery)
            except OSError as error:
                if seldom.due() is not None:
                    log.warning("dns: cannot read: %s", error.strerror)
                await trio.sleep(_PAUSE)
    finally:
        sender.release()


def _read_some(responder: Responder, sender: _Sender, nursery: trio.Nursery) -> None:
    """Raises OSError."""
    for _ in range(_IN_A_ROW):
        try:
            wire, ancillary, _, address = sender.sock.recvmsg(_DATAGRAM, _ROOM)
        except BlockingIOError:
            return
        client = plain(address[0])
        try:
            found = responder.now(wire, client, udp=True) if responder.may_ask(client) else responder.stranger(wire)
        except Exception:  # what breaks over one datagram must not break the others
            log.exception("dns: a query of %s failed", client)
            continue
        if isinstance(found, Waiting):
            sender.users += 1
            nursery.start_soon(_later, responder, sender, found, client, _back(ancillary), address)
        elif found is not None:
            sender.send(found, _back(ancillary), address)


async def _later(
    responder: Responder,
    sender: _Sender,
    waiting: Waiting,
    client: str,
    back: Ancillary,
    address: tuple[object, ...],
) -> None:
    try:
        sender.send(await responder.later(waiting, client, udp=True), back, address)
    except Exception:
        log.exception("dns: a query of %s failed", client)
    finally:
        sender.release()


def _back(ancillary: Ancillary) -> Ancillary:
    """What makes the answer leave from where the query came to (ip(7), RFC 3542 section 6).

    The interface is left to routing, but for link-local addresses, which mean nothing without it.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) >= _IN_PKTINFO.size:
            _, local, _ = _IN_PKTINFO.unpack_from(data)
            return [(level, kind, _IN_PKTINFO.pack(0, local, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) >= _IN6_PKTINFO.size:
            local, index = _IN6_PKTINFO.unpack_from(data)
            return [(level, kind, _IN6_PKTINFO.pack(local, index if local[:2] == b"\xfe\x80" else 0))]
    return []


def plain(address: str) -> str:
    """An IPv4 address that came through a dual-stack socket is an IPv4 address."""
    return address.removeprefix("::ffff:") if "." in address else address
