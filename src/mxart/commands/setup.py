"""`mxart setup CLIENT`: shows the files that make a client use this server, and writes them when told to."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import click
from cryptography import x509

from mxart.app_ca import authority
from mxart.commands.options import Options, UserError
from mxart.config import Config
from mxart.errors import ConfigError
from mxart.repos.own_keys import OwnKey
from mxart.setup.apply import Disk
from mxart.setup.clients import CLIENTS, Client, Mode
from mxart.setup.facts import Server, default_url, is_vouched_for, server
from mxart.setup.firewall import firewall
from mxart.setup.plan import Plan, SetupError
from mxart.store.paths import DataPaths


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise UserError(f"there is no client {args[0]!r} to set up; there are: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, invoke_without_command=True, subcommand_metavar="CLIENT [OPTIONS]")
@click.pass_context
def setup(context: click.Context) -> None:
    """Show the settings that make a client use this server; with --write, write them.

    What the user has set already stays: settings are merged, key by key. A second run has nothing to do.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _writing(command: Callable[..., None]) -> Callable[..., None]:
    """The options of everything that writes files."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask before writing. Without a terminal nobody is asked."),
        click.option("--force", is_flag=True, help="Replace what the user has set otherwise."),
        click.option("--root", metavar="DIR", default="/", help="The machine's files are below this folder."),
        click.option("--write", is_flag=True, help="Show the changes, then write them. A copy is kept beside."),
    ):
        command = option(command)
    return command


def _client(name: str, client: Client) -> click.Command:
    @click.command(name, short_help=f"{client.about}.", help=f"Set up {client.about}.")
    @click.option(
        "--url", metavar="URL", help="How clients reach this server.  [default: the first listener that they can reach]"
    )
    @click.option("--ca", metavar="FILE", help="The CA that they are to trust.  [default: this server's own]")
    @click.option(
        "--mode",
        type=click.Choice(get_args(Mode)),
        default="mirror",
        show_default=True,
        help="mirror: the client asks us for registries. transparent: names are redirected, only the CA is trusted."
        " proxy: we are its HTTP proxy.",
    )
    @_writing
    @click.pass_obj
    def run(options: Options, /, url: str | None, ca: str | None, mode: str, **writing: Any) -> None:
        def plan(config: Config, disk: Disk) -> Plan:
            found = _server(config, url, ca)
            return client.plan(cast("Mode", mode), found, disk) + Plan(notes=_doubts(config, found, ca))

        _carry_out(options, plan, **writing)

    return run


@click.command("firewall", short_help="nftables rules that send connections to a transparent listener.")
@click.option("--user", metavar="USER", default="", help="Take this machine's own connections, but for this user's.")
@click.option("--to", "networks", metavar="NETWORK", multiple=True, help="Take connections to here; may be repeated.")
@click.option("--tproxy", is_flag=True, help="TPROXY instead of REDIRECT.")
@_writing
@click.pass_obj
def _firewall(options: Options, /, user: str, networks: tuple[str, ...], tproxy: bool, **writing: Any) -> None:
    """Show nftables rules that send connections to ports 443 and 80 to the transparent listeners.

    Without --to they take what is meant for public addresses. Connections forwarded through this machine are taken,
    with --user its own programs' too, but for those of the user that the server runs as.
    """
    _carry_out(options, partial(firewall, user=user, networks=networks, tproxy=tproxy), **writing)


setup.add_command(_firewall)
for _name, _one in CLIENTS.items():
    setup.add_command(_client(_name, _one))


def _carry_out(
    options: Options, planner: Callable[[Config, Disk], Plan], *, write: bool, root: str, force: bool, yes: bool
) -> None:
    try:
        disk = Disk(root)
        plan = planner(options.load(), disk)
        changes = [change for change in plan.changes if not disk.is_done(change)]
        if write:
            _write(disk, plan, force=force, yes=yes)
        else:
            for change in plan.changes:
                click.echo(f"# {change.path}: {change.why}{'' if change in changes else '; it is so already'}")
                click.echo(change.content.rstrip("\n") + "\n")
            for conflict in plan.conflicts:
                click.echo(f"conflict: {conflict}", err=True)
    except (ConfigError, SetupError) as error:
        raise UserError(str(error)) from None
    if plan.commands and (changes or not write):
        click.echo("then run:" if write else "# then run:")
        for command in plan.commands:
            click.echo(f"  {command}" if write else command)
    for snippet in plan.snippets if changes or not write else ():
        click.echo(f"# for {snippet.where}:\n{snippet.text.rstrip()}\n")
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)


def _write(disk: Disk, plan: Plan, *, force: bool, yes: bool) -> None:
    changes = [change for change in plan.changes if not disk.is_done(change)]
    for change in changes:
        click.echo(disk.diff(change).rstrip("\n"))
    if plan.conflicts and not force:
        for conflict in plan.conflicts:
            click.echo(f"conflict: {conflict}", err=True)
        raise SetupError("nothing was written; --force puts ours in place of what is set otherwise")
    if not changes:
        click.echo("nothing to do: everything is set already")
        return
    if _is_terminal() and not yes:
        click.confirm("Write this?", abort=True)
    for change in changes:
        disk.write(change)
        click.echo(f"wrote {change.path}")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _server(config: Config, url: str | None, ca: str | None) -> Server:
    """Raises SetupError, ConfigError."""
    where = url or default_url(config, socket.gethostname())
    key = OwnKey.find(DataPaths(config.data).sumdb, config.go.sumdb_name)
    sums = str(key.signer.verifier) if key is not None else ""
    plain = server(config, where, sumdb_key=sums)
    if plain.is_plain or (ca is None and (config.tls.ca_cert or _has_own_certificate(config, plain.host))):
        return plain  # the certificates come from a CA of the user's, whose root is not ours to know
    pem = authority(config).pem.decode() if ca is None else _read(ca).decode()
    return server(config, where, ca=pem, sumdb_key=sums)


def _doubts(config: Config, found: Server, ca: str | None) -> tuple[str, ...]:
    notes = [f"clients reach this server at {found.url}; --url says otherwise"]
    if found.scheme == "https" and not found.ca:
        notes.append("its certificates come from a CA of your own, which clients have to trust: --ca FILE tells them")
    if (
        found.scheme == "https"
        and ca is None
        and found.ca
        and not is_vouched_for(config, found.host, socket.gethostname())
    ):
        notes.append(f'no certificate of ours names {found.host}: add [tls] names = ["{found.host}"]')
    return tuple(notes)


def _has_own_certificate(config: Config, host: str) -> bool:
    """Whether a certificate of the user's is shown for a host: clients know then whom to trust. Raises SetupError."""
    for files in config.tls.certificates:
        try:
            leaf = x509.load_pem_x509_certificates(_read(files.cert))[0]
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            continue  # `check` says what is wrong with it
        named = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        named |= {str(address) for address in names.get_values_for_type(x509.IPAddress)}
        if host in named or "*." + host.partition(".")[2] in named:
            return True
    return False


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from None
