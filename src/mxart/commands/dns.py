"""`mxart dns`."""

from __future__ import annotations

import logging
import sys
from typing import cast

import click
import msgspec

from mxart.commands.options import USER_ERROR, Options, raise_file_limit
from mxart.config import Config, Dns
from mxart.config_check import check
from mxart.errors import ConfigError
from mxart.logs import Level, configure
from mxart.supervisor import Prepared, Supervisor

_OPTIONS = {
    "listen": "--listen",
    "answer": "--answer",
    "forward": "--forward",
    "names": "--name",
    "clients": "--client",
}


@click.command()
@click.option("--listen", metavar="ADDR", help="UDP and TCP address.  [default: :53]")
@click.option("--answer", metavar="IP", multiple=True, help="Our address, for every claimed name; may be repeated.")
@click.option(
    "--forward", metavar="ADDR", multiple=True, help="A DNS server that knows the rest; may be repeated, in order."
)
@click.option("--name", metavar="NAME", multiple=True, help='Claim this name, too, or "*.example.com".')
@click.option(
    "--client",
    metavar="NETWORK",
    multiple=True,
    help="Who may ask; may be repeated.  [default: this machine and private networks]",
)
@click.pass_context
def dns(
    context: click.Context,
    listen: str | None,
    answer: tuple[str, ...],
    forward: tuple[str, ...],
    name: tuple[str, ...],
    client: tuple[str, ...],
) -> None:
    """Serve DNS only: our address for the names that repositories claim, the rest from other servers.

    The options replace what the configuration's [dns] table says.
    """
    from mxart.app_dns import prepare_alone  # noqa: PLC0415  # dnspython takes a while to import

    options = cast("Options", context.obj)
    given: dict[str, object] = {"answer": answer, "forward": forward, "names": name, "clients": client}
    given = {key: value for key, value in given.items() if value}
    if listen is not None:
        given["listen"] = listen
    sink, _ = configure(cast("Level", context.find_root().params["log_level"]))
    raise_file_limit()

    def prepare(previous: Prepared | None) -> Prepared:
        return prepare_alone(_with(options.load(), given), previous, sink)

    def announce(prepared: Prepared) -> None:
        click.echo(f"mxart dns ready: {' '.join(prepared.urls)}")

    try:
        sys.exit(Supervisor(prepare, announce).run())
    except ConfigError as error:
        click.echo(f"mxart: {error}", err=True)
        sys.exit(USER_ERROR)
    finally:
        sink.flush()
        logging.shutdown()


def _with(config: Config, given: dict[str, object]) -> Config:
    """The configuration with what the command line says over its table. Raises ConfigError naming the option."""
    table = msgspec.structs.replace(config.dns if config.dns is not None else Dns(), **given)
    config = msgspec.structs.replace(config, dns=table)
    for place, why in check(config):
        key = place.removeprefix("dns.").partition("[")[0]
        if key == "answer" and not table.answer:
            raise ConfigError("which address is ours? give --answer 10.0.0.5, or write it into the [dns] table")
        raise ConfigError(f"{_OPTIONS.get(key, place) if place.startswith('dns.') else place}: {why}")
    return config
