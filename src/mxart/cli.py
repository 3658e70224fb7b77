"""The command line (product.md section 3)."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
from pathlib import Path
from typing import cast, get_args

import click

from mxart import __version__, app
from mxart.build import Trust
from mxart.config import Config
from mxart.config_file import decode
from mxart.errors import ConfigError
from mxart.logs import Level, configure
from mxart.supervisor import Prepared, Supervisor

_USER_ERROR = 2


class _Options:
    """What the command line says about the configuration; `load` reads it afresh."""

    def __init__(
        self, config: str | None, data: str | None, listen: tuple[str, ...], tls: bool, workers: int | None
    ) -> None:
        self._file = config
        self._data = data
        self._listen = listen
        self._tls = tls
        self._workers = workers

    def load(self) -> Config:
        """Raises ConfigError."""
        text, name = "", "command line"
        if self._file is not None:
            name = self._file
            try:
                text = Path(self._file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise ConfigError(f"{name}: cannot be read: {why}") from None
        return decode(
            text,
            file=name,
            environment=os.environ,
            data=self._data,
            workers=self._workers,
            listen=self._listen,
            tls=self._tls,
        )


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--config", metavar="FILE", help="Configuration, TOML. Without one: pull-through of the public registries."
)
@click.option("--data", metavar="DIR", help="Everything that must survive lies here.  [default: mxart-data]")
@click.option(
    "--listen",
    metavar="ADDR",
    multiple=True,
    help="Listen here; may be repeated: :443, [::1]:8443. Port 0 picks a free one.  [default: 127.0.0.1:8080]",
)
@click.option(
    "--tls", is_flag=True, help="The addresses of --listen speak TLS, with certificates of the program's own CA."
)
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Processes sharing the listeners.  [default: CPUs]"
)
@click.option(
    "--log-level",
    type=click.Choice(get_args(Level)),
    default="info",
    show_default=True,
    help="debug follows each request.",
)
@click.version_option(__version__, prog_name="mxart")
@click.pass_context
def main(
    context: click.Context,
    config: str | None,
    data: str | None,
    listen: tuple[str, ...],
    tls: bool,
    workers: int | None,
    log_level: str,
) -> None:
    """MxArtifact: holds your own packages and caches everybody else's.

    Without a subcommand it serves until SIGTERM or SIGINT, which drain; SIGHUP reloads the configuration.
    """
    options = _Options(config, data, listen, tls, workers)
    context.obj = options
    if context.invoked_subcommand is None:
        sys.exit(_serve(options, cast("Level", log_level)))


@main.command()
@click.pass_obj
def check(options: _Options) -> None:
    """Check the configuration, and the files of secrets and CAs that it names, and say what it serves."""
    try:
        config = options.load()
        Trust.read(config)
    except ConfigError as error:
        raise _UserError(str(error)) from None
    for listener in config.listeners:
        click.echo(f"listener    {listener.address}{'  tls' if listener.tls else ''}")
    for name, repository in config.repositories.items():
        where = [*repository.hosts, *([repository.path] if repository.path else [])] or ["a member only"]
        click.echo(f"repository  {name}: {repository.format} {repository.kind} at {', '.join(where)}")
    for tunnel in config.tunnels:
        click.echo(f"tunnel      {', '.join(tunnel.sni) or tunnel.listen} → {tunnel.to or 'the name itself, port 443'}")
    click.echo("the configuration is right")


@main.command()
@click.argument("what", type=click.Choice(["print"]), default="print")
@click.pass_obj
def ca(options: _Options, what: str) -> None:
    """Print the certificate of the program's own CA, for clients to trust."""
    try:
        click.echo(app.authority(options.load()).pem.decode(), nl=False)
    except ConfigError as error:
        raise _UserError(str(error)) from None


def _serve(options: _Options, level: Level) -> int:
    log_to = configure(level)
    _raise_file_limit()

    def prepare(previous: Prepared | None) -> Prepared:
        return app.prepare(options.load(), previous, log_to)

    def announce(prepared: Prepared) -> None:
        click.echo(f"mxart ready: {' '.join(prepared.urls)}")

    try:
        return Supervisor(prepare, announce).run()
    except ConfigError as error:
        click.echo(f"mxart: {error}", err=True)
        return _USER_ERROR
    finally:
        log_to[0].flush()
        logging.shutdown()


def _raise_file_limit() -> None:
    """Connections are files: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Refused where the system's own ceiling was lowered since; then what there is has to do.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _UserError(click.ClickException):
    exit_code = _USER_ERROR
