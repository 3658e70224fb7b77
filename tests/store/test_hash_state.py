"""A hash that was put aside on disk goes on as if nothing had been, and what is not its state is never taken for it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxart.errors import BadRequest
from mxart.store import hash_state, uploads_state
from mxart.store.hash_state import new_hash, resume
from mxart.store.uploads_state import (
    Identity,
    forget_checkpoint,
    read_checkpoint,
    read_identity,
    write_checkpoint,
    write_identity,
)

ALGORITHMS = ["sha256", "sha512"]
NAME = "0" * 32
IDENTITY = Identity("local", "team/app", "ann", "sha256", 12.5)


@contextmanager
def state_file() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        write_identity(file.fileno(), NAME, IDENTITY)
        yield file.fileno()


def test_this_machine_can_keep_a_hash() -> None:
    """Where this fails the program still works, and reads uploads again after a restart."""
    assert new_hash("sha256").state() is not None
    assert new_hash("sha512").state() is not None


@settings(deadline=None)
@given(st.sampled_from(ALGORITHMS), st.lists(st.binary(max_size=700), max_size=12), st.sets(st.integers(0, 11)))
def test_however_the_bytes_are_split_and_wherever_it_is_put_aside_it_is_the_same_digest(
    algorithm: str, parts: list[bytes], pauses: set[int]
) -> None:
    hashed = new_hash(algorithm)
    reference = hashlib.new(algorithm)
    size = 0
    with state_file() as fd:
        for number, part in enumerate(parts):
            hashed.update((part, bytearray(part), memoryview(part), memoryview(bytearray(part)))[number % 4])
            reference.update(part)
            size += len(part)
            if number in pauses:
                write_checkpoint(fd, NAME, size, hashed)
                hashed.update(b"what the old one does does not matter any more")
                found = read_checkpoint(fd, NAME, algorithm, size)
                assert found is not None
                assert found[0] == size
                hashed = found[1]
            assert hashed.hexdigest() == reference.hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_bits_than_32_bits_can_count_are_counted_right(algorithm: str) -> None:
    """The count of bits has two halves."""
    piece = bytes(1 << 20)
    hashed, reference = new_hash(algorithm), hashlib.new(algorithm)
    for _ in range(520):  # 2**32 bits and some
        hashed.update(piece)
        reference.update(piece)
    again = resume(algorithm, hashed.state() or b"")
    assert again is not None
    again.update(b"end")
    reference.update(b"end")
    assert again.hexdigest() == reference.hexdigest()


@settings(deadline=None)
@given(st.integers(0, 700), st.integers(0, 7))
def test_a_state_in_which_one_bit_has_flipped_is_none(place: int, bit: int) -> None:
    with state_file() as fd:
        hashed = new_hash("sha256")
        hashed.update(b"some bytes")
        write_checkpoint(fd, NAME, 10, hashed)
        whole = os.pread(fd, 100_000, 4096).partition(b"\n")[0] + b"\n"
        place %= len(whole)
        os.pwrite(fd, bytes([whole[place] ^ (1 << bit)]), 4096 + place)
        assert read_checkpoint(fd, NAME, "sha256", 10) is None


@settings(deadline=None)
@given(st.integers(0, 600))
def test_a_state_that_was_torn_is_none(kept: int) -> None:
    with state_file() as fd:
        hashed = new_hash("sha256")
        write_checkpoint(fd, NAME, 0, hashed)
        old = os.pread(fd, 1024, 4096)
        hashed.update(b"some bytes")
        write_checkpoint(fd, NAME, 10, hashed)
        new = os.pread(fd, 1024, 4096)
        torn = new[:kept] + old[kept:]
        os.pwrite(fd, torn, 4096)
        found = read_checkpoint(fd, NAME, "sha256", 10)
        assert found is None or (found[0], found[1].hexdigest()) in {
            (0, hashlib.sha256().hexdigest()),
            (10, hashlib.sha256(b"some bytes").hexdigest()),
        }


def test_a_state_speaks_only_for_its_upload_its_algorithm_and_bytes_that_are_there() -> None:
    with state_file() as fd:
        hashed = new_hash("sha256")
        write_checkpoint(fd, NAME, 10, hashed)
        assert read_checkpoint(fd, NAME, "sha256", 10) is not None
        assert read_checkpoint(fd, NAME, "sha256", 9) is None
        assert read_checkpoint(fd, NAME, "sha512", 10) is None
        assert read_checkpoint(fd, "1" * 32, "sha256", 10) is None
        forget_checkpoint(fd)
        assert read_checkpoint(fd, NAME, "sha256", 10) is None


def test_a_state_is_not_believed_after_the_machine_was_started_again_or_with_another_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with state_file() as fd:
        write_checkpoint(fd, NAME, 10, new_hash("sha256"))
        with monkeypatch.context() as other:
            other.setattr(uploads_state, "_boot", lambda: "another one")
            assert read_checkpoint(fd, NAME, "sha256", 10) is None
        with monkeypatch.context() as other:
            other.setattr(uploads_state, "LIBRARY", "another one")
            assert read_checkpoint(fd, NAME, "sha256", 10) is None
        assert read_checkpoint(fd, NAME, "sha256", 10) is not None


def test_where_nothing_tells_of_the_start_of_the_machine_no_state_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_state, "_boot", lambda: "")
    with state_file() as fd:
        write_checkpoint(fd, NAME, 10, new_hash("sha256"))
        assert read_checkpoint(fd, NAME, "sha256", 10) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_libcrypto_hashlib_does_it_and_there_is_no_state(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = new_hash(algorithm).state() or b""
    monkeypatch.setattr(hash_state, "_functions", lambda _: None)
    hashed = new_hash(algorithm)
    hashed.update(b"some ")
    assert hashed.state() is None
    hashed.update(memoryview(bytearray(b"bytes")))
    assert hashed.hexdigest() == hashlib.new(algorithm, b"some bytes").hexdigest()
    assert resume(algorithm, kept) is None
    with state_file() as fd:
        write_checkpoint(fd, NAME, 10, hashed)
        assert read_checkpoint(fd, NAME, algorithm, 10) is None


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_whose_an_upload_is_is_read_as_it_was_written(repository: str, package: str, owner: str) -> None:
    identity = Identity(repository, package, owner, "sha512", 1.25)
    with tempfile.TemporaryFile() as file:
        write_identity(file.fileno(), NAME, identity)
        assert read_identity(file.fileno(), NAME) == identity
        assert read_identity(file.fileno(), "1" * 32) is None


def test_names_of_an_absurd_length_are_refused() -> None:
    with tempfile.TemporaryFile() as file, pytest.raises(BadRequest, match="too long"):
        write_identity(file.fileno(), NAME, Identity("r", "p" * 5000, "o", "sha256", 0))


@pytest.mark.parametrize("kept", [0, 1, 33, 60, 100])
def test_half_an_identity_is_none(kept: int) -> None:
    with tempfile.TemporaryFile() as file:
        write_identity(file.fileno(), NAME, IDENTITY)
        os.ftruncate(file.fileno(), kept)
        assert read_identity(file.fileno(), NAME) is None
