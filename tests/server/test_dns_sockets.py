"""DNS on real sockets: datagrams, pipelined TCP, clients that are slow, rude, many."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import dns.message
import dns.rcode
import pytest
import trio

from kit.descriptors import open_files
from kit.nameserver import fake_server, mute, response
from mxart.config import Dns
from mxart.listeners_dns import BoundDns, bind_dns
from mxart.metrics import Metrics
from mxart.proto.dns import Claims, Decision, Rules
from mxart.server import metrics as series
from mxart.server.dns import Clients, Responder
from mxart.server.dns_forward import Forwarders
from mxart.server.dns_tcp import TcpServer
from mxart.server.dns_udp import serve_udp

QUERY = dns.message.make_query("docker.io", "A").to_wire()


@dataclass
class Served:
    bound: BoundDns
    tcp: TcpServer
    listeners: trio.CancelScope
    nursery: trio.Nursery

    @property
    def port(self) -> int:
        port: int = self.bound.udp[0].getsockname()[1]
        return port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, wire: bytes, host: str = "127.0.0.1") -> bytes:
        """One datagram there, one back, from where it was sent to."""
        with trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect((host, self.port))
            await sock.send(wire)
            with trio.fail_after(5):
                return await sock.recv(65535)


@asynccontextmanager
async def served(
    *forward: str,
    listen: str = "127.0.0.1:0",
    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128"),
    connections: int = 8,
    of_one: int = 8,
    idle: float = 10.0,
) -> AsyncIterator[Served]:
    bound = bind_dns(Dns(listen=listen, answer=("10.0.0.5",), forward=forward))
    assert bound is not None
    rules = Rules(Claims(["docker.io"]), ["10.0.0.5"], 60, recursive=bool(forward))
    forwarders = Forwarders(forward, bound.secret) if forward else None
    try:
        async with trio.open_nursery() as nursery:
            responder = Responder(rules, Clients(networks), forwarders, Metrics(series.families(()), 1), nursery)
            tcp = TcpServer(responder, connections=connections, of_one=of_one, idle=idle)
            async with trio.open_nursery() as listeners:
                for sock in bound.udp:
                    listeners.start_soon(serve_udp, responder, sock, nursery)
                for sock in bound.tcp:
                    listeners.start_soon(tcp.accept, sock, nursery)
                yield Served(bound, tcp, listeners.cancel_scope, nursery)
                listeners.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    finally:
        bound.close()


def framed(wire: bytes) -> bytes:
    return struct.pack("!H", len(wire)) + wire


async def read(stream: trio.SocketStream, count: int = 1) -> list[dns.message.Message]:
    """So many messages."""
    data = bytearray()
    found: list[dns.message.Message] = []
    with trio.fail_after(5):
        while len(found) < count:
            while len(data) >= 2 and len(data) >= 2 + struct.unpack("!H", data[:2])[0]:
                length = struct.unpack("!H", data[:2])[0]
                found.append(dns.message.from_wire(bytes(data[2 : 2 + length])))
                del data[: 2 + length]
            if len(found) < count:
                piece = await stream.receive_some()
                assert piece, f"the connection ended after {len(found)} answers"
                data += piece
    return found


async def ended(stream: trio.SocketStream) -> bool:
    with trio.fail_after(5):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def test_a_datagram_is_answered_from_the_address_that_it_came_to() -> None:
    """On every address one socket serves, and the client drops what comes from another one than it asked."""
    async with served(listen=":0") as server:
        for host in ("127.0.0.1", "127.0.0.2", "127.3.2.1", "::1"):
            answer = dns.message.from_wire(await server.exchange(QUERY, host))
            assert str(answer.answer[0][0]) == "10.0.0.5", host


async def test_garbage_and_answers_are_met_with_silence_and_the_next_query_is_served() -> None:
    async with served() as server:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", server.port))
            for wire in (b"", b"x", b"\xff" * 11, b"\xff" * 4000, b"\x00\x01\x80" + QUERY[3:], QUERY):
                await sock.send(wire)
            with trio.fail_after(5):
                assert dns.message.from_wire(await sock.recv(4096)).answer


async def test_a_fault_over_one_datagram_or_connection_stays_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decide = Rules.decide

    def faulty(rules: Rules, wire: bytes, *, udp: bool) -> Decision:
        if wire[:2] == b"!!":
            raise ZeroDivisionError
        return decide(rules, wire, udp=udp)

    monkeypatch.setattr(Rules, "decide", faulty)
    async with served() as server, await server.connect() as stream, await server.connect() as other:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", server.port))
            await sock.send(b"!!" + QUERY[2:])
            await sock.send(QUERY)
            with trio.fail_after(5):
                assert dns.message.from_wire(await sock.recv(4096)).answer
        await stream.send_all(framed(b"!!" + QUERY[2:]))
        assert await ended(stream)
        await other.send_all(framed(QUERY))
        assert (await read(other))[0].answer
    assert caplog.text.count("ZeroDivisionError") >= 2


async def test_a_flood_of_datagrams_leaves_room_for_others() -> None:
    async with fake_server(mute) as silent, served(silent.address) as server, trio.open_nursery() as nursery:
        files = open_files()

        async def flood(number: int) -> None:
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                await sock.connect(("127.0.0.1", server.port))
                for index in range(1000):
                    await sock.send(dns.message.make_query(f"n{number}x{index}.test", "A").to_wire())

        async with trio.open_nursery() as floods:
            for number in range(3):
                floods.start_soon(flood, number)
        for _ in range(50):
            try:
                with trio.fail_after(0.2):
                    assert dns.message.from_wire(await server.exchange(QUERY)).answer
                break
            except trio.TooSlowError:
                continue  # the kernel's queue was full, and a client asks again
        else:
            pytest.fail("no answer")
        assert open_files() - files < 1100, "256 questions under way, four attempts each"
        nursery.cancel_scope.cancel()


async def test_many_questions_in_one_segment_and_one_in_many() -> None:
    async with served() as server, await server.connect() as stream:
        queries = [dns.message.make_query("docker.io", "A", id=number).to_wire() for number in range(50)]
        await stream.send_all(b"".join(map(framed, queries)))
        assert [answer.id for answer in await read(stream, 50)] == list(range(50))
        for byte in framed(QUERY):
            await stream.send_all(bytes([byte]))
        assert (await read(stream))[0].answer


async def test_an_answer_that_is_ready_overtakes_one_that_is_not() -> None:
    async with fake_server(mute) as silent, served(silent.address) as server, await server.connect() as stream:
        slow = dns.message.make_query("slow.test", "A", id=1).to_wire()
        fast = dns.message.make_query("docker.io", "A", id=2).to_wire()
        await stream.send_all(framed(slow) + framed(fast))
        assert (await read(stream))[0].id == 2
        silent.behave = lambda query, _server, _tcp: response(query).to_wire()
        assert (await read(stream))[0].id == 1


async def test_a_client_that_says_it_is_done_still_gets_its_answers() -> None:
    def late(query: dns.message.QueryMessage, _server: object, _tcp: bool) -> bytes:
        return response(query).to_wire()

    async with fake_server(late) as upstream, served(upstream.address) as server, await server.connect() as stream:
        await stream.send_all(framed(dns.message.make_query("a.test", "A").to_wire()))
        await stream.send_eof()
        assert (await read(stream))[0].answer
        assert await ended(stream)


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x40half", b"\0\0", b"\xff\xff" + b"x" * 5000])
async def test_a_client_that_goes_or_stops_within_a_message_is_let_go(sent: bytes) -> None:
    async with served(idle=0.1) as server, await server.connect() as stream:
        before = open_files()
        await stream.send_all(sent)
        assert await ended(stream)
        assert open_files() < before


async def test_a_client_that_takes_no_answers_is_cut_off_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mxart.server.dns_tcp._SEND_SECONDS", 0.2)
    async with served() as server:
        server.bound.tcp[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        rude = trio.socket.socket()
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await rude.connect(("127.0.0.1", server.port))
        with trio.fail_after(5), rude, contextlib.suppress(ConnectionError):
            while True:  # until the buffers are full, and then until the connection is broken
                await rude.send(framed(QUERY) * 1000)
        async with await server.connect() as stream:
            await stream.send_all(framed(QUERY))
            assert (await read(stream))[0].answer


async def test_connections_are_counted_in_all_and_for_each_address() -> None:
    async with served(connections=3, of_one=2) as server:
        streams = [await server.connect() for _ in range(3)]
        for stream in streams:
            await stream.send_all(framed(QUERY))
        assert (await read(streams[0]))[0].answer
        assert (await read(streams[1]))[0].answer
        assert await ended(streams[2])
        await streams[0].aclose()
        for _ in range(100):
            again = await server.connect()
            streams.append(again)
            try:
                await again.send_all(framed(QUERY))
                if await again.receive_some():
                    break
            except trio.BrokenResourceError:
                continue  # the end of the first one was not seen yet
        else:
            pytest.fail("its place was not given free")
        for stream in streams:
            await stream.aclose()


async def test_strangers_get_a_refusal_by_udp_and_a_closed_connection_by_tcp() -> None:
    async with served(networks=("10.0.0.0/8",)) as server:
        answer = await server.exchange(QUERY)
        assert len(answer) <= len(QUERY)
        assert dns.message.from_wire(answer).rcode() == dns.rcode.REFUSED
        async with await server.connect() as stream:
            assert await ended(stream)


async def test_when_the_server_drains_what_is_under_way_is_answered() -> None:
    async with fake_server(mute) as slow, served(slow.address) as server, await server.connect() as stream:
        async with await server.connect() as quiet:
            await stream.send_all(framed(dns.message.make_query("a.test", "A").to_wire()))
            await slow.heard.wait()
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                await sock.connect(("127.0.0.1", server.port))
                await sock.send(dns.message.make_query("a.test", "A").to_wire())
                await trio.testing.wait_all_tasks_blocked(0.01)
                server.listeners.cancel()
                server.bound.close()
                server.tcp.drain()
                assert await ended(quiet)
                slow.behave = lambda query, _server, _tcp: response(query).to_wire()
                assert (await read(stream))[0].answer
                assert dns.message.from_wire(await sock.recv(4096)).answer
        assert await ended(stream)


async def test_nothing_stays_open_when_it_is_cancelled() -> None:
    before = open_files()
    async with fake_server(mute) as slow:
        async with served(slow.address) as server:
            stream = await server.connect()
            await stream.send_all(framed(dns.message.make_query("a.test", "A").to_wire()))
            await slow.heard.wait()
            await server.exchange(QUERY)
        await stream.aclose()
    assert open_files() == before
