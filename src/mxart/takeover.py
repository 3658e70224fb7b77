"""An answer after which the connection, or the stream, speaks HTTP no more: to CONNECT (RFC 9110 section 9.3.6)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from mxart.body import Body


class Duplex(Protocol):
    """The client's bytes behind a successful CONNECT, both ways. One task receives and one task sends at a time.

    What waits raises Disconnected when the client is gone.  Cancellation of a receive loses nothing;
    after that of a send the stream is torn.
    """

    async def receive_some(self) -> bytes:
        """The next bytes, however long they take to come; b"" when the client has finished sending."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send everything; returns when there is room for more."""
        ...

    async def send_eof(self) -> None:
        """Tell the client that nothing more will come. It may go on sending."""
        ...


class Takeover(Body):
    """The body of a 200 to CONNECT: the wire sends the head, and calls `run` instead of sending a body.

    `close` is called as that of any body, in any case, after `run` or without it.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.length = None

    @abstractmethod
    async def run(self, duplex: Duplex) -> None:
        """Use the bytes; returns when both ways have ended.

        Raises Disconnected, and what else an exchange may, when they did not end as they should: the client is shown a
        reset then.
        """

    @property
    @abstractmethod
    def sent(self) -> int:
        """Bytes that went to the client so far."""
