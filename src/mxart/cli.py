"""The command line (product.md section 3)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import cast, get_args

import click

from mxart import __version__
from mxart.commands.options import Options
from mxart.logs import Level

_COMMANDS = ("ca", "check", "dns", "gc", "go", "group", "replicate", "retention", "setup", "token", "user")


class _Commands(click.Group):
    """Subcommands, each a module of its name, imported when it is wanted: serving does not wait for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return cast("click.Command", getattr(import_module(f"mxart.commands.{cmd_name}"), cmd_name))


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
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
    options = Options(config, data, listen, tls, workers)
    context.obj = options
    if context.invoked_subcommand is None:
        from mxart.cli_serve import serve  # noqa: PLC0415  # most of the program, and most commands need little of it

        sys.exit(serve(options, cast("Level", log_level)))
