"""TLS on the server's side: from a hello that was peeked at to a transport.

The hello is still in the socket, and OpenSSL reads it again itself.  Decisions that it allows are made before OpenSSL
sees a byte: name (alert unrecognized_name) and protocol (no_application_protocol).  These alerts go out in clear
text, as every alert before the first key does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime

import trio
from OpenSSL import SSL
from trio.socket import SocketType

from mxart.config import CertificateFiles
from mxart.errors import MxartError
from mxart.message import Peer
from mxart.proto.authority import Authority
from mxart.proto.certificates import PROTOCOLS, Contexts, Sessions
from mxart.proto.client_hello import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, ClientHello, plain_alert
from mxart.proto.tls_transport import CLOSE_SECONDS, STEP, TlsTransport, explain, linger, reset


class HandshakeFailed(MxartError):
    """No TLS connection came to be. The text says why, in words for the log; the socket is closed."""


class TlsServer:
    """Makes TLS connections of TCP ones. One for a worker."""

    def __init__(
        self,
        authority: Authority,
        served: Callable[[str], bool],
        *,
        certificates: Iterable[CertificateFiles] = (),
        names: Iterable[str] = (),
        sessions: Sessions | None = None,
        protocols: tuple[bytes, ...] = PROTOCOLS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """See `Contexts`; raises ConfigError. `sessions`, made before forking, lets clients resume with any worker."""
        self._contexts = Contexts(
            authority, served, certificates=certificates, names=names, protocols=protocols, clock=clock
        )
        self._sessions = Sessions() if sessions is None else sessions
        self._protocols = protocols
        self._scratch = memoryview(bytearray(STEP))

    def needs(self, names: Iterable[str]) -> tuple[str, ...]:
        """See `Contexts.needs`."""
        return self._contexts.needs(names)

    async def accept(
        self,
        sock: socket.socket | SocketType,
        peer: Peer,
        hello: ClientHello,
        *,
        deadline: float,
        progress_seconds: float = 60.0,
    ) -> TlsTransport:
        """Shake hands on a socket whose hello was peeked at and is still unread.

        Takes the socket over: it belongs to the transport, or is closed; trio's is detached.  `deadline` is of
        `trio.current_time()`.  Raises HandshakeFailed; cancellation resets the connection.
        """
        if isinstance(sock, socket.socket):
            raw = sock
        else:
            raw = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        try:
            raw.setblocking(False)
            if raw.family in (socket.AF_INET, socket.AF_INET6):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self._contexts.find(hello.sni, peer.local_address)
            if context is None:
                await _refuse(raw, UNRECOGNIZED_NAME)
                raise HandshakeFailed(f"tls handshake refused: {hello.sni} is not served here")
            if hello.alpn and not any(protocol in hello.alpn for protocol in self._protocols):
                await _refuse(raw, NO_APPLICATION_PROTOCOL)
                offered = ", ".join(name.decode("ascii", "backslashreplace") for name in hello.alpn)
                raise HandshakeFailed(f"tls handshake refused: the client offers only {offered}")
            connection = SSL.Connection(self._sessions.context, raw)
            connection.set_context(context)
            connection.set_accept_state()
            await _shake_hands(connection, raw, deadline)
        except BaseException:
            reset(raw)
            raise
        peer = Peer(peer.address, peer.port, peer.local_address, peer.local_port, "https", hello.sni)
        return TlsTransport(raw, connection, peer, progress_seconds=progress_seconds, scratch=self._scratch)


async def _shake_hands(connection: SSL.Connection, sock: socket.socket, deadline: float) -> None:
    with trio.CancelScope(deadline=deadline):
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(sock)
            except SSL.WantWriteError:
                await trio.lowlevel.wait_writable(sock)
            except SSL.Error as error:
                # OpenSSL has written an alert; a reset right behind could overtake it in the client's kernel.
                with trio.move_on_after(CLOSE_SECONDS):
                    await linger(sock)
                raise HandshakeFailed(f"tls handshake failed: {explain(error)}") from error
            else:
                return
    raise HandshakeFailed("tls handshake failed: the client took too long")


async def _refuse(sock: socket.socket, alert: int) -> None:
    with trio.move_on_after(CLOSE_SECONDS):
        with suppress(OSError):
            sock.send(plain_alert(alert))  # seven bytes: there is room in a buffer that was never written to
        await linger(sock)
