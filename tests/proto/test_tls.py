"""TLS with Python's own ssl at the other end."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.socket import SocketType
from trio.testing import wait_all_tasks_blocked

from kit.descriptors import open_files
from kit.tls import accept, client_context, client_stream, connected, hello_bytes
from kit.wire import PEER, tcp_pair
from mxart.errors import BodyBroken, Disconnected
from mxart.proto.authority import Authority
from mxart.proto.certificates import Sessions
from mxart.proto.client_hello import parse_client_hello
from mxart.proto.tls import HandshakeFailed, TlsServer
from mxart.proto.tls_transport import TlsTransport, _Readiness

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
AUTHORITY = Authority.ephemeral()
Stream = trio.SSLStream[trio.SocketStream]


def served(name: str) -> bool:
    return name.endswith(".test")


@pytest.fixture
def server() -> TlsServer:
    return TlsServer(AUTHORITY, served)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


async def read_exactly(stream: Stream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = await stream.receive_some()
        assert more
        data += more
    return bytes(data)


async def read_all(receive: Callable[[int], Awaitable[bytes]]) -> None:
    while await receive(65536):
        pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_served_name_is_vouched_for_and_bytes_go_both_ways(server: TlsServer, version: ssl.TLSVersion) -> None:
    context = client_context(AUTHORITY, ["h2", "http/1.1"], version=version)
    async with connected(server, context, "A.Test") as (transport, stream):
        assert transport.protocol == stream.selected_alpn_protocol() == "h2"
        assert (transport.peer.scheme, transport.peer.sni) == ("https", "a.test")
        await stream.send_all(b"hello")
        assert await transport.receive_some() == b"hello"
        await transport.send_all(b"")
        await transport.send_all(bytearray(b"and back"))
        assert await read_exactly(stream, 8) == b"and back"


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["h2"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["http/1.0"], "http/1.1"), ([], "")],
)
async def test_the_protocol_agreed_on(server: TlsServer, offered: list[str], agreed: str) -> None:
    async with connected(server, client_context(AUTHORITY, offered)) as (transport, _):
        assert transport.protocol == agreed


async def both_fail(server: TlsServer, context: ssl.SSLContext, name: str | None) -> tuple[str, str]:
    """What server and client say about a handshake that cannot be."""
    ours, theirs = tcp_pair()
    stream = client_stream(theirs, context, name)
    said: dict[str, str] = {}

    async def serve() -> None:
        with pytest.raises(HandshakeFailed) as caught:
            await accept(server, ours)
        said["server"] = str(caught.value)

    async def shake() -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.do_handshake()
        said["client"] = str(caught.value.__cause__)
        theirs.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(shake)
    return said["server"], said["client"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_name_that_is_not_served_is_refused_by_name(server: TlsServer, version: ssl.TLSVersion) -> None:
    ours, theirs = await both_fail(server, client_context(AUTHORITY, version=version), "elsewhere.example")
    assert ours == "tls handshake refused: elsewhere.example is not served here"
    assert "UNRECOGNIZED_NAME" in theirs


async def test_a_client_of_another_protocol_is_told_so(server: TlsServer) -> None:
    ours, theirs = await both_fail(server, client_context(AUTHORITY, ["spdy/3", "imap"]), "a.test")
    assert ours == "tls handshake refused: the client offers only spdy/3, imap"
    assert "no application protocol" in theirs


async def test_a_client_that_does_not_trust_us_is_named_in_the_log(server: TlsServer) -> None:
    ours, theirs = tcp_pair()
    raw = socket.socket(fileno=theirs.detach())
    raw.setblocking(True)

    def client() -> None:  # in a thread: trio's own does not send the alert
        with raw, pytest.raises(ssl.SSLCertVerificationError):
            client_context(Authority.ephemeral()).wrap_socket(raw, server_hostname="a.test")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, client)
        with pytest.raises(HandshakeFailed) as caught:
            await accept(server, ours)
    assert str(caught.value) == "tls handshake failed: the client does not trust the CA (alert unknown ca)"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(server: TlsServer) -> None:
    context = client_context(AUTHORITY)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    ours, _ = await both_fail(server, context, "a.test")
    assert ours == "tls handshake failed: the client speaks no TLS from version 1.2 on"


async def test_without_a_name_the_certificate_is_for_the_address_that_was_connected_to(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY), "127.0.0.1") as (transport, _):
        assert transport.peer.sni is None


async def test_a_hello_byte_by_byte_is_a_hello(server: TlsServer) -> None:
    ours, theirs = tcp_pair()
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(AUTHORITY).wrap_bio(incoming, outgoing, server_hostname="a.test")
    made: list[TlsTransport] = []

    async def serve() -> None:
        made.append(await accept(server, ours))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    await theirs.send(bytes([byte]))
                    await trio.lowlevel.checkpoint()
                incoming.write(await theirs.recv(65536))
        for byte in outgoing.read():
            await theirs.send(bytes([byte]))
    made[0].abort()
    theirs.close()


async def test_the_deadline_holds_for_a_client_that_stops_in_the_middle(server: TlsServer) -> None:
    ours, theirs = tcp_pair()
    await theirs.send(hello_bytes(client_context(AUTHORITY), "a.test"))
    with pytest.raises(HandshakeFailed, match="took too long"):
        await accept(server, ours, seconds=0.05)
    with pytest.raises(ConnectionResetError):
        await read_all(theirs.recv)
    theirs.close()


async def test_a_client_that_leaves_in_the_middle(server: TlsServer) -> None:
    ours, theirs = tcp_pair()
    await theirs.send(hello_bytes(client_context(AUTHORITY), "a.test"))
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(HandshakeFailed, match="the client closed the connection"):
        await accept(server, ours)
    theirs.close()


async def test_cancelling_a_handshake_closes_the_connection(server: TlsServer) -> None:
    ours, theirs = tcp_pair()
    await theirs.send(hello_bytes(client_context(AUTHORITY), "a.test"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, server, ours)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(ConnectionResetError):
        await read_all(theirs.recv)
    theirs.close()


async def resume(
    server: TlsServer, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession]:
    """Connect once, in a thread since trio's TLS knows no sessions: whether it was resumed, and the next session."""
    ours, theirs = tcp_pair()
    raw = socket.socket(fileno=theirs.detach())
    raw.setblocking(True)

    def client() -> tuple[bool, ssl.SSLSession]:
        with context.wrap_socket(raw, server_hostname="a.test", session=session) as tls:
            assert tls.recv(1) == b"x"  # tickets come before it
            assert tls.session is not None
            return bool(tls.session_reused), tls.session

    results: list[tuple[bool, ssl.SSLSession]] = []

    async def connect() -> None:
        results.append(await trio.to_thread.run_sync(client))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        transport = await accept(server, ours)
        await transport.send_all(b"x")
        await transport.aclose()
    return results[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_resumed_by_another_worker(version: ssl.TLSVersion) -> None:
    sessions = Sessions()
    one, two = (TlsServer(AUTHORITY, served, sessions=sessions) for _ in range(2))
    context = client_context(AUTHORITY, version=version)
    reused, session = await resume(one, context, None)
    assert not reused
    reused, session = await resume(one, context, session)
    assert reused
    reused, _ = await resume(two, context, session)
    assert reused
    stranger = TlsServer(AUTHORITY, served)
    assert not (await resume(stranger, context, session))[0]


async def test_the_cheap_cipher_is_taken_but_for_clients_without_aes_in_their_processor(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (_, stream):
        assert stream.cipher()[0] == "TLS_AES_128_GCM_SHA256"
    for wishes, chosen in (
        ("ECDHE+AESGCM+AES256:ECDHE+AESGCM", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ECDHE+CHACHA20:ECDHE+AESGCM", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("ECDHE+AESGCM+AES256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ):
        context = client_context(AUTHORITY, version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(wishes)
        async with connected(server, context) as (_, stream):
            assert stream.cipher()[0] == chosen


async def test_a_large_body_and_a_file_arrive_whole(server: TlsServer, tmp_path: Path) -> None:
    data = os.urandom(5_000_001)
    path = tmp_path / "blob"
    path.write_bytes(data)
    async with connected(server, client_context(AUTHORITY)) as (transport, stream), trio.open_nursery() as nursery:

        async def send() -> None:
            await transport.send_all(memoryview(data))
            with path.open("rb") as file:
                await transport.send_file(file.fileno(), 0, len(data))
                await transport.send_file(file.fileno(), 17, 4)
                await transport.send_file(file.fileno(), 17, 0)

        nursery.start_soon(send)
        assert await read_exactly(stream, 2 * len(data) + 4) == data + data + data[17:21]


async def test_what_the_kernel_does_not_take_at_once_is_sent_later_and_once(server: TlsServer) -> None:
    def small() -> tuple[SocketType, SocketType]:
        return tcp_pair(receive_buffer=4096, send_buffer=4096)

    pieces = [os.urandom(30_000) for _ in range(40)]
    async with connected(server, client_context(AUTHORITY), pair=small) as (transport, stream):
        left = 0
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal left
                for piece in pieces:
                    if rest := transport.send_nowait(piece):
                        left += 1
                        await transport.send_all(bytes(rest))  # at another address
                large = b"".join(pieces)
                assert transport.send_nowait(large) == large, "so much is never tried at once"

            nursery.start_soon(send)
            assert await read_exactly(stream, 40 * 30_000) == b"".join(pieces)
        assert left
        transport.abort()
        with pytest.raises(Disconnected, match="closed here"):
            transport.send_nowait(b"x")


async def test_a_client_may_ask_and_wait_and_ask_and_then_send_a_lot(server: TlsServer) -> None:
    """From the third short record on nobody looks before the kernel tells; nothing is overlooked or waited for."""
    async with connected(server, client_context(AUTHORITY), progress=0.05) as (transport, stream):
        for number in range(6):
            await stream.send_all(b"?%d" % number)
            assert await transport.receive_some() == b"?%d" % number
            assert not transport.send_nowait(b"!%d" % number)
            assert await stream.receive_some() == b"!%d" % number
        await stream.send_all(b"a")
        await stream.send_all(b"b")  # in a record of its own
        assert [await transport.receive_some(1) for _ in range(2)] == [b"a", b"b"]
        await stream.send_all(b"two at a time")
        assert await transport.receive_some(7) == b"two at "
        assert await transport.receive_some(7) == b"a time", "what OpenSSL holds is not waited for"
        with pytest.raises(Disconnected, match=r"sent nothing for 0\.05 s"):
            await transport.receive_some()
        with trio.move_on_after(0.01):
            await transport.receive_some()
        data = os.urandom(100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            got = b""
            while len(got) < len(data):
                got += await transport.receive_some()
        assert got == data
        await stream.transport_stream.send_eof()
        assert await transport.receive_some() == b""


async def test_many_slow_readers_share_the_scratch_buffer_and_each_gets_its_own_file(
    server: TlsServer, tmp_path: Path
) -> None:
    """Every sender gets stuck in the middle of a record, and others use the buffer meanwhile."""
    contents = [bytes([number]) * 700_000 + os.urandom(1000) for number in range(6)]

    def small() -> tuple[SocketType, SocketType]:
        return tcp_pair(receive_buffer=4096, send_buffer=4096)

    async def one(number: int) -> None:
        path = tmp_path / str(number)
        path.write_bytes(contents[number])
        async with connected(server, client_context(AUTHORITY), pair=small) as (transport, stream):
            with path.open("rb") as file:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.send_file, file.fileno(), 0, len(contents[number]))
                    assert await read_exactly(stream, len(contents[number])) == contents[number]

    async with trio.open_nursery() as nursery:
        for number in range(len(contents)):
            nursery.start_soon(one, number)


async def test_a_file_that_is_shorter_than_said_breaks_the_body(server: TlsServer, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 10)
    async with connected(server, client_context(AUTHORITY)) as (transport, _):
        with path.open("rb") as file, pytest.raises(BodyBroken, match="1 bytes too early"):
            await transport.send_file(file.fileno(), 0, 11)


async def test_the_client_finishes_first(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        await stream.transport_stream.send_eof()
        assert await transport.receive_some() == b""
        await transport.send_all(b"still")
        assert await read_exactly(stream, 5) == b"still"


async def test_closing_politely_ends_with_close_notify(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            stream._https_compatible = False  # now a missing close_notify would be an error
            assert await stream.receive_some() == b""
            await stream.transport_stream.aclose()
        await transport.aclose()
        with pytest.raises(Disconnected):
            await transport.receive_some()
        with pytest.raises(Disconnected):
            await transport.send_all(b"x")


async def test_an_abort_is_seen_as_a_cut(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        await transport.send_all(b"part")
        transport.abort()
        transport.abort()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream.receive_some)


async def test_a_silent_client_runs_into_the_progress_timeout(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY), progress=0.02) as (transport, _):
        with pytest.raises(Disconnected, match=r"sent nothing for 0\.02 s"):
            await transport.receive_some()
        with pytest.raises(Disconnected, match=r"sent nothing for 0\.01 s"):
            await transport.receive_some(timeout=0.01)


async def test_a_client_that_does_not_read_runs_into_the_progress_timeout(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY), progress=0.02) as (transport, _):
        with pytest.raises(Disconnected, match=r"took nothing for 0\.02 s"):
            await transport.send_all(bytes(50_000_000))


async def test_a_reset_by_the_client_is_told_to_reader_and_writer(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        sock = stream.transport_stream.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        with pytest.raises(Disconnected, match="reset"):
            await transport.receive_some()
        with pytest.raises(Disconnected):
            await transport.send_all(b"x")


async def test_closing_wakes_a_task_that_receives(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(Disconnected):
                await transport.receive_some()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        transport.abort()


async def test_a_cancelled_receive_loses_nothing(server: TlsServer) -> None:
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.receive_some)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await stream.send_all(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            transport._since = 0.0  # its turn is long over: the next call gives way first
            with pytest.raises(trio.Cancelled):
                await transport.receive_some()
        assert await transport.receive_some() == b"kept"


async def test_one_task_reads_while_another_writes(server: TlsServer) -> None:
    data = os.urandom(2_000_000)
    async with connected(server, client_context(AUTHORITY)) as (transport, stream):
        got = bytearray()

        async def read_here() -> None:
            while len(got) < len(data):
                got.extend(await transport.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_here)
            nursery.start_soon(transport.send_all, data)
            nursery.start_soon(stream.send_all, data)
            assert await read_exactly(stream, len(data)) == data
        assert got == data


async def test_a_hello_that_changes_nothing_about_who_owns_the_socket(server: TlsServer) -> None:
    """An accept that is refused leaves the caller a socket that is closed for it."""
    ours, theirs = tcp_pair()
    data = hello_bytes(client_context(AUTHORITY), "elsewhere.example")
    hello = parse_client_hello(data)
    assert hello is not None
    await theirs.send(data)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(HandshakeFailed):
        await server.accept(ours, replace(PEER), hello, deadline=trio.current_time() + 5)
    assert ours.fileno() == -1
    assert await theirs.recv(100) == b"\x15\x03\x03\x00\x02\x02\x70"
    theirs.close()


@asynccontextmanager
async def s_client(server: TlsServer, *options: str) -> AsyncIterator[tuple[TlsTransport, trio.Process]]:
    """OpenSSL's own client: lines to its input are sent, but for K, R and Q, which are commands."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", address, "-servername", "a.test", *options]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        sock, _ = await trio.socket.from_stdlib_socket(listener).accept()
    transport = await accept(server, sock)
    try:
        yield transport, process
    finally:
        transport.abort()
        process.kill()
        await process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.aclose()
        await process.stdout.aclose()


@needs_openssl
async def test_a_client_may_change_its_keys_while_bytes_go_both_ways(server: TlsServer) -> None:
    """K sends KeyUpdate and asks for ours (RFC 8446 section 4.6.3)."""
    async with s_client(server, "-tls1_3") as (transport, process):
        assert process.stdin is not None
        assert process.stdout is not None
        printed = b""
        for number in range(20):
            await process.stdin.send_all(b"K\n")
            while printed.count(b"KEYUPDATE") <= number:  # what comes in one read with the command is part of it
                printed += await process.stdout.receive_some()
            line = b"line %d\n" % number
            await process.stdin.send_all(line)
            got = b""
            while got != line:
                got += await transport.receive_some()
            await transport.send_all(b"answer\n")


@needs_openssl
async def test_renegotiation_is_refused(server: TlsServer) -> None:
    async with s_client(server, "-tls1_2") as (transport, process):
        assert process.stdin is not None
        await process.stdin.send_all(b"before\n")
        assert await transport.receive_some() == b"before\n"
        await process.stdin.send_all(b"R\n")
        with suppress(Disconnected):
            assert await transport.receive_some() == b""  # s_client takes our no_renegotiation for an error and leaves


async def test_two_tasks_may_wait_for_the_same_direction_and_the_second_takes_over() -> None:
    """As when a write needs the rest of a KeyUpdate that the reader waits for too."""
    ours, theirs = tcp_pair()
    woken: list[str] = []
    with socket.socket(fileno=ours.detach()) as raw, theirs:
        raw.setblocking(False)
        readiness = _Readiness(trio.lowlevel.wait_readable)

        async def wait(name: str, scope: trio.CancelScope) -> None:
            with scope:
                await readiness.wait(raw)
                woken.append(name)

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(3)]
            nursery.start_soon(wait, "first", scopes[0])
            await wait_all_tasks_blocked()
            nursery.start_soon(wait, "second", scopes[1])
            await wait_all_tasks_blocked()
            scopes[0].cancel()  # it was the one in the kernel
            await wait_all_tasks_blocked()
            assert woken == ["second"]  # and will try again
            nursery.start_soon(wait, "again", scopes[2])
            await wait_all_tasks_blocked()
            await theirs.send(b"x")
        assert woken == ["second", "again"]
