"""The thread that hashes beside the one that writes: in order, all of it, and gone when it is done."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.store import some_bytes
from mxart.store.hash_state import new_hash
from mxart.store.uploads_hashing import PIECE, HashingAside

DATA = some_bytes(PIECE)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "upload's hash"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from([1, 1000, PIECE - 1, PIECE]), max_size=12), max_size=3))
def test_pieces_are_hashed_in_their_order_stretch_after_stretch(stretches: list[list[int]]) -> None:
    aside, hashed, reference = HashingAside(), new_hash("sha256"), hashlib.sha256()
    mark = 0
    for counts in stretches:
        for count in counts:
            buffer = aside.buffer()
            assert aside.buffer() is buffer
            buffer[:count] = DATA[:count]
            buffer[0] = mark = (mark + 1) % 256
            reference.update(buffer[:count])
            aside.hash(hashed, count)
        aside.finish()
        assert hashed.hexdigest() == reference.hexdigest()
    assert threads() == []


def test_small_pieces_take_no_thread() -> None:
    aside, hashed = HashingAside(), new_hash("sha256")
    for _ in range(100):
        aside.buffer()[:5] = b"small"
        aside.hash(hashed, 5)
        assert threads() == []
    assert hashed.hexdigest() == hashlib.sha256(b"small" * 100).hexdigest()


def test_a_hash_that_fails_is_told_and_holds_nobody_up() -> None:
    class Broken:
        def update(self, data: bytes | bytearray | memoryview, /) -> None:
            raise RuntimeError("libcrypto cannot go on")

        def hexdigest(self) -> str:
            return ""

        def state(self) -> bytes | None:
            return None

    aside = HashingAside()
    for _ in range(20):
        aside.buffer()
        aside.hash(Broken(), PIECE)
    with pytest.raises(RuntimeError, match="cannot go on"):
        aside.finish()
    aside.finish()
    assert threads() == []
