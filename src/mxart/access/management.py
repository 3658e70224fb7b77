"""What administrators do to users and tokens, for the command line and the API alike.

Every function waits for the disk, and those that take a password for tens of milliseconds more: call them in a thread.
They raise Problems whose words are for people.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mxart.access.credentials import API_PREFIX, LOGIN_PREFIX, check_password, hash_password, new_token
from mxart.access.directory import Directory
from mxart.access.people import UNBOUNDED, Ceiling, Kind, Token, User
from mxart.access.rules import ADMINS
from mxart.atomic import locked_directory, write_atomically
from mxart.errors import BadRequest, ConfigError, NotFound, StorageFull

ADMIN = "admin"
"""The user who is made at the first start."""

_ADMIN_MADE = "administrator made"
_LOGIN_LIFE = 90 * 86400.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Management:
    """`admin_password` is the file that the first administrator's password is written to, once."""

    def __init__(
        self, directory: Directory, admin_password: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.directory = directory
        self._admin_password = admin_password
        self._clock = clock

    def make_administrator(self) -> bool:
        """The first administrator, unless that was done before; whether it was done now. Raises ConfigError.

        Several processes may do so at once: a server that starts, and a command.
        """
        if self._admin_password is None or self.directory.fact(_ADMIN_MADE):
            return False
        try:
            with locked_directory(self._admin_password.parent):
                if self.directory.fact(_ADMIN_MADE):
                    return False
                if self.directory.user(ADMIN) is None:
                    password = secrets.token_urlsafe(18)
                    write_atomically(self._admin_password, f"{password}\n".encode(), 0o600)
                    # Should we die here, it is done again: no password is in use that nobody can read.
                    self.directory.add_user(ADMIN, hash_password(password), self._clock())
                self.directory.add_member(ADMINS, ADMIN)
                self.directory.note(_ADMIN_MADE, str(int(self._clock())))
                return True
        except OSError as error:
            raise ConfigError(f"{self._admin_password}: cannot be written: {error.strerror}") from error
        except StorageFull as problem:
            raise ConfigError(problem.message) from problem

    def create_user(
        self, name: str, password: str | None = None, *, robot: bool = False, groups: Iterable[str] = ()
    ) -> User:
        """A new user, with a password unless it is a robot. Raises BadRequest, Conflict, NotFound (a group)."""
        groups = tuple(groups)
        if robot and password:
            raise BadRequest("a robot has no password: make a token for it")
        if not robot:
            check_password(password or "")
        known = self.directory.groups()
        for group in groups:
            if group not in known:
                raise NotFound(f"there is no group {group}; there are {', '.join(known)}")
        self.directory.add_user(name, hash_password(password) if password else "", self._clock(), robot=robot)
        for group in groups:
            self.directory.add_member(group, name)
        return self.user(name)

    def user(self, name: str) -> User:
        """Raises NotFound."""
        found = self.directory.user(name)
        if found is None:
            raise NotFound(f"there is no user {name}")
        return found

    def change_password(self, name: str, password: str) -> None:
        """Raises BadRequest, NotFound, Conflict (a robot)."""
        check_password(password)
        self.directory.set_password(name, hash_password(password), self._clock())
        if name == ADMIN and self._admin_password is not None:
            self._admin_password.unlink(missing_ok=True)  # what stands there is not the password any more

    def create_token(
        self,
        user: str,
        name: str,
        *,
        seconds: float | None = None,
        actions: Iterable[str] = (),
        repositories: Iterable[str] = (),
    ) -> tuple[Token, str]:
        """A token for programs, and its text, which nobody can get again. `seconds` None: it does not expire.

        `repositories` are names, or names with a pattern of paths: "oci:team/**". Raises BadRequest, NotFound.
        """
        if not name or len(name) > 128 or not name.isprintable():
            raise BadRequest("give the token a name, of at most 128 characters, to know it by")
        return self._token("api", user, name, seconds, Ceiling.of(actions, repositories), None)

    def create_login(self, user: str, name: str, ceiling: Ceiling = UNBOUNDED, parent: str | None = None) -> str:
        """A refresh token, for a client that keeps no password. `parent` is the token that was shown for it."""
        return self._token("login", user, name[:128], _LOGIN_LIFE, ceiling, parent)[1]

    def _token(
        self, kind: Kind, user: str, name: str, seconds: float | None, ceiling: Ceiling, parent: str | None
    ) -> tuple[Token, str]:
        made = new_token(API_PREFIX if kind == "api" else LOGIN_PREFIX)
        now = self._clock()
        expires = None if seconds is None else now + seconds
        token = Token(made.id, user, kind, name, now, expires, ceiling, parent, made.hash)
        self.directory.add_token(token)
        return token, made.text


def parse_life(text: str) -> float | None:
    """Seconds of "30d", "12h", "90m"; None of "never". Raises BadRequest."""
    if text == "never":
        return None
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise BadRequest(f'{text!r} is no length of time: write "12h", "30d", "52w" or "never"')
    return float(int(match[1]) * _UNITS[match[2]])
