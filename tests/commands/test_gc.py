"""`mxart gc`, as its user meets it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from kit.space import DAY, OWN, Warehouse
from mxart.cli import main
from mxart.commands.gc import shown_size
from mxart.commands.progress import bar, progress
from mxart.store.paths import DataPaths
from mxart.store.space.leader import leading

LOCAL = '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = tmp_path / "mxart.toml"
    config.write_text(LOCAL)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(
            main, ["--config", str(config), "--data", str(tmp_path / "data"), "gc", *arguments], catch_exceptions=False
        )

    return run


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    """An image, a layer without a manifest and a file without a name, all three days old."""
    house = Warehouse(tmp_path / "data", (OWN,))
    old = time.time() - 3 * DAY
    await house.push_image("1", at=old)
    await house.push_blob(b"x" * 2048, at=old)
    await house.put(b"y" * 1024, at=old)
    yield house
    house.close()


async def test_it_says_what_it_did_and_by_whose_files(house: Warehouse, run: Run) -> None:
    dry = await trio.to_thread.run_sync(run, "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.splitlines() == [
        "own: 1 file, 2.0 KiB, would go: nothing there refers to them",
        "store default: 2 files, 3.0 KiB, would be removed",
    ]
    assert house.on_disk() == 5
    real = await trio.to_thread.run_sync(run)
    assert real.stdout.splitlines() == [
        "own: 1 file, 2.0 KiB, went: nothing there refers to them",
        "store default: 2 files, 3.0 KiB, removed",
    ]
    assert house.on_disk() == 3
    house.check()


async def test_as_json_for_programs(house: Warehouse, run: Run) -> None:
    told = json.loads((await trio.to_thread.run_sync(run, "--json", "--dry-run")).stdout)
    assert told["dry_run"] is True
    assert told["blobs"] == {"default": {"files": 2, "bytes": 3072}}


async def test_the_grace_is_a_time_with_a_unit(house: Warehouse, run: Run) -> None:
    await trio.to_thread.run_sync(run, "--grace", "1w")
    assert house.on_disk() == 5
    wrong = await trio.to_thread.run_sync(run, "--grace", "soon")
    assert wrong.exit_code == 2
    assert '"24h"' in wrong.stderr
    await trio.to_thread.run_sync(run, "--grace", "2d")
    assert house.on_disk() == 3


async def test_a_server_that_runs_sees_what_it_did(house: Warehouse, run: Run) -> None:
    before = house.catalog.generation()
    await trio.to_thread.run_sync(run)
    assert house.catalog.generation() != before


async def test_two_at_once_are_one_and_the_other_is_told(house: Warehouse, run: Run, tmp_path: Path) -> None:
    with leading(str(DataPaths(tmp_path / "data").gc)) as alone:
        assert alone
        second = await trio.to_thread.run_sync(run)
    assert second.exit_code == 2
    assert second.stderr == "Error: another process is giving space back already; wait for its end\n"
    assert house.on_disk() == 5
    assert (await trio.to_thread.run_sync(run)).exit_code == 0


def test_where_nothing_was_ever_kept_there_is_nothing_to_do(run: Run, tmp_path: Path) -> None:
    told = run()
    assert told.exit_code == 2
    assert "no server has kept anything here" in told.stderr
    assert not (tmp_path / "data").exists()


async def test_a_catalog_that_cannot_be_read_is_one_line(house: Warehouse, run: Run, tmp_path: Path) -> None:
    house.close()
    for left in (tmp_path / "data").glob("catalog.sqlite*"):
        left.write_bytes(b"not a database at all" * 100)
    told = await trio.to_thread.run_sync(run)
    assert told.exit_code == 2
    assert len(told.stderr.splitlines()) == 1
    assert "catalog.sqlite" in told.stderr


def test_sizes_and_bars_are_for_people(tmp_path: Path) -> None:
    assert [shown_size(size) for size in (0, 1023, 1024, 5 << 30, 3 << 50)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "5.0 GiB", "3072.0 TiB",
    ]  # fmt: skip
    assert bar(1, 2, "removing files") == f"removing files  [{'#' * 15}{' ' * 15}]  50%"
    assert bar(0, 0, "x").endswith("100%")
    assert bar(7, None, "x") == "x  7"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_only_and_goes_in_the_end() -> None:
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        with progress(stream) as tell:
            tell(1, 2, "looking")
            tell(1, 2, "removing")
    assert file.getvalue() == ""
    assert "looking  [###" in terminal.getvalue()
    assert "removing" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
