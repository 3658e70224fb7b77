"""`mxart ca`."""

from __future__ import annotations

import click

from mxart.app_ca import authority
from mxart.commands.options import Options, UserError
from mxart.errors import ConfigError


@click.command()
@click.argument("what", type=click.Choice(["print"]), default="print")
@click.pass_obj
def ca(options: Options, what: str) -> None:
    """Print the certificate of the program's own CA, for clients to trust."""
    try:
        click.echo(authority(options.load()).pem.decode(), nl=False)
    except ConfigError as error:
        raise UserError(str(error)) from None
