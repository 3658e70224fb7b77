"""Users, groups and tokens at rest, in `<data>/access.sqlite` (0600), for all workers and the command line at once.

Reading takes tens of microseconds, writing waits for the disk; both may be done in any thread.  `version` tells whoever
remembers something whether it may have changed, whichever process has changed it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mxart.access.people import Ceiling, Kind, Token, User
from mxart.access.rules import ADMINS, EVERYBODY, USERS
from mxart.access.schema import connect
from mxart.config_access import NAME_RULE, is_user_name
from mxart.errors import BadRequest, ConfigError, Conflict, NotFound, Problem, StorageFull

MAX_LOGINS = 100
"""Refresh tokens of one user: a further one takes the place of the oldest."""

_BUILT_IN = (EVERYBODY, USERS)
_USER = """SELECT users.id, users.name, users.robot, users.disabled, users.created, users.changed,
  (SELECT group_concat(groups.name, ' ') FROM members JOIN groups ON groups.id = "group" WHERE user = users.id)
  FROM users"""
_TOKEN = """SELECT tokens.id, users.name, kind, tokens.name, tokens.created, expires, ceiling, parent, hash
  FROM tokens JOIN users ON users.id = tokens.user"""  # noqa: S105  # a question, not a password


class Directory:
    """One process's view of the file, which `schema.prepare` has made."""

    def __init__(
        self, path: Path, moved: Callable[[], int] | None = None, tell: Callable[[], None] = lambda: None
    ) -> None:
        """`moved` is a number that changes at least when anything here does, and is cheap to read; without one the
        file itself is asked each time.  `tell` makes it change for everybody. Raises ConfigError.
        """
        try:
            self._reading = connect(path)
            self._writing = connect(path)
        except sqlite3.Error as error:
            raise ConfigError(f"{path}: the users cannot be read: {error}") from error
        self._turn = threading.Lock()
        self._reading_turn = threading.Lock()
        self._moved = moved
        self._tell = tell
        self._seen: int | None = None
        self._data_version = self._look()
        self._version = 0

    def close(self) -> None:
        """Let go of the file."""
        self._reading.close()
        self._writing.close()

    def version(self) -> int:
        """A number that is another one after any change that anybody made. Less than a microsecond, or three."""
        if self._moved is not None:
            moved = self._moved()
            if moved == self._seen:
                return self._version
            self._seen = moved
        found = self._look()
        if found != self._data_version:
            self._data_version = found
            self._version += 1
        return self._version

    def _look(self) -> int:
        ((found,),) = self._rows("PRAGMA data_version")
        assert isinstance(found, int)
        return found

    # reading

    def _rows(self, question: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer. No question stays half read while another thread asks: what the connection sees would
        stand still until then, and an old user be taken for the one after a change.
        """
        with self._reading_turn:
            return self._reading.execute(question, parameters).fetchall()

    def _row(self, question: str, parameters: tuple[object, ...]) -> tuple[Any, ...] | None:
        return next(iter(self._rows(question, parameters)), None)

    def user(self, name: str) -> User | None:
        """Somebody by name."""
        row = self._row(f"{_USER} WHERE users.name = ?", (name,))
        return _user(row) if row is not None else None

    def user_of(self, number: int) -> User | None:
        """Somebody by number."""
        row = self._row(f"{_USER} WHERE users.id = ?", (number,))
        return _user(row) if row is not None else None

    def users(self) -> list[User]:
        """Everybody, by name."""
        return [_user(row) for row in self._rows(f"{_USER} ORDER BY users.name")]

    def password(self, name: str) -> str:
        """What is kept of somebody's password; "" if he has none, or is not there."""
        row = self._row("SELECT password FROM users WHERE name = ?", (name,))
        return str(row[0]) if row is not None else ""

    def groups(self) -> dict[str, list[str]]:
        """Every group, with the names of its members; both in order. Those that are built in have no list."""
        found: dict[str, list[str]] = {name: [] for (name,) in self._rows("SELECT name FROM groups ORDER BY name")}
        for group, user in self._rows(
            """SELECT groups.name, users.name FROM members JOIN groups ON groups.id = "group"
            JOIN users ON users.id = members.user ORDER BY 1, 2"""
        ):
            found.setdefault(group, []).append(user)  # it may be made just now
        return found

    def token(self, number: str) -> Token | None:
        """A token by what stands in the middle of it."""
        row = self._row(f"{_TOKEN} WHERE tokens.id = ?", (number,))
        return _token(row) if row is not None else None

    def tokens(self, user: str | None = None, kind: Kind | None = None) -> list[Token]:
        """Tokens, by user and age; of one user, of one kind."""
        rows = self._rows(
            f"{_TOKEN} WHERE (?1 IS NULL OR users.name = ?1) AND (?2 IS NULL OR kind = ?2)"
            " ORDER BY users.name, tokens.created, tokens.id",
            (user, kind),
        )
        return [_token(row) for row in rows]

    def fact(self, name: str) -> str:
        """Something that was noted; "" if it was not."""
        row = self._row("SELECT value FROM facts WHERE name = ?", (name,))
        return str(row[0]) if row is not None else ""

    # writing: each is on disk when it returns

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Raises StorageFull where there is no room, Problem where the file cannot be written for another reason."""
        try:
            with self._turn:
                self._writing.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writing
                    self._writing.execute("COMMIT")
                finally:
                    if self._writing.in_transaction:
                        self._writing.execute("ROLLBACK")
        except sqlite3.Error as error:
            kind = StorageFull if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL else Problem
            raise kind(f"the users cannot be changed: {error}") from error
        self._tell()

    def add_user(self, name: str, password: str, now: float, *, robot: bool = False) -> None:
        """`password` is what is kept of it, "" for none. Raises BadRequest, Conflict."""
        if not is_user_name(name) or name in _BUILT_IN:
            raise BadRequest(f"{name!r} is no name for a user: {NAME_RULE}, and not {' or '.join(_BUILT_IN)}")
        with self._transaction() as change:
            if change.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
                raise Conflict(f"there is a user {name} already")
            change.execute(
                "INSERT INTO users (name, password, robot, created, changed) VALUES (?, ?, ?, ?, ?)",
                (name, password, robot, now, now),
            )

    def delete_user(self, name: str) -> None:
        """With all tokens. Raises NotFound; Conflict for the last administrator."""
        with self._transaction() as change:
            number = _user_number(change, name)
            with _keeping_an_administrator(change, name):
                change.execute("DELETE FROM users WHERE id = ?", (number,))

    def set_password(self, name: str, password: str, now: float) -> None:
        """`password` is what is kept of it. Logins that were made with the old one end. Raises NotFound, Conflict."""
        with self._transaction() as change:
            number = _user_number(change, name)
            changed = change.execute(
                "UPDATE users SET password = ?, changed = max(?, changed + 0.001) WHERE id = ? AND NOT robot",
                (password, now, number),
            )
            if not changed.rowcount:
                raise Conflict(f"{name} is a robot: it has no password, make a token for it")
            change.execute("DELETE FROM tokens WHERE user = ? AND kind = 'login'", (number,))

    def set_disabled(self, name: str, disabled: bool) -> None:
        """Whether somebody is kept out, with all his tokens. Raises NotFound; Conflict for the last administrator."""
        with self._transaction() as change:
            number = _user_number(change, name)
            with _keeping_an_administrator(change, name):
                change.execute("UPDATE users SET disabled = ? WHERE id = ?", (disabled, number))

    def add_group(self, name: str) -> None:
        """Make an empty group. Raises BadRequest, Conflict."""
        if not is_user_name(name) or name in _BUILT_IN:
            raise BadRequest(f"{name!r} is no name for a group: {NAME_RULE}, and not {' or '.join(_BUILT_IN)}")
        with self._transaction() as change:
            if not change.execute("INSERT OR IGNORE INTO groups (name) VALUES (?)", (name,)).rowcount:
                raise Conflict(f"there is a group {name} already")

    def delete_group(self, name: str) -> None:
        """Raises NotFound; Conflict for the administrators."""
        if name == ADMINS:
            raise Conflict(f"the group {ADMINS} stays")
        with self._transaction() as change:
            change.execute("DELETE FROM groups WHERE id = ?", (_group_number(change, name),))

    def add_member(self, group: str, user: str) -> None:
        """Idempotent. Raises NotFound."""
        with self._transaction() as change:
            pair = (_user_number(change, user), _group_number(change, group))
            change.execute('INSERT OR IGNORE INTO members (user, "group") VALUES (?, ?)', pair)

    def remove_member(self, group: str, user: str) -> None:
        """Idempotent. Raises NotFound; Conflict for the last administrator."""
        with self._transaction() as change:
            pair = (_user_number(change, user), _group_number(change, group))
            with _keeping_an_administrator(change, user):
                change.execute('DELETE FROM members WHERE user = ? AND "group" = ?', pair)

    def add_token(self, token: Token) -> None:
        """Raises NotFound if there is no such user."""
        with self._transaction() as change:
            number = _user_number(change, token.user)
            change.execute(
                "INSERT INTO tokens (id, user, kind, name, hash, created, expires, ceiling, parent)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token.id,
                    number,
                    token.kind,
                    token.name,
                    token.hash,
                    token.created,
                    token.expires,
                    token.ceiling.encode(),
                    token.parent,
                ),
            )
            if token.kind == "login":
                change.execute("DELETE FROM tokens WHERE kind = 'login' AND expires <= ?", (token.created,))
                change.execute(
                    "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE user = ? AND kind = 'login'"
                    " ORDER BY created DESC, id LIMIT -1 OFFSET ?)",
                    (number, MAX_LOGINS),
                )

    def revoke(self, number: str) -> None:
        """End a token, with all that was got by it. Raises NotFound."""
        with self._transaction() as change:
            if not change.execute("DELETE FROM tokens WHERE id = ?", (number,)).rowcount:
                raise NotFound(f"there is no token {number}")

    def note(self, name: str, value: str) -> None:
        """Note something, for `fact`."""
        with self._transaction() as change:
            change.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))


def _user(row: tuple[Any, ...]) -> User:
    number, name, robot, disabled, created, changed, groups = row
    return User(number, name, frozenset((groups or "").split()), bool(robot), bool(disabled), created, changed)


def _token(row: tuple[Any, ...]) -> Token:
    number, user, kind, name, created, expires, ceiling, parent, hash_ = row
    token = Token(number, user, kind, name, created, expires, Ceiling.decode(ceiling), parent)
    return replace(token, hash=bytes(hash_))


def _user_number(change: sqlite3.Connection, name: str) -> int:
    row = change.execute("SELECT id FROM users WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"there is no user {name}")
    return int(row[0])


def _group_number(change: sqlite3.Connection, name: str) -> int:
    row = change.execute("SELECT id FROM groups WHERE name = ?", (name,)).fetchone()
    if row is None:
        told = " (it is built in, and has no list of members)" if name in _BUILT_IN else ""
        raise NotFound(f"there is no group {name}{told}")
    return int(row[0])


@contextmanager
def _keeping_an_administrator(change: sqlite3.Connection, name: str) -> Iterator[None]:
    """Raises Conflict if nobody is left afterwards who may do everything, and there was somebody before."""
    before = _administrators(change)
    yield
    if before and not _administrators(change):
        raise Conflict(f"{name} is the last administrator: put somebody else into the group {ADMINS} first")


def _administrators(change: sqlite3.Connection) -> int:
    (count,) = change.execute(
        """SELECT count(*) FROM users JOIN members ON members.user = users.id JOIN groups ON groups.id = "group"
        WHERE groups.name = ? AND NOT users.disabled""",
        (ADMINS,),
    ).fetchone()
    return int(count)
