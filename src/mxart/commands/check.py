"""`mxart check`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from mxart.access.base import ACTIONS
from mxart.access.control import NOBODY, Access, Principal, principal_of, rules_of
from mxart.access.directory import Directory
from mxart.access.rules import EVERYBODY, USERS, Rules
from mxart.app_ca import check_certificates
from mxart.build_trust import Trust
from mxart.commands.options import Options, UserError
from mxart.commands.people import people
from mxart.config import Config, Tunnel
from mxart.errors import ConfigError
from mxart.store.paths import DataPaths


@click.command()
@click.option("--as", "user", metavar="USER", help='Say what this user may do; "anonymous": somebody without a login.')
@click.option("--token", metavar="TOKEN", help="With this token of the user's, by what stands in the middle of it.")
@click.argument("question", nargs=-1, metavar="[ACTION REPOSITORY PATH]")
@click.pass_obj
def check(options: Options, user: str | None, token: str | None, question: tuple[str, ...]) -> None:
    """Check the configuration, or ask what somebody may do by it.

    Without --as: the configuration, the files of secrets and CAs that it names, and the CA; and what it serves.
    With --as USER ACTION REPOSITORY PATH: whether, and which rule decides; exit code 0 if he may, 1 if not.
    """
    if user is not None:
        raise SystemExit(_may(options, user, token or "", question))
    if question or token is not None:
        raise UserError("whose rights? mxart check --as USER ACTION REPOSITORY PATH")
    try:
        config = options.load()
        Trust.read(config)
        check_certificates(config)
        rules = rules_of(config)
        unknown = list(_unknown(config, rules))
    except ConfigError as error:
        raise UserError(str(error)) from None
    for listener in config.listeners:
        click.echo(f"listener    {listener.address}{'  tls' if listener.tls else ''}")
    for name, repository in config.repositories.items():
        where = [*repository.hosts, *([repository.path] if repository.path else [])] or ["a member only"]
        pushes = f"; pushes go to {' or '.join(repository.targets)}" if repository.targets else ""
        click.echo(f"repository  {name}: {repository.format} {repository.kind} at {', '.join(where)}{pushes}")
        if repository.modules:
            where_from = ": from git" if repository.kind == "vcs" else ""
            click.echo(
                f"owned       {', '.join(repository.modules)}{where_from}, asked of nobody but {name} in its groups"
            )
    for tunnel in config.tunnels:
        click.echo(f"tunnel      {_tunnel(tunnel)}")
    if config.dns is not None:
        click.echo(f"dns         {config.dns.listen} answers {', '.join(config.dns.answer)}")
    for host in config.token_server.hosts:
        click.echo(f"tokens      for {host}")
    for url in config.replicate.targets:
        click.echo(f"copies      to {url}")
    for rule in rules.configured:
        click.echo(f"permission  {rule}")
    for place, name in unknown:
        click.echo(f"note        {place} names {name}, who is not there (yet)")
    click.echo("the configuration is right")


def _unknown(config: Config, rules: Rules) -> Iterator[tuple[str, str]]:
    """Users and groups that rules name and nobody has made: their names may be misspelt."""
    paths = DataPaths(config.data)
    if not paths.access.exists():
        return
    directory = Directory(paths.access)
    try:
        groups = {*directory.groups(), EVERYBODY, USERS}
        users = {user.name for user in directory.users()}
    finally:
        directory.close()
    for rule in rules.configured:
        for name in sorted(rule.users - users):
            yield rule.place, f"the user {name}"
        for name in sorted(rule.groups - groups):
            yield rule.place, f"the group {name}"


def _may(options: Options, user: str, token: str, question: tuple[str, ...]) -> int:
    if len(question) not in {2, 3}:
        raise UserError("what is the question? mxart check --as USER ACTION REPOSITORY PATH")
    asked, repository, path = (*question, "")[:3]
    action = next((one for one in ACTIONS if one == asked), None)
    if action is None:
        raise UserError(f"{asked!r} is no action: {', '.join(ACTIONS)}")
    try:
        config = options.load()
    except ConfigError as error:
        raise UserError(str(error)) from None
    if repository not in config.repositories and repository != "*":
        known = ", ".join(config.repositories)
        raise UserError(f'there is no repository {repository}; there are {known}, and "*" is the server itself')
    principal: Principal | str = NOBODY
    if user != EVERYBODY:
        if not DataPaths(config.data).access.exists():
            raise UserError(f"{config.data}: there are no users yet: start the server, or add one: mxart user add")
        with people(options) as management:
            principal = principal_of(management.directory, user, token, time.time())
    if isinstance(principal, str):
        raise UserError(principal)
    decision = Access(rules_of(config)).decide(principal, action, repository, path)
    what = f"{action} {path or 'the whole'} in {'the server' if repository == '*' else repository}"
    click.echo(f"{'yes' if decision.allowed else 'no'}: {user} {'may' if decision.allowed else 'may not'} {what}")
    click.echo(f"because: {decision.why}")
    return 0 if decision.allowed else 1


def _tunnel(tunnel: Tunnel) -> str:
    if tunnel.networks:
        ports = f", port {', '.join(map(str, tunnel.ports))}" if tunnel.ports else ""
        return f"{', '.join(tunnel.networks)}{ports} → where the client meant to go"
    return f"{', '.join(tunnel.sni) or tunnel.listen} → {tunnel.to or 'the name itself, port 443'}"
