"""`mxart retention`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from mxart.app_space import space_task
from mxart.commands.gc import shown_size
from mxart.commands.options import Options, UserError
from mxart.commands.progress import progress
from mxart.errors import ConfigError
from mxart.store.paths import DataPaths
from mxart.store.space.retention import Going
from mxart.store.space.retire import retire
from mxart.store.space.round import Breaths, opened
from mxart.store.space.task import Member, Retired, Task

_SEPARATORS = {"tag": ":", "manifest": "@", "build": "/"}


class Line(msgspec.Struct):
    """What goes, as JSON tells it."""

    repository: str
    package: str
    what: str
    name: str
    digest: str
    why: str
    bytes: int


@click.group()
def retention() -> None:
    """Let old tags, manifests and builds of local repositories go, by the rules of the configuration."""


@retention.command()
@click.argument("repository", required=False)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each tag, manifest and build.")
@click.pass_obj
def preview(options: Options, repository: str | None, as_json: bool) -> None:
    """Say what would go, why, and how many bytes come free with it; change nothing."""
    _carry_out(options, repository, dry_run=True, as_json=as_json)


@retention.command()
@click.argument("repository", required=False)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each tag, manifest and build.")
@click.pass_obj
def run(options: Options, repository: str | None, as_json: bool) -> None:
    """Let it go. The bytes come free with the next collections (mxart gc), after the grace.

    The server may run meanwhile. It does the same by itself, before each collection ([gc] every).
    """
    _carry_out(options, repository, dry_run=False, as_json=as_json)


def _carry_out(options: Options, repository: str | None, *, dry_run: bool, as_json: bool) -> None:
    with _errors():
        config = options.load()
        if not DataPaths(config.data).catalog.exists():
            raise UserError(f"{config.data}: no server has kept anything here")
        task = space_task(config)
        for member in _chosen(task, repository):
            retired = _of(task, member, dry_run=dry_run, as_json=as_json)
            if not as_json:
                click.echo(_summary(member.name, retired, dry_run=dry_run))


def _of(task: Task, member: Member, *, dry_run: bool, as_json: bool) -> Retired:
    def note(package: str, going: Going, freed: int) -> None:
        line = Line(member.name, package, going.what, going.name, going.digest, going.why, freed)
        if as_json:
            click.echo(msgspec.json.encode(line).decode())
            return
        name = f"{package}{_SEPARATORS[going.what]}{going.name}"
        click.echo(f"{member.name}  {name}  {going.why}{f'  {shown_size(freed)}' if freed else ''}")

    with opened(task) as ledger, progress() as tell:
        return retire(ledger, member, time.time(), dry_run=dry_run, note=note, tell=tell, pause=Breaths())


def _summary(repository: str, retired: Retired, *, dry_run: bool) -> str:
    verb = "would go" if dry_run else "went"
    changed = f"; {retired.changed} changed meanwhile and stayed" if retired.changed else ""
    return f"{repository}: {retired} {verb}, {shown_size(retired.bytes)} with them{changed}"


def _chosen(task: Task, repository: str | None) -> list[Member]:
    """Raises UserError."""
    ruled = [member for member in task.members if member.retention]
    if repository is None:
        if not ruled:
            raise UserError("no repository has retention rules: add retention = [{ keep = 10 }] to a local one")
        return ruled
    found = [member for member in ruled if member.name == repository]
    if not found:
        names = ", ".join(member.name for member in ruled) or "none has"
        raise UserError(f"{repository} is no repository with retention rules; those that have: {names}")
    return found


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise UserError(str(error)) from None
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"the catalog cannot be used: {error}") from None
