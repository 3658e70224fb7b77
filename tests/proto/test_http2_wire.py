"""The short ways through h2 end where its own way ends."""

import struct

import hpack
import pytest
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2ConnectionStateMachine
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, H2StreamStateMachine, StreamInputs

from kit.http2_peer import HEADERS, SETTINGS, frame, opening
from mxart.proto.http2_events import Opened
from mxart.proto.http2_wire import Wire, short_answer, short_request

HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", "mx.example"), (":path", "/")]


def test_a_whole_request_and_a_whole_answer_in_one_step_each() -> None:
    short, long = H2StreamStateMachine(1), H2StreamStateMachine(1)
    short_request(short)
    for step in (StreamInputs.RECV_HEADERS, StreamInputs.RECV_END_STREAM):
        long.process_input(step)
    assert vars(short) == vars(long)
    short_answer(short)
    for step in (StreamInputs.SEND_HEADERS, StreamInputs.SEND_DATA, StreamInputs.SEND_END_STREAM):
        long.process_input(step)
    assert vars(short) == vars(long)


def test_headers_leave_an_open_connection_as_it_is() -> None:
    machine = H2ConnectionStateMachine()
    machine.state = ConnectionState.SERVER_OPEN
    assert machine.process_input(ConnectionInputs.RECV_HEADERS) == []
    assert machine.state is ConnectionState.SERVER_OPEN


def state(stream: H2Stream) -> dict[str, object]:
    values = dict(vars(stream))
    return values | {
        "state_machine": vars(values["state_machine"]),
        "_inbound_window_manager": vars(values["_inbound_window_manager"]),
    }


@pytest.mark.parametrize("settings", [b"", struct.pack(">HLHL", 4, 12345, 5, 20000)])
def test_a_new_stream_is_as_h2_would_have_made_it(settings: bytes) -> None:
    """Also after the client changed the windows of its streams, and the largest frame."""

    def wire() -> Wire:
        made = Wire(65536, 128, 0.0)
        list(made.receive(opening() + frame(SETTINGS, payload=settings), 0.0))
        return made

    ours, own = wire(), wire()
    encoder = hpack.Encoder()
    for number in (1, 3, 9):
        events = list(ours.receive(frame(HEADERS, 4, number, encoder.encode(HEAD)), 0.0))
        assert [type(event) for event in events] == [Opened]
        theirs = own._begin_new_stream(number, AllowedStreamIDs.ODD)
        theirs.state_machine.process_input(StreamInputs.RECV_HEADERS)
        theirs.config = ours.config
        assert state(ours.streams[number]) == state(theirs)
        assert ours.highest_inbound_stream_id == own.highest_inbound_stream_id == number
    assert list(ours.streams) == list(own.streams)
    assert ours.window(9) == (12345 if settings else 65535)
    for wrong in (7, 10):
        with pytest.raises(ProtocolError):
            list(wire_after(wrong, wire(), encoder))


def wire_after(number: int, wire: Wire, encoder: hpack.Encoder) -> list[object]:
    """A stream whose number is too low, or not the client's."""
    list(wire.receive(frame(HEADERS, 5, 9, hpack.Encoder().encode(HEAD)), 0.0))
    return list(wire.receive(frame(HEADERS, 5, number, hpack.Encoder().encode(HEAD)), 0.0))
