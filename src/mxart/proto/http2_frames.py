"""Bytes into frames, each charged before it costs anything. No I/O, and no state of HTTP/2 but the framing.

A frame that is too long is refused at its head, before it is waited for.  Header blocks in pieces
(HEADERS, CONTINUATION ...) are bounded by bytes and by pieces: whoever puts them together has to keep
them until the last one.
"""

from __future__ import annotations

from struct import Struct

from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError

from mxart.proto.http2_flood import Cost, FloodMeter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = Struct(">BHBBL")  # length in two parts, type, flags, stream (RFC 9113 section 4.1)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8

_CONTINUATIONS = 32  # frames that one header block may be cut into

RawFrame = tuple[int, int, int, bytes]  # type, flags, stream, payload


class Flooded(ProtocolError):
    """The peer used up one of its allowances."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class FrameCutter:
    """The frames of one connection, of which the peer is the client.

    `header_bytes` bounds a header block, `max_frame` a frame (SETTINGS_MAX_FRAME_SIZE), `now` is the
    time by the caller's clock, in seconds.
    """

    def __init__(self, header_bytes: int, max_frame: int, now: float) -> None:
        self.meter = FloodMeter(now)
        self.in_block = False  # the last frame began or went on with a header block that is not at its end
        self._header_bytes = header_bytes
        self._max_frame = max_frame
        self._now = now
        self._data = b""
        self._at = 0  # up to where it was cut
        self._preface = PREFACE
        self._greeted = False
        self._block_bytes = 0
        self._block_frames = 0

    def feed(self, data: bytes, now: float) -> None:
        """Bytes arrived. Raises ProtocolError when they are not the preface of HTTP/2."""
        self._now = now
        if self._preface:
            count = min(len(self._preface), len(data))
            if data[:count] != self._preface[:count]:
                raise ProtocolError("this is no HTTP/2 client: wrong preface")
            self._preface = self._preface[count:]
            data = data[count:]
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def cut(self) -> RawFrame | None:
        """The next frame; None when it is not whole yet. Raises ProtocolError."""
        data, start = self._data, self._at + 9
        if len(data) < start:
            return None
        high, low, kind, flags, stream_id = HEAD.unpack_from(data, self._at)
        length = high << 16 | low
        if length > self._max_frame:
            raise FrameTooLargeError(f"a frame of {length} bytes")
        end = start + length
        if len(data) < end:
            return None
        self._at = end
        payload = data[start:end]
        # The ordinary request is one HEADERS frame, and costs nothing.
        if kind != HEADERS or self.in_block or not self._greeted or not length or not flags & END_HEADERS:
            self._charge_frame(kind, flags, length)
        return kind, flags, stream_id & 0x7FFFFFFF, payload

    def charge(self, cost: Cost) -> None:
        """Spend one of an allowance. Raises Flooded."""
        if not self.meter.spend(cost, self._now):
            raise Flooded(f"too much of {cost.name} without anything getting done")

    def _charge_frame(self, kind: int, flags: int, length: int) -> None:
        cost: Cost | None = None
        if not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise ProtocolError("the first frame is not SETTINGS")  # RFC 9113 section 3.4
            self._greeted = True
        match kind:
            case 0:  # DATA
                if length == 0 and not flags & END_STREAM:
                    cost = Cost.EMPTY
            case 1 | 9:  # HEADERS, CONTINUATION
                if length == 0:
                    cost = Cost.EMPTY
                self._charge_block(flags, length)
            case 8:  # WINDOW_UPDATE
                cost = Cost.WINDOW
            case 3:  # RST_STREAM
                cost = Cost.CANCELLED
            case 4:  # SETTINGS
                cost = None if flags & ACK else Cost.SETTINGS
            case 6:  # PING
                cost = Cost.PING
            case _:  # PRIORITY, PUSH_PROMISE, GOAWAY, unknown
                cost = Cost.IDLE
        if cost is not None:
            self.charge(cost)

    def _charge_block(self, flags: int, length: int) -> None:
        self._block_bytes += length
        self._block_frames += 1
        if self._block_bytes > 2 * self._header_bytes or self._block_frames > _CONTINUATIONS:
            raise Flooded("a header block without end")
        self.in_block = not flags & END_HEADERS
        if not self.in_block:
            self._block_bytes = self._block_frames = 0
