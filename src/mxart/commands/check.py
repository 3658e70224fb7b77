"""`mxart check`."""

from __future__ import annotations

import click

from mxart.app_ca import check_certificates
from mxart.build import Trust
from mxart.commands.options import Options, UserError
from mxart.config import Tunnel
from mxart.errors import ConfigError


@click.command()
@click.pass_obj
def check(options: Options) -> None:
    """Check the configuration, the files of secrets and CAs that it names, and the CA, and say what it serves."""
    try:
        config = options.load()
        Trust.read(config)
        check_certificates(config)
    except ConfigError as error:
        raise UserError(str(error)) from None
    for listener in config.listeners:
        click.echo(f"listener    {listener.address}{'  tls' if listener.tls else ''}")
    for name, repository in config.repositories.items():
        where = [*repository.hosts, *([repository.path] if repository.path else [])] or ["a member only"]
        pushes = f"; pushes go to {repository.publish_to}" if repository.publish_to else ""
        click.echo(f"repository  {name}: {repository.format} {repository.kind} at {', '.join(where)}{pushes}")
    for tunnel in config.tunnels:
        click.echo(f"tunnel      {_tunnel(tunnel)}")
    if config.dns is not None:
        click.echo(f"dns         {config.dns.listen} answers {', '.join(config.dns.answer)}")
    for host in config.token_server.hosts:
        click.echo(f"tokens      for {host}")
    for url in config.replicate.targets:
        click.echo(f"copies      to {url}")
    click.echo("the configuration is right")


def _tunnel(tunnel: Tunnel) -> str:
    if tunnel.networks:
        ports = f", port {', '.join(map(str, tunnel.ports))}" if tunnel.ports else ""
        return f"{', '.join(tunnel.networks)}{ports} → where the client meant to go"
    return f"{', '.join(tunnel.sni) or tunnel.listen} → {tunnel.to or 'the name itself, port 443'}"
