"""`mxart replicate`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import click
import trio

from mxart.commands.options import Options, UserError, raise_file_limit
from mxart.commands.progress import progress
from mxart.errors import BadRequest, ConfigError, MxartError
from mxart.replicate.engine import Outcome
from mxart.replicate.run import Access, Choice, from_registry
from mxart.upstream.dial import Dialer
from mxart.upstream.tokens import Credentials

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_FAILED = 1
_INTERRUPTED = 130  # as shells say of SIGINT


class _Failure(click.ClickException):
    """One clear line on standard error, and exit code 1."""

    exit_code = _FAILED


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--tag", metavar="TAG", multiple=True, help="A further tag at the target; may be repeated.")
@click.option("--all-tags", is_flag=True, help="Every tag of the source, each under its own name.")
@click.option("--platform", metavar="OS/ARCH", default="", help="Of an index only this one: linux/arm64.")
@click.option("--no-referrers", is_flag=True, help="Leave signatures, SBOMs and the like behind.")
@click.option(
    "--mount-from",
    metavar="NAME",
    multiple=True,
    help="A repository of the target's registry that may have layers already; may be repeated.",
)
@click.option("--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="Transfers at one time.")
@click.option(
    "--chunk",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    metavar="MiB",
    help="What is sent in one request, and sent again where the target keeps no half of one.",
)
@click.option(
    "--state", metavar="DIR", help="Where is kept what was begun.  [default: mxart/replicate in the user's cache]"
)
@click.option("--source-user", metavar="NAME", envvar="MXART_SOURCE_USER", help="Or MXART_SOURCE_USER.")
@click.option("--source-password-file", metavar="FILE", help="- is standard input. Or MXART_SOURCE_PASSWORD.")
@click.option("--source-token-file", metavar="FILE", help="A bearer token, likewise. Or MXART_SOURCE_TOKEN.")
@click.option("--source-ca", metavar="FILE", default="", help="Believe this CA (PEM) instead of the system's.")
@click.option("--target-user", metavar="NAME", envvar="MXART_TARGET_USER", help="Or MXART_TARGET_USER.")
@click.option("--target-password-file", metavar="FILE", help="- is standard input. Or MXART_TARGET_PASSWORD.")
@click.option("--target-token-file", metavar="FILE", help="A bearer token, likewise. Or MXART_TARGET_TOKEN.")
@click.option("--target-ca", metavar="FILE", default="", help="Believe this CA (PEM) instead of the system's.")
@click.pass_obj
def replicate(
    options: Options,
    source: str,
    target: str,
    tag: tuple[str, ...],
    all_tags: bool,
    platform: str,
    no_referrers: bool,
    mount_from: tuple[str, ...],
    at_once: int,
    chunk: int,
    state: str | None,
    source_user: str | None,
    source_password_file: str | None,
    source_token_file: str | None,
    source_ca: str,
    target_user: str | None,
    target_password_file: str | None,
    target_token_file: str | None,
    target_ca: str,
) -> None:
    """Copy an image, with its signatures and SBOMs, from the registry SOURCE to the registry TARGET.

    Both are written [http://]host[:port]/name[:tag]; SOURCE may end in @sha256:… instead. Without a tag it is latest,
    and at the target the same as at the source. What the target has is not sent again, and what was interrupted goes
    on where it stopped when the command is run again.
    """
    if "-" in (source_password_file, source_token_file) and "-" in (target_password_file, target_token_file):
        raise UserError("standard input can hold one secret only: read the other from a file")
    choice = Choice(tag, all_tags, platform, not no_referrers, at_once, chunk << 20, mount_from)
    source_access = _access("source", source_user, source_password_file, source_token_file, source_ca)
    target_access = _access("target", target_user, target_password_file, target_token_file, target_ca)
    raise_file_limit()
    try:
        dialer = Dialer(options.load().upstreams)
        with progress() as tell:
            work = partial(
                from_registry,
                source,
                target,
                dialer,
                Path(state) if state else _cache() / "mxart" / "replicate",
                choice=choice,
                source_access=source_access,
                target_access=target_access,
                progress=tell,
            )
            outcome = trio.run(_until_interrupted, work)
    except (BadRequest, ConfigError) as error:
        raise UserError(str(error)) from None
    except MxartError as error:
        raise _Failure(str(error)) from None
    if outcome is None:
        click.echo("interrupted; the same command goes on where it stopped", err=True)
        sys.exit(_INTERRUPTED)
    _tell(outcome)


async def _until_interrupted(work: Callable[[], Awaitable[Outcome]]) -> Outcome | None:
    """None after SIGINT or SIGTERM."""
    outcome: Outcome | None = None
    errors: list[MxartError] = []

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            outcome = await work()
        except MxartError as error:
            errors.append(error)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]
    return outcome


def _access(side: str, user: str | None, password_file: str | None, token_file: str | None, ca: str) -> Access:
    """Raises UserError."""
    prefix = f"MXART_{side.upper()}"
    password = _secret(password_file, f"--{side}-password-file") or os.environ.get(f"{prefix}_PASSWORD", "")
    token = _secret(token_file, f"--{side}-token-file") or os.environ.get(f"{prefix}_TOKEN", "")
    if password and not user:
        raise UserError(f"whose password is that? name the user: --{side}-user, or {prefix}_USER")
    if user and not password:
        raise UserError(f"{user} needs a password: --{side}-password-file, or {prefix}_PASSWORD")
    return Access(Credentials(user or "", password, token), ca)


def _secret(file: str | None, option: str) -> str:
    if file is None:
        return ""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{option}: {file} cannot be read: {why}") from None
    return text.strip()


def _cache() -> Path:
    """Where the user's programs keep what can be made anew (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if named.startswith("/") else Path.home() / ".cache"


def _tell(outcome: Outcome) -> None:
    for reference, digest in outcome.digests.items():
        click.echo(f"{reference}  {digest}")
    there = outcome.manifests_there + outcome.blobs_there
    parts = [f"{outcome.manifests} manifests and {outcome.blobs} blobs sent ({_size(outcome.bytes_sent)})"]
    if outcome.bytes_resumed:
        parts.append(f"{_size(outcome.bytes_resumed)} sent by an earlier run")
    if outcome.mounted:
        parts.append(f"{outcome.mounted} mounted")
    if there:
        parts.append(f"{there} there already")
    click.echo("; ".join(parts))
    if outcome.tags:
        click.echo(f"tagged {', '.join(outcome.tags)}")
    for note in outcome.notes:
        click.echo(f"note: {note}", err=True)


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {_UNITS[unit]}"
