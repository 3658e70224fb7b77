"""Accepts the connections of one worker, and gives each to the entrance (`entrance`).

A slot of the connection limit is taken only while a connection is at hand: were it held while waiting for one, each
listener would hold one for good, and a quiet listener could starve a busy one.  Whatever a connection turns into, a
tunnel or, behind a CONNECT, another one, it holds one slot.

Every connection is a task that ends in its own `except Exception`: what breaks one breaks no other.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Collection

import trio

from mxart.config import Limits
from mxart.errors import Disconnected, MxartError
from mxart.listeners import Role
from mxart.message import Handler, Peer
from mxart.metrics import Metrics
from mxart.proto.draining import Draining
from mxart.proto.tls import TlsServer
from mxart.server import metrics as series
from mxart.server.addresses import Address, OwnAddresses, plain
from mxart.server.entrance import Entrance
from mxart.server.passage import Passage
from mxart.server.tunnelling import Tunnelling, TunnelLog
from mxart.server.tunnels import TunnelTable
from mxart.upstream.dial import Dialer

log = logging.getLogger(__name__)

# What accept(2) reports of the connection that it would have returned; the next one may be sound.
_ITS_OWN = frozenset(
    (
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
    )
)
_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
_PAUSE = 0.1  # seconds before accepting again when the system has no room
_IN_A_ROW = 16  # connections accepted before others have their turn


class Gateway:
    """Serves the connections of one worker."""

    def __init__(
        self,
        *,
        handler: Handler,
        tls: TlsServer,
        tunnels: TunnelTable,
        dialer: Dialer,
        limits: Limits,
        max_connections: int,
        metrics: Metrics,
        tunnel_log: TunnelLog,
        names: Collection[str] = (),
    ) -> None:
        """`tunnel_log` is given a line, and its fields, for each tunnel that has ended.

        `names` are those that are served here, hosts in lower case and addresses: who takes us for a proxy, or is
        redirected to us, gets these from here.
        """
        self._slots = trio.Semaphore(max_connections)
        self._metrics = metrics
        self._draining = Draining()
        self._open = 0
        self._own = OwnAddresses()
        self._entrance = Entrance(
            handler=handler,
            tls=tls,
            passage=Passage(tunnels, names, self._own),
            tunnelling=Tunnelling(dialer, metrics, tunnel_log),
            limits=limits,
            metrics=metrics,
            draining=self._draining,
            slots=self._slots,
        )

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Let every connection end: idle ones now, busy ones after the request under way. Cancel `accept` first."""
        self._draining.set()
        self._entrance.drain()

    async def accept(self, listener: socket.socket, role: Role, nursery: trio.Nursery) -> None:
        """Accept until cancelled; each connection becomes a task of `nursery`. `listener` is non-blocking."""
        bound: Address = listener.getsockname()[:2]
        if not role.tunnel_to:
            self._own.add(bound)
        if role.transparent:
            self._entrance.redirected()
        # Whoever comes to one address, and was not redirected, has come to this one: nobody need ask the kernel.
        local = None if role.transparent or bound[0] in _ANY else (plain(bound[0]), bound[1])
        full = False
        in_a_row = 0
        while True:
            in_a_row += 1
            try:
                self._slots.acquire_nowait()
            except trio.WouldBlock:
                await self._slots.acquire()
            else:
                if in_a_row % _IN_A_ROW == 0:
                    await trio.lowlevel.checkpoint()
            try:
                sock, address = listener.accept()
                sock.setblocking(False)
            except BlockingIOError:
                self._slots.release()
                await trio.lowlevel.wait_readable(listener)
            except OSError as error:
                self._slots.release()
                if error.errno not in _ITS_OWN:  # EMFILE, most likely
                    if not full:
                        log.warning("cannot accept: %s; waiting for connections to end", error.strerror)
                    full = True
                    await trio.sleep(_PAUSE)
            else:
                full = False
                nursery.start_soon(self._connection, sock, address, local, role)

    async def _connection(self, sock: socket.socket, address: Address, local: Address | None, role: Role) -> None:
        self._metrics.add(series.ACCEPTED)
        self._open += 1
        self._metrics.set(series.CONNECTIONS, value=self._open)
        near = _local(sock) if local is None else local
        peer = Peer(plain(address[0]), address[1], near[0], near[1])
        try:
            await self._entrance.serve(sock, peer, role)
        except Disconnected as error:
            self._metrics.add(series.REFUSED)
            log.debug("%s: %s", peer.address, error)
        except MxartError as error:
            self._metrics.add(series.REFUSED)
            log.info("%s: closed: %s", peer.address, error)
        except Exception:
            log.exception("the connection of %s failed", peer.address)
        finally:
            sock.close()
            self._open -= 1
            self._metrics.set(series.CONNECTIONS, value=self._open)
            self._slots.release()


def _local(sock: socket.socket) -> Address:
    try:
        local = sock.getsockname()
    except OSError:
        return "", 0
    return plain(local[0]), local[1]
