"""`mxart retention`, as its user meets it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from kit.space import DAY, OWN, Warehouse
from mxart.cli import main

CONFIG = (
    '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'
    'retention = [{ tags = "v*", keep = 1, days = 30 }, { untagged_days = 7 }]\n'
    '[repository.other]\nformat = "oci"\nkind = "local"\npath = "/other"\n'
)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "mxart.toml").write_text(CONFIG)

    def run(*arguments: str) -> Result:
        options = ["--config", str(tmp_path / "mxart.toml"), "--data", str(tmp_path / "data")]
        return CliRunner().invoke(main, [*options, "retention", *arguments], catch_exceptions=False)

    return run


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    """Three versions, forty, fifty and sixty days old, `latest` at the oldest, and a manifest without a tag."""
    house = Warehouse(tmp_path / "data", (OWN,))
    now = time.time()
    for number, age in (("1", 60), ("2", 50), ("3", 40)):
        await house.push_image(f"v{number}", at=now - age * DAY)
    await house.push_manifest(b"manifest of v1", tags=["latest"], at=now - DAY)
    await house.push_manifest(b"loose", at=now - 8 * DAY)
    yield house
    house.close()


async def test_a_preview_says_what_goes_and_why_and_a_run_does_it(house: Warehouse, run: Run) -> None:
    names = house.names()
    told = await trio.to_thread.run_sync(run, "preview")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert "own  app:v1  not one of the newest 1, and older than 30 days (v*)" in lines
    assert "own  app:v2  not one of the newest 1, and older than 30 days (v*)  2.0 KiB" in lines
    assert any("nothing points at it, and nobody pushed or pulled it for 7 days  5 bytes" in line for line in lines)
    assert lines[-1] == "own: 2 tags and 2 manifests would go, 2.0 KiB with them"
    assert house.names() == names
    went = await trio.to_thread.run_sync(run, "run", "own")
    assert went.stdout.splitlines()[:-1] == lines[:-1]
    assert went.stdout.splitlines()[-1] == "own: 2 tags and 2 manifests went, 2.0 KiB with them"
    assert [tag.name for tag in house.catalog.tags("own", "app", "", 9)] == ["latest", "v3"]
    house.check()
    again = await trio.to_thread.run_sync(run, "run")
    assert again.stdout == "own: 0 tags and 0 manifests went, 0 bytes with them\n"


async def test_as_json_for_programs(house: Warehouse, run: Run) -> None:
    told = await trio.to_thread.run_sync(run, "preview", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert {(line["what"], line["name"]) for line in lines if line["what"] == "tag"} == {("tag", "v1"), ("tag", "v2")}
    assert sum(line["bytes"] for line in lines) == 2001 + len(b"manifest of v2") + len(b"loose")


async def test_a_repository_without_rules_is_told_which_have(house: Warehouse, run: Run, tmp_path: Path) -> None:
    for name in ("other", "nowhere"):
        told = await trio.to_thread.run_sync(run, "preview", name)
        assert told.exit_code == 2
        assert told.stderr == f"Error: {name} is no repository with retention rules; those that have: own\n"
    (tmp_path / "mxart.toml").write_text('[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n')
    told = await trio.to_thread.run_sync(run, "run")
    assert told.exit_code == 2
    assert "retention = [{ keep = 10 }]" in told.stderr


def test_where_nothing_was_ever_kept_there_is_nothing_to_do(run: Run) -> None:
    told = run("preview")
    assert told.exit_code == 2
    assert "no server has kept anything here" in told.stderr
