"""The byte stream under a wire engine: plain TCP here, TLS in `tls`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from mxart.message import Peer


class Transport(Protocol):
    """One connection's bytes, both ways. One task receives and one task sends at a time.

    Every method that waits raises Disconnected when the peer is gone, or when nothing moved for the
    transport's progress timeout.  Cancellation of a receive loses nothing; cancellation of a send
    leaves the stream torn: abort it.
    """

    @property
    def peer(self) -> Peer: ...

    @property
    def protocol(self) -> str:
        """What ALPN agreed on: "h2", "http/1.1", or "" where nothing was negotiated."""
        ...

    async def receive_some(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """The next bytes; b"" when the peer has finished sending.

        `timeout` in seconds overrides the progress timeout; at its end Disconnected is raised.
        """
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. Tries at once, and waits only when the kernel's buffer is full."""
        ...

    def send_nowait(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        """Send what the kernel takes at once, while no other send is under way; raises Disconnected.

        Returns the rest; unless it is empty, `send_all` must be given it next.  A task that sends like this over and
        over gives way to others in its receives.
        """
        ...

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send `count` bytes that are known to be in a file: sendfile(2) on plain TCP, read and encrypt on TLS.

        Works in small steps so that the loop is never held for long.
        """
        ...

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent (FIN, behind close_notify in TLS). Receiving goes on."""
        ...

    async def aclose(self) -> None:
        """Finish politely (close_notify, FIN, and a bounded wait so that the last bytes are not lost to a reset)."""
        ...

    def abort(self) -> None:
        """Cut the connection so that the peer notices: RST, no close_notify. Idempotent."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """A transport that a thread may receive from."""

    def receive_into(self, buffer: memoryview, wait: float) -> int:
        """For a thread, while no task receives: fill `buffer` from its front, waiting at most `wait` seconds.

        Returns 0 if nothing came, and at the end: `receive_some` tells which.  Raises Disconnected.
        """
        ...
