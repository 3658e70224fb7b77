"""A checksum database of our own keeps its name, its key, and what it has ever signed."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from mxart.config import SUMDB_NAME
from mxart.errors import ConfigError
from mxart.repos.go.notes import SignerKey
from mxart.repos.own_keys import OwnKey, open_log, tree_of
from mxart.store.record_log import Entry


def test_a_name_is_made_up_once_and_its_key_is_for_nobody_else(tmp_path: Path) -> None:
    there = tmp_path / "sumdb"
    assert OwnKey.find(there) is None
    assert not there.exists()
    key = OwnKey.open(there)
    assert re.fullmatch(SUMDB_NAME, key.name)
    assert OwnKey.open(there).signer.secret == key.signer.secret
    found = OwnKey.find(there)
    assert found is not None
    assert found.name == key.name
    assert OwnKey.open(tmp_path / "another").name != key.name
    assert (there.stat().st_mode & 0o777, (there / f"{key.name}.key").stat().st_mode & 0o777) == (0o700, 0o600)
    assert key.signer.secret not in repr(key)


def test_each_name_has_a_key_of_its_own(tmp_path: Path) -> None:
    one, two = OwnKey.open(tmp_path, "sum.example.test"), OwnKey.open(tmp_path, "sum.example.test/go")
    assert (one.name, two.name) == ("sum.example.test", "sum.example.test/go")
    assert one.signer.verifier.public != two.signer.verifier.public
    assert OwnKey.open(tmp_path, "sum.example.test").signer == one.signer
    assert OwnKey.find(tmp_path, "sum.example.com") is None


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ("", "PRIVATE\\+KEY"),
        ("PRIVATE+KEY+sum.example.test+00000000+AAAA", "."),
        (SignerKey.generate("sum.other.test").secret, "is the key of sum.other.test"),
    ],
    ids=["empty", "short", "another"],
)
def test_a_key_that_cannot_be_used_stops_the_start_and_is_not_replaced(tmp_path: Path, held: str, why: str) -> None:
    file = tmp_path / "sum.example.test.key"
    file.write_text(held)
    with pytest.raises(ConfigError, match=f"(?s)sum.example.test.key.*{why}.*another \\[go\\] sumdb_name") as caught:
        OwnKey.open(tmp_path, "sum.example.test")
    assert file.read_text() == held
    assert held not in str(caught.value) or not held


def test_a_name_that_is_none_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("Sum Example\n")
    with pytest.raises(ConfigError, match="does not hold a name"):
        OwnKey.open(tmp_path)


async def _grow(path: Path, key: OwnKey, begin: int, end: int) -> None:
    with closing(open_log(path)) as records:
        for n in range(begin, end):
            await records.append(Entry(f"m{n}", f"{begin} m{n}\n".encode(), "", 1.0))
        key.note(tree_of(records, end))


async def test_a_log_that_was_put_back_is_not_signed_again(tmp_path: Path) -> None:
    path = tmp_path / "sumdb" / "log.sqlite"
    key = OwnKey.open(path.parent, "sum.example.test")
    await _grow(path, key, 0, 5)
    shutil.copy(path, tmp_path / "backup")
    await _grow(path, key, 5, 9)
    with closing(open_log(path)) as records:
        key.check(records)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", path)
    with closing(open_log(path)) as records, pytest.raises(ConfigError, match=r"has 5 records, and 9 of it were"):
        key.check(records)
    # Even if it has grown as large meanwhile.
    other = OwnKey.open(path.parent, "sum.second.test")
    await _grow(path, other, 5, 6)
    with closing(open_log(path)) as records:
        for n in range(20):
            await records.append(Entry(f"other{n}", b"other\n", "", 1.0))
        with pytest.raises(ConfigError, match=r"not the one whose first 9 records were signed.*\[go\] sumdb_name"):
            key.check(records)
        other.check(records)


def test_a_mark_never_goes_back_and_half_of_one_is_none(tmp_path: Path) -> None:
    key = OwnKey.open(tmp_path, "sum.example.test")
    with closing(open_log(tmp_path / "log")) as records:
        key.note(tree_of(records, 0))
        assert key.marked() == tree_of(records, 0)
        key.check(records)
    key.mark.write_text("go.sum database tree\n12")
    assert key.marked() is None
