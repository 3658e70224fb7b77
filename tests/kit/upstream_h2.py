"""A fake upstream that speaks HTTP/2 on TLS: small, for what the HTTP/1.1 fake cannot show."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio
import trustme


class FakeH2:
    """`bodies` by path; `reset`: paths whose stream is reset after half of the body; `goaway`: end after one answer."""

    def __init__(self, port: int) -> None:
        self.url = f"https://localhost:{port}"
        self.bodies: dict[str, bytes] = {}
        self.reset: set[str] = set()
        self.mute: set[str] = set()
        self.early: set[str] = set()  # answered before the body of the request has come; then no more of it is taken
        self.received: dict[str, bytes] = {}  # the bodies of requests, by path
        self.goaway = False
        self.requests: list[str] = []
        self.connections = 0
        self.open_connections = 0
        self.changed = trio.Event()

    async def until_closed(self) -> None:
        while self.open_connections:
            await self.changed.wait()

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        self.open_connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        rest: dict[int, tuple[str, bytes]] = {}
        paths: dict[int, str] = {}
        try:
            await stream.send_all(connection.data_to_send())
            while data := await stream.receive_some(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        path = dict(event.headers)[":path"]
                        self.requests.append(path)
                        paths[event.stream_id] = path
                        if event.stream_ended is not None or path in self.early:
                            self._answer(connection, event.stream_id, path, rest)
                    elif isinstance(event, h2.events.DataReceived):
                        path = paths[event.stream_id]
                        self.received[path] = self.received.get(path, b"") + event.data
                        if path not in self.early:
                            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                            if event.stream_ended is not None:
                                self._answer(connection, event.stream_id, path, rest)
                    elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                        rest.pop(getattr(event, "stream_id", 0), None)
                self._send(connection, rest)
                await stream.send_all(connection.data_to_send())
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, h2.exceptions.ProtocolError):
            pass
        finally:
            self.open_connections -= 1
            self.changed.set()
            self.changed = trio.Event()

    def _answer(
        self, connection: h2.connection.H2Connection, stream: int, path: str, rest: dict[int, tuple[str, bytes]]
    ) -> None:
        if path in self.mute:
            return
        body = self.bodies.get(path)
        fields = [(":status", "404" if body is None else "200"), ("content-length", str(len(body or b"")))]
        connection.send_headers(stream, fields, end_stream=not body)
        if body:
            rest[stream] = (path, body)

    def _send(self, connection: h2.connection.H2Connection, rest: dict[int, tuple[str, bytes]]) -> None:
        for stream, (path, whole) in list(rest.items()):
            body = whole
            while body:
                size = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size, len(body))
                if not size:
                    break
                if path in self.reset and len(body) - size < len(self.bodies[path]) / 2:
                    connection.reset_stream(stream)
                    del rest[stream]
                    break
                connection.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
            if stream in rest:
                rest[stream] = (path, body)
                if not body:
                    del rest[stream]
                    if self.goaway:
                        connection.close_connection()


@asynccontextmanager
async def fake_h2(cert: trustme.LeafCert, alpn: tuple[str, ...] = ("h2",)) -> AsyncIterator[FakeH2]:
    """A running fake on localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(list(alpn))
    cert.configure_cert(context)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    fake = FakeH2(listeners[0].socket.getsockname()[1])

    async def handle(stream: trio.SocketStream) -> None:
        hello = await stream.socket.recv(4096, socket.MSG_PEEK)
        if b"\x02h2" not in hello:  # Python's ssl would go on without ALPN; RFC 7301 section 3.2 has an alert for it
            await stream.send_all(b"\x15\x03\x03\x00\x02\x02\x78")
            await stream.aclose()
            return
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)
            return
        async with secured:
            await fake.serve(secured)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield fake
        nursery.cancel_scope.cancel()
