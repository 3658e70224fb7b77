"""Tiles prove what is in a signed tree, of whatever size; a tree of the tests' own says what is right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kit.sumdb import Log
from mxart.repos.go.trees import DATA, Inconsistent, Plan, Tile, Tree, peaks, record_hash, records_of, root

BIG = Log([f"record {n}\n".encode() for n in range(70_000)])
SIZES = st.one_of(st.integers(1, 700), st.integers(1, 70_000), st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537]))


def tiles_for(plan: Plan, log: Log = BIG) -> dict[Tile, bytes]:
    found = {}
    for tile in plan.tiles:
        data = log.tile(tile.level, tile.number, tile.width)
        assert data is not None, f"{tile.path} is asked of a tree that has no such tile"
        found[tile] = data
    return found


@settings(deadline=None)
@given(SIZES, st.data())
def test_every_record_of_a_tree_is_proven_by_its_tiles(size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, size - 1))
    plan = Plan(BIG.tree(size), [(0, number)])
    assert plan.prove(tiles_for(plan)) == [record_hash(BIG.records[number])]


@settings(deadline=None)
@given(SIZES, st.data())
def test_an_older_tree_is_found_to_be_the_beginning_of_a_newer_one(size: int, data: st.DataObject) -> None:
    older = data.draw(st.integers(0, size))
    plan = Plan(BIG.tree(size), peaks(older))
    assert root(plan.prove(tiles_for(plan))) == BIG.tree(older).hash


@settings(deadline=None)
@given(SIZES, st.data())
def test_one_wrong_bit_in_any_tile_is_noticed(size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, size - 1))
    plan = Plan(BIG.tree(size), [(0, number)])
    tiles = tiles_for(plan)
    wrong = data.draw(st.sampled_from(plan.tiles))
    at = data.draw(st.integers(0, len(tiles[wrong]) - 1))
    changed = bytearray(tiles[wrong])
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Inconsistent):
        plan.prove({**tiles, wrong: bytes(changed)})


@settings(deadline=None)
@given(SIZES, st.data())
def test_a_tile_that_is_cut_or_too_long_is_noticed(size: int, data: st.DataObject) -> None:
    plan = Plan(BIG.tree(size), [(0, size - 1)])
    tiles = tiles_for(plan)
    wrong = data.draw(st.sampled_from(plan.tiles))
    for bad in (tiles[wrong][:-1], tiles[wrong] + b"\0" * 32, b""):
        with pytest.raises(Inconsistent, match="bytes instead of"):
            plan.prove({**tiles, wrong: bad})


def test_the_tiles_of_another_tree_do_not_prove_this_one() -> None:
    plan = Plan(replace(BIG.tree(300), hash=bytes(32)), [(0, 7)])
    with pytest.raises(Inconsistent, match="signed root"):
        plan.prove(tiles_for(plan))


def test_a_whole_tile_is_proven_beside_nodes() -> None:
    plan = Plan(BIG.tree(70_000), [], [Tile(0, 3)])
    tiles = tiles_for(plan)
    assert Tile(0, 3) in plan.tiles
    assert plan.prove(tiles) == []
    with pytest.raises(Inconsistent):
        plan.prove({**tiles, Tile(0, 3): bytes(8192)})


def test_what_a_tree_does_not_have_is_not_planned_for() -> None:
    with pytest.raises(ValueError, match="has no node"):
        Plan(BIG.tree(10), [(0, 10)])
    with pytest.raises(ValueError, match="has no tile"):
        Plan(BIG.tree(10), [], [Tile(0, 1)])
    with pytest.raises(ValueError, match="has no tile"):
        Plan(BIG.tree(10), [], [Tile(1, 0)])
    assert Plan(BIG.tree(0), []).prove({}) == []


@given(st.integers(0, 1 << 50), st.integers(-1, 7), st.integers(1, 256))
def test_the_path_of_a_tile_is_read_as_it_is_written(number: int, level: int, width: int) -> None:
    tile = Tile(level, number, width)
    assert Tile.parse(tile.path) == tile


def test_paths_of_tiles_are_those_of_the_protocol() -> None:
    assert Tile(4, 1_234_067, 1).path == "tile/8/4/x001/x234/067.p/1"
    assert Tile(0, 0).path == "tile/8/0/000"
    assert Tile(DATA, 999_999, 255).path == "tile/8/data/x999/999.p/255"
    assert Tile(1, 1000).path == "tile/8/1/x001/000"


@pytest.mark.parametrize(
    "path",
    [
        "tile/8/0/0",
        "tile/8/0/0000",
        "tile/8/0/x000/001",
        "tile/8/00/001",
        "tile/8/-1/001",
        "tile/7/0/001",
        "tile/8/8/001",
        "tile/8/0/001.p/0",
        "tile/8/0/001.p/256",
        "tile/8/0/001.p/257",
        "tile/8/0/001.p/07",
        "tile/8/0/001\n",
        "tile/8/0/٠٠١",
        "tile/8/0/../001",
        "tile/8/0/" + "x001/" * 4000 + "000",
        "",
    ],
)
def test_other_paths_are_none(path: str) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile.parse(path)


def test_a_tree_is_read_from_the_text_of_its_note() -> None:
    tree = BIG.tree(5)
    assert Tree.parse(str(tree)) == tree
    assert Tree.parse(f"{tree}a line of tomorrow\n") == tree
    assert str(tree).startswith("go.sum database tree\n5\n")


@pytest.mark.parametrize(
    "text",
    [
        "go.sum database tree\n05\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n-5\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n9999999999999999999\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n5\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+Qe=\n",
        "go.sum database tree\n5\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=",
        "go.sum database tree v2\n5\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "",
    ],
)
def test_other_texts_tell_of_no_tree(text: str) -> None:
    with pytest.raises(ValueError, match="does not tell of a tree"):
        Tree.parse(text)


def test_the_records_in_a_tile_are_told_apart() -> None:
    assert records_of(b"a\nb\n\nc\n\n") == [b"a\nb\n", b"c\n"]
    with pytest.raises(ValueError, match="within a record"):
        records_of(b"a\n\nb\n")
