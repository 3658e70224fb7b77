"""Serving, as the command line does it: logs, limits, and a supervisor of the workers."""

from __future__ import annotations

import logging

import click

from mxart import app
from mxart.commands.options import USER_ERROR, Options, raise_file_limit
from mxart.errors import ConfigError
from mxart.logs import Level, configure
from mxart.supervisor import Prepared, Supervisor


def serve(options: Options, level: Level) -> int:
    """Serve until told to stop; the exit status."""
    log_to = configure(level)
    raise_file_limit()

    def prepare(previous: Prepared | None) -> Prepared:
        return app.prepare(options.load(), previous, log_to)

    def announce(prepared: Prepared) -> None:
        click.echo(f"mxart ready: {' '.join(prepared.urls)}")

    try:
        return Supervisor(prepare, announce).run()
    except ConfigError as error:
        click.echo(f"mxart: {error}", err=True)
        return USER_ERROR
    finally:
        log_to[0].flush()
        logging.shutdown()
