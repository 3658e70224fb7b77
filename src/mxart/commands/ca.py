"""`mxart ca`."""

from __future__ import annotations

import click
from cryptography.hazmat.primitives import hashes

from mxart.app_ca import authority, renew_authority
from mxart.commands import trust as trusting
from mxart.commands.options import Options, UserError
from mxart.config import Config
from mxart.errors import ConfigError
from mxart.proto.authority import CA_FILE
from mxart.proto.constraints import permitted
from mxart.store.paths import DataPaths


@click.group(invoke_without_command=True)
@click.pass_context
def ca(context: click.Context) -> None:
    """The CA that certificates come from: print it (so without more), let clients trust it, renew it."""
    if context.invoked_subcommand is None:
        context.invoke(print_)


@ca.command(name="print")
@click.pass_obj
def print_(options: Options) -> None:
    """Print the certificate that clients are to trust."""
    try:
        click.echo(authority(options.load()).pem.decode(), nl=False)
    except ConfigError as error:
        raise UserError(str(error)) from None


@ca.command()
@click.argument("client", type=click.Choice(list(trusting.CLIENTS)))
@click.pass_obj
def trust(options: Options, client: str) -> None:
    """Print the commands that make CLIENT trust it: a script for sh, as root."""
    try:
        config = options.load()
        click.echo(trusting.script(client, config, _shown(config)), nl=False)
    except ConfigError as error:
        raise UserError(str(error)) from None


@ca.command()
@click.pass_obj
def renew(options: Options) -> None:
    """Make a new CA, good for what the configuration claims now. Every client has to trust it anew.

    The old one's files are kept beside it. A server that runs goes on with the old one until it is reloaded (SIGHUP).
    """
    try:
        made, kept = renew_authority(options.load())
    except ConfigError as error:
        raise UserError(str(error)) from None
    if kept is not None:
        click.echo(f"the old CA is kept in {kept}")
    click.echo(f"the new CA is {made.certificate.subject.rfc4514_string()}")
    click.echo(f"it can vouch for: {', '.join(permitted(made.certificate) or ())}")
    click.echo("clients must trust it now, and the old one no more: mxart ca trust CLIENT")
    click.echo("a server that runs takes it when it is reloaded: SIGHUP")


def _shown(config: Config) -> trusting.Authority:
    """Raises ConfigError."""
    found = authority(config)
    if config.tls.ca_cert:
        above = found.certificate.issuer if found.root is None else found.root.subject
        return trusting.Authority(above.rfc4514_string(), "", "", None)
    return trusting.Authority(
        found.certificate.subject.rfc4514_string(),
        str(DataPaths(config.data).authority / CA_FILE),
        found.certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        permitted(found.certificate),
    )
