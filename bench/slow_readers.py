"""Many clients that read slowly: `slow_readers.py URL COUNT BYTES_PER_SECOND SECONDS`.

Prints once a second how many of them are in mid-body, and goes on for SECONDS once all are; exits 1 if
one was cut.  Small receive buffers, so that what they do not take waits in the server and not in the kernel here.
"""

from __future__ import annotations

import ssl
import sys
from urllib.parse import urlsplit

import trio

_TICK = 0.1


async def main(url: str, count: int, rate: int, seconds: float) -> int:
    """Start everybody, tell every second, stop at the end."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    reading: set[int] = set()
    broken: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # whose certificate it is is not the question
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    arriving = trio.CapacityLimiter(20)  # memory is the question, not a storm of handshakes

    async def one(number: int) -> None:
        async with arriving:
            stream: trio.abc.Stream = await _connect(str(parts.hostname), int(parts.port or 0))
            if parts.scheme == "https":
                stream = trio.SSLStream(stream, context, https_compatible=True)
            request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
            await stream.send_all(request.encode())
            head = await stream.receive_some(4096)
        if not head.startswith(b"HTTP/1.1 200 "):
            broken.append(head[:200].decode(errors="replace"))
            return
        reading.add(number)
        taken, started = len(head), trio.current_time()
        while True:
            due = int((trio.current_time() - started) * rate)
            while taken < due:
                piece = await stream.receive_some(min(65536, due - taken))
                if not piece:
                    broken.append(f"reader {number} was cut after {taken} bytes")
                    return
                taken += len(piece)
            await trio.sleep(_TICK)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
        left = int(seconds)  # from when everybody reads
        while left and not broken:
            await trio.sleep(1)
            left -= len(reading) == count
            sys.stdout.write(f"{len(reading)}\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()
    if broken:
        sys.stderr.write(f"{len(broken)} readers failed: {broken[0]}\n")
    return 1 if broken else 0


async def _connect(host: str, port: int) -> trio.SocketStream:
    sock = trio.socket.socket()
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 65536)
    await sock.connect((host, port))
    return trio.SocketStream(sock)


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
