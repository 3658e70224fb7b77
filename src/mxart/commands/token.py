"""`mxart token`."""

from __future__ import annotations

import time

import click

from mxart.access.management import parse_life
from mxart.commands.options import Options, UserError
from mxart.commands.people import day, people, table
from mxart.errors import BadRequest


@click.group()
def token() -> None:
    """Tokens: what programs log in with instead of a password, each with bounds of its own."""


@token.command()
@click.option("--user", required=True, metavar="USER", help="Whose it is.")
@click.option("--name", required=True, metavar="NAME", help="To know it by.")
@click.option("--expires", default="90d", show_default=True, metavar="LIFE", help='"12h", "30d", "never".')
@click.option("--action", "actions", multiple=True, metavar="ACTION", help="Good for these only; may be repeated.")
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="REPOSITORY[:PATH]",
    help='Good there only, "oci" or "oci:team/**"; may be repeated.',
)
@click.pass_obj
def create(
    options: Options, user: str, name: str, expires: str, actions: tuple[str, ...], repositories: tuple[str, ...]
) -> None:
    """Make a token and print it, once: nobody can get it again.

    It is good for no more than its user may do. Clients take it as a password, with any user name, or as a Bearer.
    """
    try:
        seconds = parse_life(expires)
        known = options.load().repositories
        for repository in repositories:
            place = repository.partition(":")[0]
            if place not in known and place != "*":
                raise UserError(f"there is no repository {place}; there are {', '.join(known)}")
    except BadRequest as problem:
        raise UserError(problem.message) from None
    with people(options, f"token create for {user}: {name}") as management:
        made, text = management.create_token(user, name, seconds=seconds, actions=actions, repositories=repositories)
    click.echo(f"token {made.id} of {user}, good for {made.ceiling}, expires {day(made.expires)}:", err=True)
    click.echo(text)


@token.command(name="list")
@click.option("--user", metavar="USER", help="Of this one only.")
@click.option("--logins", is_flag=True, help="Those too that clients got when a user logged in.")
@click.pass_obj
def list_(options: Options, user: str | None, logins: bool) -> None:
    """List tokens: what they are good for, not what they are."""
    with people(options) as management:
        found = management.directory.tokens(user, None if logins else "api")
    now = time.time()
    rows = (
        (
            one.id,
            one.user,
            one.name if one.kind == "api" else f"login: {one.name}",
            day(one.created),
            "expired" if one.is_over(now) else day(one.expires),
            str(one.ceiling),
        )
        for one in found
    )
    click.echo("\n".join(table(("TOKEN", "USER", "NAME", "SINCE", "EXPIRES", "GOOD FOR"), rows)))


@token.command()
@click.argument("number", metavar="TOKEN")
@click.pass_obj
def revoke(options: Options, number: str) -> None:
    """End a token, by what stands in the middle of it, and what was got by it."""
    with people(options, f"token revoke {number}") as management:
        management.directory.revoke(number)
    click.echo(f"token {number} is good no more")
