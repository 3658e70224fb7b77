"""The frames of one HTTP/2 connection: bytes in, events out; answers in, bytes out. No I/O.

Theory of operation.  h2 is the judge of the protocol: every frame goes through its state machines,
its windows, its settings.  This subclass changes four things, each for a reason:

1. Frames are cut here and given to h2 one at a time.  So the events before a broken frame are not
   lost, a frame that is too long is refused at its head instead of after 16 MiB, and every frame
   can be charged to the flood meter before it costs.
2. HEADERS of new streams are judged by `http2_head`: what is wrong with a request is an error of
   the stream (RFC 9113 section 8.1.1), where h2 would end the connection; and what a block means
   may be remembered (`hpack_memo`).  A stream too many is refused (section 5.1.2), not fatal.
3. DATA is read, and HEADERS and DATA of answers are written, without building frame objects; their
   states and windows are still h2's.
4. GOAWAY, sent or received, ends nothing by itself (section 6.8): existing streams go on.  h2 would
   close.

Whatever raises here leaves a GOAWAY in the output: flush it and close.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError, StreamClosedError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, H2StreamStateMachine, StreamClosedBy, StreamInputs, StreamState
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mxart.proto.hpack_memo import BlockReader, BlockWriter
from mxart.proto.http2_events import Answer, Left, Opened
from mxart.proto.http2_flood import Cost
from mxart.proto.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    PADDED,
    Flooded,
    FrameCutter,
    RawFrame,
)
from mxart.proto.http2_head import Fields, Head, Malformed, Refused, judge_trailers, read_head

# Bytes of requests' bodies that wait for their handlers: of a stream, and of a connection.  They are all that a
# connection can make us hold.  Streams whose handlers keep up get more: over a long way the window is the speed.
STREAM_WINDOW, WIDE_STREAM_WINDOW = 128 << 10, 1 << 20
CONNECTION_WINDOW, WIDE_CONNECTION_WINDOW = 1 << 20, 4 << 20
_REMEMBERED = 1024  # closed streams, whose late frames are told from nonsense


class CompressionError(ProtocolError):
    """A header block cannot be decoded; the tables have parted for good (RFC 9113 section 4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class Wire(H2Connection):
    """The server's side of one connection.

    `header_bytes` is SETTINGS_MAX_HEADER_LIST_SIZE, `streams` SETTINGS_MAX_CONCURRENT_STREAMS, `now`
    the time by the caller's clock, in seconds.
    """

    def __init__(self, header_bytes: int, streams: int, now: float) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.highest_answered = 2**31 - 1  # streams above it came after the GOAWAY that names it
        self._header_bytes = header_bytes
        self._cutter = FrameCutter(header_bytes, self.max_inbound_frame_size, now)
        self.meter = self._cutter.meter
        self._wide = False
        self._first_window = self.remote_settings.initial_window_size  # of a stream, for what we send
        self._most_streams = streams
        self._closed_streams: OrderedDict[int, StreamClosedBy | None] = OrderedDict()
        self.incoming_buffer = FrameBuffer(server=False)  # the preface is taken off here
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: streams,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: header_bytes,
            },
        )
        # A list that is a little too large is decoded, so that it can be answered (431); at twice the size the
        # decoder stops in the middle, and the connection with it: that also bounds what a small block inflates to.
        self.decoder.max_header_list_size = 2 * header_bytes
        self._reader: BlockReader[Head | Malformed | Refused] = BlockReader(self.decoder, self._judge)
        self._writer: BlockWriter[Answer] = BlockWriter(self.encoder)
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - 65535)

    # Input

    def receive(self, data: bytes, now: float) -> Iterator[Event]:
        """The events of some bytes, frame by frame. Raises ProtocolError when the connection must end."""
        cutter = self._cutter
        try:
            cutter.feed(data, now)
            while True:
                in_block = cutter.in_block
                frame = cutter.cut()
                if frame is None:
                    return
                for event in self._pass(frame, in_block=in_block):
                    yield event
                    if isinstance(event, StreamReset) and not event.remote_reset:
                        self.charge(Cost.PROVOKED)
        except ProtocolError as error:
            if self.state_machine.state is not ConnectionState.CLOSED:
                self._terminate_connection(error.error_code)
            raise

    def _pass(self, frame: RawFrame, *, in_block: bool) -> list[Event]:
        """To h2; what comes most often goes a shorter way, past the parsing into frame objects."""
        kind, flags, stream_id, payload = frame
        if not in_block:
            if kind == HEADERS and flags & ~END_STREAM == END_HEADERS:
                if stream_id not in self.streams:
                    return self._opened(stream_id, payload, bool(flags & END_STREAM))
            elif kind == DATA and not flags & PADDED:
                stream = self.streams.get(stream_id)
                if stream is not None and stream.state_machine.state in _TAKES_DATA:
                    self._inbound_flow_control_window_manager.window_consumed(len(payload))
                    return stream.receive_data(payload, bool(flags & END_STREAM), len(payload))[1]
        return self.receive_data(HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream_id) + payload)

    def charge(self, cost: Cost) -> None:
        """Spend one of the peer's allowances. Raises Flooded, with a GOAWAY in the output."""
        try:
            self._cutter.charge(cost)
        except Flooded as error:
            if self.state_machine.state is not ConnectionState.CLOSED:
                self._terminate_connection(error.error_code)
            raise

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        """What h2 calls for HEADERS that did not go the short way."""
        ended = "END_STREAM" in frame.flags
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            raise ProtocolError("a stream cannot depend on itself")
        if frame.stream_id not in self.streams:
            return [], self._opened(frame.stream_id, frame.data, ended)
        frame.flags.discard("PRIORITY")
        frames, events = super()._receive_headers_frame(frame)
        for event in events:
            if isinstance(event, TrailersReceived):
                bad = judge_trailers([(name, value) for name, value in event.headers or ()])
                if bad is not None:
                    return frames, self._reset_by_us(frame.stream_id)
        return frames, events

    def _opened(self, stream_id: int, block: bytes, ended: bool) -> list[Event]:
        try:
            head = self._reader.read(block)
        except OversizedHeaderListError as error:
            raise Flooded(str(error)) from error
        except HPACKError as error:
            raise CompressionError(str(error)) from error
        if self.state_machine.state is not ConnectionState.SERVER_OPEN:  # where it would stay
            self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        if stream_id <= self.highest_inbound_stream_id and stream_id in self._closed_streams:
            if self._closed_streams[stream_id] in _RESETS:
                self.charge(Cost.IDLE)
                return []  # trailers of a stream that was reset meanwhile
            raise StreamClosedError(stream_id)
        crowded = len(self.streams) >= self._most_streams
        machine = self._begin(stream_id).state_machine
        if ended:
            short_request(machine)
        else:
            machine.process_input(StreamInputs.RECV_HEADERS)
        if stream_id > self.highest_answered or (crowded and self.open_inbound_streams > self._most_streams):
            self.refuse(stream_id)
            return []
        match head:
            case Malformed():
                return self._reset_by_us(stream_id)
            case Head() if ended and head.length:
                return self._reset_by_us(stream_id)  # a body was announced and none came
            case _:
                return [Opened(stream_id, head, ended)]

    def _begin(self, stream_id: int) -> H2Stream:
        """`_begin_new_stream` for the client's next stream; a test holds it against h2's own."""
        if stream_id <= self.highest_inbound_stream_id or not stream_id & 1:
            return self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)  # which says what is wrong
        stream = H2Stream(stream_id, self.config, STREAM_WINDOW, self._first_window)
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        self.highest_inbound_stream_id = stream_id
        return stream

    def _judge(self, fields: Fields) -> Head | Malformed | Refused:
        return read_head(fields, self._header_bytes)

    def _receive_data_frame(self, frame: DataFrame) -> tuple[list[Frame], list[Event]]:
        """DATA that was under way when the stream was reset is only counted; h2 would reset again for each."""
        if frame.stream_id not in self.streams and self._closed_streams.get(frame.stream_id) in _RESETS:
            self.charge(Cost.IDLE)
            size = frame.flow_controlled_length
            self._inbound_flow_control_window_manager.window_consumed(size)
            self.give_back(size)
            return [], []
        if frame.pad_length and not frame.data:
            self.charge(Cost.EMPTY)
        return super()._receive_data_frame(frame)

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[Event]]:
        """Unknown settings are ignored (RFC 9113 section 6.5.2); h2 would keep every one of 65536."""
        frame.settings = {setting: value for setting, value in frame.settings.items() if setting in _KNOWN_SETTINGS}
        result = super()._receive_settings_frame(frame)
        self._first_window = self.remote_settings.initial_window_size
        return result

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        if frame.stream_id > self.highest_inbound_stream_id or frame.stream_id % 2 == 0:
            raise ProtocolError("a stream that was never opened is reset")  # RFC 9113 section 6.4; h2 lets it pass
        return super()._receive_rst_stream_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        return [], [Left(frame.error_code)]

    # Output

    @property
    def pending(self) -> int:
        """Bytes of output that wait."""
        return len(self._data_to_send)

    def take(self) -> bytearray:
        """The output so far."""
        data, self._data_to_send = self._data_to_send, bytearray()
        return data

    def window(self, stream_id: int) -> int:
        """Bytes of body that this stream may send, its connection aside."""
        return self.streams[stream_id].outbound_flow_control_window

    def answer(self, stream_id: int, answer: Answer, data: bytes | None) -> None:
        """Write the head of an answer, and the whole body, if it is given: it must fit, as for `send_body`.

        b"": there is no body; None: it comes later.  Raises ValueError, and writes nothing, when a
        field may not be sent.
        """
        block = self._writer.write(answer, answer.fields)
        stream = self.streams[stream_id]
        machine = stream.state_machine
        if data and machine.state is StreamState.HALF_CLOSED_REMOTE:
            short_answer(machine)
        else:
            machine.process_input(StreamInputs.SEND_HEADERS)
            if data is not None:
                machine.process_input(StreamInputs.SEND_END_STREAM)
        ended = data is not None and not data
        if len(block) <= self.max_outbound_frame_size:
            flags = END_HEADERS | END_STREAM if ended else END_HEADERS
            self._data_to_send += HEAD.pack(0, len(block), HEADERS, flags, stream_id) + block
        else:
            self._write_block(stream_id, block, ended=ended)
        if data:
            self._write_data(stream, data, END_STREAM)

    def _write_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        """A header block that is cut into CONTINUATION frames."""
        most = self.max_outbound_frame_size
        kind, flags = HEADERS, END_STREAM if ended else 0
        while block:
            part, block = block[:most], block[most:]
            flags = flags if block else flags | END_HEADERS
            self._data_to_send += HEAD.pack(len(part) >> 16, len(part) & 0xFFFF, kind, flags, stream_id) + part
            kind, flags = CONTINUATION, 0

    def go_on(self, stream_id: int) -> None:
        """Write the interim answer 100."""
        self.send_headers(stream_id, ((":status", "100"),))

    def send_body(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        """Write a DATA frame that fits the windows and the peer's largest frame."""
        stream = self.streams[stream_id]
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if ended:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        self._write_data(stream, data, END_STREAM if ended else 0)

    def _write_data(self, stream: H2Stream, data: bytes, flags: int) -> None:
        size = len(data)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        if size and (stream.outbound_flow_control_window < 0 or self.outbound_flow_control_window < 0):
            raise AssertionError("a frame larger than the window")
        out = self._data_to_send
        out += HEAD.pack(size >> 16, size & 0xFFFF, DATA, flags, stream.stream_id)
        out += data

    def give_back(self, count: int, stream_id: int | None = None) -> None:
        """Let the peer send `count` more bytes of bodies; without a stream, on any but the one they came on."""
        if stream_id is not None:
            self.acknowledge_received_data(count, stream_id)
        elif increment := self._inbound_flow_control_window_manager.process_bytes(count):
            self._prepare_for_sending([WindowUpdateFrame(0, window_increment=increment)])

    def sip(self, stream_id: int, count: int) -> None:
        """Let the peer send the last `count` bytes of a stream; the connection's window is another matter."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.closed and count > (window := stream.inbound_flow_control_window):
            self.increment_flow_control_window(count - window, stream_id)

    def widen(self, stream_id: int) -> None:
        """Let the peer send further ahead on a stream."""
        if self.is_open(stream_id):
            self.increment_flow_control_window(WIDE_STREAM_WINDOW - STREAM_WINDOW, stream_id)
            if not self._wide:
                self._wide = True
                self.increment_flow_control_window(WIDE_CONNECTION_WINDOW - CONNECTION_WINDOW)

    def is_open(self, stream_id: int) -> bool:
        """Whether either side may still send on a stream."""
        stream = self.streams.get(stream_id)
        return stream is not None and not stream.closed

    def blame(self, stream_id: int) -> None:
        """Reset a stream for an error of the peer. Raises Flooded."""
        self._reset_by_us(stream_id)
        self.charge(Cost.PROVOKED)

    def reset(self, stream_id: int, error_code: ErrorCodes) -> None:
        """Reset a stream, if it is open."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.closed:
            self._prepare_for_sending(stream.reset_stream(error_code))
        self.forget(stream_id)

    def refuse(self, stream_id: int) -> None:
        """Tell the peer that nothing was done about a stream, and that it may try again. Raises Flooded."""
        self.charge(Cost.PROVOKED)
        self.reset(stream_id, ErrorCodes.REFUSED_STREAM)

    def forget(self, stream_id: int) -> None:
        """Drop the state of a closed stream but for how it closed."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._closed_streams[stream_id] = stream.closed_by
            if len(self._closed_streams) > _REMEMBERED:
                self._closed_streams.popitem(last=False)

    def goaway(self, last: int, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Write GOAWAY and go on with the streams up to `last`."""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=error_code)
        self._data_to_send += frame.serialize()

    def _reset_by_us(self, stream_id: int) -> list[Event]:
        """An error of the peer that costs it a stream, and, when it happens often, the connection."""
        self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        return [StreamReset(stream_id=stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False)]


_KNOWN_SETTINGS = frozenset(SettingCodes)
_TAKES_DATA = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)
_RESETS = (StreamClosedBy.SEND_RST_STREAM, StreamClosedBy.RECV_RST_STREAM)


def short_request(machine: H2StreamStateMachine) -> None:
    """RECV_HEADERS and RECV_END_STREAM of a new stream in one step; a test holds it against h2's own two."""
    machine.client = False
    machine.headers_received = True
    machine.state = StreamState.HALF_CLOSED_REMOTE


def short_answer(machine: H2StreamStateMachine) -> None:
    """SEND_HEADERS, SEND_DATA and SEND_END_STREAM of a stream whose request is whole; see `short_request`."""
    machine.headers_sent = True
    machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
    machine.state = StreamState.CLOSED
