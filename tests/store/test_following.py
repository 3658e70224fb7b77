"""What a follower takes for the end of a file is its end, whenever it was descheduled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.store import HEAD, OneStore, ScriptedOrigin, read_all, running_store, some_bytes
from mxart.digest import Digest
from mxart.store.locks import elect
from mxart.store.notes import Note, Notes

DATA = some_bytes(1_000_003)
DIGEST = Digest.of(DATA)
HALF = 400_000


@pytest.mark.parametrize("announced", [len(DATA), None])
async def test_a_file_that_is_completed_between_two_looks_at_it_is_not_cut_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int | None
) -> None:
    """Between the look at its size and that at its notes the follower may lose the processor for long."""
    paths = OneStore(tmp_path).paths
    disk, won = elect(paths.partial(DIGEST))
    assert won
    notes = Notes(paths.notes(DIGEST), os.fstat(disk).st_ino)
    os.pwrite(disk, DATA[:HALF], 0)
    notes.append(Note(total=announced, headers=HEAD.items))
    ends = False
    read = Notes.read

    def complete_first(self: Notes) -> None:
        nonlocal ends
        if ends:
            ends = False
            os.pwrite(disk, DATA[HALF:], HALF)
            notes.append(Note(verified=True))
        read(self)

    monkeypatch.setattr(Notes, "read", complete_first)
    origin = ScriptedOrigin(DATA)
    async with running_store(tmp_path) as store:
        source = (await store.transfers.join(DIGEST, None, origin)).source
        assert await source.available(0) > 0
        ends = True
        assert await read_all(source) == DATA
        assert source.total == len(DATA)
        source.close()
    notes.close()
    os.close(disk)
    assert origin.asked == []
