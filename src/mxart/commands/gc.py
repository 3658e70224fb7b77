"""`mxart gc`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec
import trio

from mxart.app_space import space_task
from mxart.commands.options import Options, UserError
from mxart.commands.progress import progress
from mxart.config import parse_duration
from mxart.errors import ConfigError
from mxart.store.paths import DataPaths, stores
from mxart.store.space.process import run_round
from mxart.store.space.round import Busy, Failed
from mxart.store.space.task import Freed, Report

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Duration(click.ParamType[float]):
    """Seconds, or a number with its unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    help="Leave alone what is younger: 90, 30m, 24h, 7d.  [default: grace of [gc], 24h]",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.pass_obj
def gc(options: Options, dry_run: bool, grace: float | None, as_json: bool) -> None:
    """Give space back: evict from caches that are too large, remove what nothing refers to.

    The server may run meanwhile, and pushes and pulls go on. It does the same by itself ([gc] every).
    """
    try:
        config = options.load()
        task = space_task(config, grace=grace, dry_run=dry_run)
        if not DataPaths(config.data).catalog.exists():
            raise UserError(f"{config.data}: no server has kept anything here")
        for place in stores(config).values():
            place.create()
        with progress() as tell:
            report = trio.run(run_round, task, tell)
    except (ConfigError, Busy, Failed) as error:
        raise UserError(str(error)) from None
    click.echo(msgspec.json.encode(report).decode() if as_json else "\n".join(_told(report)))


def _told(report: Report) -> Iterator[str]:
    goes, went = ("would go", "would be removed") if report.dry_run else ("went", "removed")
    for name, retired in report.retired.items():
        what = f"{retired}, {shown_size(retired.bytes)},"
        yield f"{name}: {what} {goes} by its retention rules"
    for name, freed in report.evicted.items():
        what = f"{shown_size(freed.bytes)}" if report.dry_run else _files(freed)
        yield f"{name}: {what} {goes}: it held more than its max_bytes"
    for name, freed in report.names.items():
        yield f"{name}: {_files(freed)} {goes}: nothing there refers to them"
    for name, freed in report.unknown.items():
        yield f"{name}: {_files(freed)} kept: the catalog has this repository, the configuration has not"
    for name, freed in report.blobs.items():
        yield f"store {name}: {_files(freed)} {went}"


def _files(freed: Freed) -> str:
    return f"{freed.files} file{'' if freed.files == 1 else 's'}, {shown_size(freed.bytes)},"


def shown_size(size: float) -> str:
    """Bytes as people read them."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
