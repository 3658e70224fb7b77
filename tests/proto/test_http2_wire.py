"""The short ways through h2 end where its own way ends."""

from h2.stream import H2StreamStateMachine, StreamInputs

from mxart.proto.http2_wire import short_answer, short_request


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
