"""Users and tokens of a running server, made as its administrator makes them."""

from __future__ import annotations

import re

from kit.pushes import mxart_command
from kit.servers import Mxart


def add_user(server: Mxart, name: str, password: str, *options: str) -> tuple[str, str]:
    """User and password, as a client shows them."""
    mxart_command(server, "user", "add", name, "--password-stdin", *options, stdin=f"{password}\n")
    return name, password


def new_token(server: Mxart, user: str, *bounds: str) -> tuple[str, str]:
    """A user and a token of theirs, as a client shows them in place of a password."""
    printed = mxart_command(server, "token", "create", "--user", user, "--name", f"of-{user}", *bounds)
    found = re.search(r"mxt_\S+", printed)
    assert found, printed
    return user, found[0]
