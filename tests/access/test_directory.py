"""Users, groups and tokens at rest: seen by everybody at once, gone for good, never without an administrator."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxart.access import directory, schema
from mxart.access.credentials import (
    API_PREFIX,
    check_password,
    hash_password,
    new_token,
    parse_token,
    verify_password,
)
from mxart.access.directory import MAX_LOGINS, Directory
from mxart.access.management import ADMIN, Management, parse_life
from mxart.access.people import Ceiling, User
from mxart.errors import BadRequest, ConfigError, Conflict, NotFound, Problem, StorageFull

PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.sqlite"
        self.secret = folder / "admin-password"
        schema.prepare(self.path)
        self.clock = Clock()
        self.directory = Directory(self.path)
        self.manage = Management(self.directory, self.secret, self.clock)
        self.manage.make_administrator()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.directory.close()


def test_the_first_start_makes_an_administrator_and_writes_the_password_once(world: World) -> None:
    password = world.secret.read_text().strip()
    assert len(password) >= 20
    assert stat.S_IMODE(world.secret.stat().st_mode) == stat.S_IMODE(world.path.stat().st_mode) == 0o600
    assert verify_password(world.directory.password(ADMIN), password)
    assert world.manage.user(ADMIN).groups == {"admins"}
    assert not world.manage.make_administrator()
    assert world.secret.read_text().strip() == password
    # Once it is changed, what stands there is not a password any more; a restart writes no other.
    world.manage.change_password(ADMIN, PASSWORD)
    assert not world.secret.exists()
    assert not world.manage.make_administrator()
    assert not world.secret.exists()


def test_a_start_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    """The password is written before the user is made: none is in use that nobody can read."""
    schema.prepare(tmp_path / "access.sqlite")
    (tmp_path / "admin-password").write_text("of the start that died\n")
    directory = Directory(tmp_path / "access.sqlite")
    assert Management(directory, tmp_path / "admin-password").make_administrator()
    assert verify_password(directory.password(ADMIN), (tmp_path / "admin-password").read_text().strip())
    directory.close()


def _start(folder: Path) -> None:
    schema.prepare(folder / "access.sqlite")
    directory = Directory(folder / "access.sqlite")
    Management(directory, folder / "admin-password").make_administrator()
    directory.close()


def test_a_server_and_commands_that_start_at_once_make_one_administrator(tmp_path: Path) -> None:
    """And the file holds the password that is in use."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(_start, [folder] * 4, chunksize=1)
        directory = Directory(folder / "access.sqlite")
        assert [user.name for user in directory.users()] == [ADMIN]
        assert verify_password(directory.password(ADMIN), (folder / "admin-password").read_text().strip())
        directory.close()


def test_users_come_with_groups_and_go_with_their_tokens(world: World) -> None:
    world.directory.add_group("core")
    ann = world.manage.create_user("ann", PASSWORD, groups=["core"])
    assert (ann.groups, ann.robot, ann.disabled, ann.created) == ({"core"}, False, False, world.clock.now)
    assert [user.name for user in world.directory.users()] == [ADMIN, "ann"]
    assert world.directory.groups() == {"admins": [ADMIN], "core": ["ann"]}
    token, text = world.manage.create_token("ann", "ci")
    assert text.startswith(f"mxt_{token.id}_")
    world.manage.create_login("ann", "docker", parent=token.id)
    world.directory.delete_user("ann")
    assert world.directory.user("ann") is None
    assert world.directory.tokens() == []
    assert world.directory.groups()["core"] == []
    again = world.manage.create_user("ann", PASSWORD)
    assert again.id > ann.id, "or what was signed for the one who is gone would be hers"


def test_what_is_wrong_is_told(world: World) -> None:
    world.manage.create_user("robo", robot=True)
    for attempt, kind, words in (
        (lambda: world.manage.create_user("Ann", PASSWORD), BadRequest, "a-z 0-9"),
        (lambda: world.manage.create_user("users", PASSWORD), BadRequest, "not anonymous or users"),
        (lambda: world.manage.create_user("a:b", PASSWORD), BadRequest, "a-z 0-9"),
        (lambda: world.manage.create_user("ann", "short"), BadRequest, "8 to 1024"),
        (lambda: world.manage.create_user("ann", "with\ncontrol"), BadRequest, "control characters"),
        (lambda: world.manage.create_user("ann"), BadRequest, "8 to 1024"),
        (lambda: world.manage.create_user("ann", PASSWORD, robot=True), BadRequest, "token"),
        (lambda: world.manage.create_user("ann", PASSWORD, groups=["no"]), NotFound, "there are admins"),
        (lambda: world.manage.create_user(ADMIN, PASSWORD), Conflict, "already"),
        (lambda: world.manage.change_password("nobody", PASSWORD), NotFound, "no user nobody"),
        (lambda: world.manage.change_password("robo", PASSWORD), Conflict, "robot"),
        (lambda: world.manage.create_token("nobody", "x"), NotFound, "no user nobody"),
        (lambda: world.manage.create_token(ADMIN, ""), BadRequest, "name"),
        (lambda: world.manage.create_token(ADMIN, "x", actions=["reed"]), BadRequest, "read, fetch"),
        (lambda: world.manage.create_token(ADMIN, "x", repositories=["oci:/a"]), BadRequest, "pattern"),
        (lambda: world.manage.create_token(ADMIN, "x", repositories=[":a"]), BadRequest, "oci:team"),
        (lambda: world.directory.revoke("123"), NotFound, "no token"),
        (lambda: world.directory.add_group("anonymous"), BadRequest, "not anonymous"),
        (lambda: world.directory.add_group("admins"), Conflict, "already"),
        (lambda: world.directory.delete_group("admins"), Conflict, "stays"),
        (lambda: world.directory.add_member("users", ADMIN), NotFound, "built in"),
        (lambda: world.directory.delete_user(ADMIN), Conflict, "last administrator"),
        (lambda: world.directory.set_disabled(ADMIN, True), Conflict, "last administrator"),
        (lambda: world.directory.remove_member("admins", ADMIN), Conflict, "last administrator"),
        (lambda: parse_life("soon"), BadRequest, "30d"),
        (lambda: parse_life("0d"), BadRequest, "30d"),
    ):
        with pytest.raises(kind, match=words):
            attempt()
    assert [user.name for user in world.directory.users()] == [ADMIN, "robo"]
    assert world.directory.user(ADMIN).disabled is False
    assert (parse_life("never"), parse_life("2d")) == (None, 172800.0)


def test_with_another_administrator_the_first_may_go(world: World) -> None:
    world.manage.create_user("ann", PASSWORD, groups=["admins"])
    world.directory.delete_user(ADMIN)
    with pytest.raises(Conflict):
        world.directory.set_disabled("ann", True)


def test_a_tokens_bounds_survive(world: World) -> None:
    token, _ = world.manage.create_token(
        ADMIN, "deploy", seconds=60, actions=["publish", "read"], repositories=["oci:team/**", "hub"]
    )
    kept = world.directory.token(token.id)
    assert kept == token
    assert kept.ceiling.allows("publish", "oci", "team/app")
    assert kept.ceiling.allows("read", "hub", "anything")
    assert not kept.ceiling.allows("delete", "oci", "team/app")
    assert not kept.ceiling.allows("read", "oci", "other")
    assert not kept.ceiling.allows("read", "go", "team/app")
    assert str(kept.ceiling) == "read, publish in oci:team/**, hub:**"
    assert Ceiling.of(*kept.ceiling.words()) == kept.ceiling
    assert (kept.is_over(world.clock.now + 59), kept.is_over(world.clock.now + 60)) == (False, True)


def test_revoking_a_token_ends_what_was_got_by_it(world: World) -> None:
    token, _ = world.manage.create_token(ADMIN, "ci")
    world.manage.create_login(ADMIN, "docker", parent=token.id)
    assert len(world.directory.tokens(ADMIN)) == 2
    assert [one.kind for one in world.directory.tokens(ADMIN, "login")] == ["login"]
    world.directory.revoke(token.id)
    assert world.directory.tokens() == []


def test_logins_do_not_pile_up_and_end_with_the_password(world: World) -> None:
    for number in range(MAX_LOGINS + 5):
        world.clock.now += 1
        world.manage.create_login(ADMIN, f"login {number}")
    logins = world.directory.tokens(ADMIN, "login")
    assert [login.name for login in (logins[0], logins[-1])] == ["login 5", f"login {MAX_LOGINS + 4}"]
    world.manage.create_token(ADMIN, "ci")
    world.manage.change_password(ADMIN, PASSWORD)
    assert [token.kind for token in world.directory.tokens()] == ["api"]


def _add(path: Path) -> None:
    directory = Directory(path)
    Management(directory).create_user("ann", PASSWORD)


@pytest.mark.parametrize("counted", [True, False])
def test_another_process_change_is_seen_at_once(world: World, counted: bool) -> None:
    number = 0
    watching = Directory(world.path, (lambda: number) if counted else None)
    before = watching.version()
    assert watching.version() == before
    process = multiprocessing.get_context("fork").Process(target=_add, args=(world.path,))
    process.start()
    process.join()
    number += 1
    assert watching.version() != before
    assert watching.user("ann") is not None
    settled = watching.version()
    number += 1  # something else has changed
    assert watching.version() == settled
    watching.close()


def test_a_file_of_another_program_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.sqlite"
    schema.prepare(path)
    schema.prepare(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer program"):
        schema.prepare(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        schema.prepare(path)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="restore the file"):
        schema.prepare(path)


def test_passwords_are_kept_as_argon2id_and_tokens_as_a_hash(world: World) -> None:
    kept = hash_password(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert verify_password(kept, PASSWORD)
    assert not verify_password(kept, PASSWORD + "x")
    assert not verify_password("", PASSWORD)
    assert not verify_password("rubbish", PASSWORD)
    assert not verify_password(hash_password("x" * 1024), "x" * 1025)
    check_password("péché mignon 123")
    made = new_token(API_PREFIX)
    shown = parse_token(made.text)
    assert shown is not None
    assert shown.is_kept_as(made.hash)
    assert not parse_token(made.text[:-1] + ("0" if made.text[-1] != "0" else "1")).is_kept_as(made.hash)
    for text in ("", "mxt_", made.text[:-1], made.text + "0", made.text.upper(), f" {made.text}"):
        assert parse_token(text) is None
    token, text = world.manage.create_token(ADMIN, "ci")
    world.directory.close()
    assert text.rpartition("_")[2].encode() not in b"".join(
        path.read_bytes() for path in world.path.parent.glob("access.sqlite*")
    )
    assert text not in repr(token)
    world.directory = Directory(world.path)


def test_a_disk_without_room_is_told_and_changes_nothing(world: World) -> None:
    world.directory._writing.execute("PRAGMA max_page_count = 1")

    def fill() -> None:
        for number in range(1000):
            world.directory.add_group(f"group{number}")

    with pytest.raises(StorageFull, match="cannot be changed"):
        fill()
    before = world.directory.groups()
    world.directory._writing.execute("PRAGMA max_page_count = 1000000")
    world.directory.add_group("after")
    assert set(world.directory.groups()) == {*before, "after"}


def test_a_file_that_cannot_be_written_is_told_in_words(world: World) -> None:
    world.directory._writing.execute("PRAGMA query_only = ON")
    with pytest.raises(Problem, match="cannot be changed: attempt to write a readonly database"):
        world.directory.add_group("core")


def test_a_change_is_seen_while_another_thread_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is kept out by a command while a call of the API looks through the users in a thread."""
    world.manage.create_user("ann", PASSWORD)
    watching = Directory(world.path)
    before, version = watching.user("ann"), watching.version()
    half, over = threading.Event(), threading.Event()
    make = directory._user

    def slowly(row: tuple[object, ...]) -> User:
        if threading.current_thread() is not threading.main_thread():
            half.set()
            assert over.wait(20)
        return make(row)

    monkeypatch.setattr(directory, "_user", slowly)
    reading = threading.Thread(target=watching.users)
    reading.start()
    try:
        assert half.wait(20)
        world.directory.set_disabled("ann", True)
        after = watching.user("ann")
        assert watching.version() != version
    finally:
        over.set()
        reading.join()
    assert before is not None
    assert after is not None
    assert (before.disabled, after.disabled) == (False, True)
