"""`mxart group`."""

from __future__ import annotations

import click

from mxart.commands.options import Options
from mxart.commands.people import people, table


@click.group()
def group() -> None:
    """Groups of users, for permissions. `admins` may do everything; `anonymous` and `users` are built in."""


@group.command()
@click.argument("name")
@click.pass_obj
def add(options: Options, name: str) -> None:
    """Make a group."""
    with people(options, f"group add {name}") as management:
        management.directory.add_group(name)
    click.echo(f"there is a group {name}")


@group.command()
@click.argument("name")
@click.pass_obj
def delete(options: Options, name: str) -> None:
    """Delete a group. Its members stay users."""
    with people(options, f"group delete {name}") as management:
        management.directory.delete_group(name)
    click.echo(f"the group {name} is gone")


@group.command(name="list")
@click.pass_obj
def list_(options: Options) -> None:
    """List the groups and their members."""
    with people(options) as management:
        groups = management.directory.groups()
    rows = ((name, ", ".join(members) or "-") for name, members in groups.items())
    click.echo("\n".join(table(("GROUP", "MEMBERS"), rows)))


@group.command()
@click.argument("name")
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.pass_obj
def join(options: Options, name: str, users: tuple[str, ...]) -> None:
    """Put users into a group."""
    with people(options, f"group join {name} {' '.join(users)}") as management:
        for user in users:
            management.directory.add_member(name, user)
    click.echo(f"{', '.join(users)} in {name}")


@group.command()
@click.argument("name")
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.pass_obj
def leave(options: Options, name: str, users: tuple[str, ...]) -> None:
    """Take users out of a group."""
    with people(options, f"group leave {name} {' '.join(users)}") as management:
        for user in users:
            management.directory.remove_member(name, user)
    click.echo(f"{', '.join(users)} not in {name}")
