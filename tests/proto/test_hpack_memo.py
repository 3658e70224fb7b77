"""What is remembered of HPACK is what hpack would say."""

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from mxart.proto.hpack_memo import BlockReader, BlockWriter

_NAMES = st.sampled_from([b"accept", b"date", b"etag", b"set-cookie", b"x-a", b"x-b", b":path"])
_FIELDS = st.lists(st.tuples(_NAMES, st.sampled_from([b"", b"1", b"two", b"v" * 300, b"w" * 4000])), max_size=5)
_SIZES = st.sampled_from([0, 100, 400, 4096])


def given_back(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return fields


@settings(deadline=None)
@given(st.lists(st.one_of(_FIELDS, _SIZES, st.tuples(_SIZES, _SIZES)), max_size=30))
def test_blocks_that_come_again_mean_what_they_say(steps: list[object]) -> None:
    """Blocks and changes of the table's size in any order, against a plain decoder."""
    encoder, plain, decoder = Encoder(), Decoder(), Decoder()
    BlockWriter[int](encoder)  # hpack's own table forgets to tell of a size that is set twice
    reader = BlockReader(decoder, given_back)
    for step in steps:
        match step:
            case int():
                encoder.header_table_size = step
            case (int() as first, int() as second):
                encoder.header_table_size = first
                if second != first:
                    encoder.header_table_size = second
            case list():
                block = encoder.encode(step)
                expected = [(name, value) for name, value in plain.decode(block, raw=True)]
                assert reader.read(block) == expected
                assert decoder.header_table.dynamic_entries == plain.header_table.dynamic_entries


@settings(deadline=None)
@given(st.lists(st.one_of(_FIELDS, _SIZES), max_size=30))
def test_answers_that_go_out_again_can_be_read(steps: list[object]) -> None:
    """Whatever is remembered, a plain decoder at the other end reads what was meant."""
    encoder, decoder = Encoder(), Decoder()
    writer: BlockWriter[tuple[tuple[bytes, bytes], ...]] = BlockWriter(encoder)
    for step in steps:
        match step:
            case int():
                encoder.header_table_size = step  # the peer's SETTINGS
            case list():
                for _ in range(3):
                    block = writer.write(tuple(step), lambda step=step: step)
                    assert [(name, value) for name, value in decoder.decode(block, raw=True)] == step


def test_a_table_that_was_emptied_and_restored_is_not_the_same_table() -> None:
    encoder, decoder = Encoder(), Decoder()
    reader = BlockReader(decoder, given_back)
    first = encoder.encode([(b"x-a", b"1")])
    reader.read(first)
    again = encoder.encode([(b"x-a", b"1")])
    assert reader.read(again) == reader.read(again) == [(b"x-a", b"1")]
    reader.read(b"\x20" + b"\x3f\xe1\x1f")  # size 0, then 4096
    with pytest.raises(HPACKError):
        reader.read(again)


def test_sizes_set_twice_before_an_answer_are_all_told() -> None:
    encoder, decoder = Encoder(), Decoder()
    writer: BlockWriter[int] = BlockWriter(encoder)
    fields = [(b"x-a", b"1")]
    decoder.decode(writer.write(1, lambda: fields))
    encoder.header_table_size = 0
    encoder.header_table_size = 0
    assert decoder.decode(writer.write(1, lambda: fields), raw=True) == fields
    assert decoder.header_table_size == 0


def test_what_differs_from_answer_to_answer_stays_out_of_the_table() -> None:
    encoder = Encoder()
    writer: BlockWriter[int] = BlockWriter(encoder)
    writer.write(1, lambda: [(b"etag", b'"a"'), (b"date", b"today"), (b"set-cookie", b"secret"), (b"server", b"mx")])
    assert [name for name, _ in encoder.header_table.dynamic_entries] == [b"server"]


def test_few_blocks_are_remembered_and_none_that_say_much() -> None:
    decoder = Decoder()
    asked: list[int] = []

    def count(fields: list[tuple[bytes, bytes]]) -> int:
        asked.append(1)
        return len(fields)

    reader = BlockReader(decoder, count)
    indexed = Encoder().encode([(b"x-a", b"y" * 1000)])
    reader.read(indexed)
    for _ in range(5):
        assert reader.read(b"\xbe" * 3) == 3
    assert len(asked) == 6  # a block of three bytes that says three kilobytes
    for _ in range(5):
        reader.read(b"\x82")
    assert len(asked) == 7
