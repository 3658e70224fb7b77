"""`mxart user`."""

from __future__ import annotations

import click

from mxart.commands.options import Options
from mxart.commands.people import day, new_password, people, table


@click.group()
def user() -> None:
    """Users: who can log in. A server that runs sees every change at once."""


@user.command()
@click.argument("name")
@click.option("--robot", is_flag=True, help="For a program: it has no password, only tokens.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Put the user into it; may be repeated.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--password-file", metavar="FILE", help="Read the password from a file.")
@click.pass_obj
def add(
    options: Options, name: str, robot: bool, groups: tuple[str, ...], password_stdin: bool, password_file: str | None
) -> None:
    """Add a user. The password is asked for, unless it is a robot."""
    password = None if robot else new_password(password_stdin, password_file)
    with people(options, f"user add {name}") as management:
        management.create_user(name, password, robot=robot, groups=groups)
    more = f"needs a token: mxart token create --user {name} --name NAME" if robot else "can log in"
    click.echo(f"{name} {more}")


@user.command(name="list")
@click.pass_obj
def list_(options: Options) -> None:
    """List the users."""
    with people(options) as management:
        users = management.directory.users()
    rows = (
        (
            user.name,
            " ".join([*(["robot"] if user.robot else []), *(["disabled"] if user.disabled else [])]) or "-",
            ", ".join(sorted(user.groups)) or "-",
            day(user.created),
        )
        for user in users
    )
    click.echo("\n".join(table(("USER", "STATE", "GROUPS", "SINCE"), rows)))


@user.command()
@click.argument("name")
@click.pass_obj
def delete(options: Options, name: str) -> None:
    """Delete a user, with all tokens."""
    with people(options, f"user delete {name}") as management:
        management.directory.delete_user(name)
    click.echo(f"{name} is gone")


@user.command()
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--password-file", metavar="FILE", help="Read the password from a file.")
@click.pass_obj
def password(options: Options, name: str, password_stdin: bool, password_file: str | None) -> None:
    """Change a user's password. Logins that clients keep end; tokens stay."""
    text = new_password(password_stdin, password_file)
    with people(options, f"user password {name}") as management:
        management.change_password(name, text)
    click.echo(f"{name} has a new password")


@user.command()
@click.argument("name")
@click.pass_obj
def disable(options: Options, name: str) -> None:
    """Keep a user out, with all tokens, until he is enabled again."""
    with people(options, f"user disable {name}") as management:
        management.directory.set_disabled(name, True)
    click.echo(f"{name} is kept out")


@user.command()
@click.argument("name")
@click.pass_obj
def enable(options: Options, name: str) -> None:
    """Let a disabled user in again."""
    with people(options, f"user enable {name}") as management:
        management.directory.set_disabled(name, False)
    click.echo(f"{name} can log in")
