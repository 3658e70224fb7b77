"""`mxart user`, `group`, `token` and `check --as`, as administrators use them, beside a server that runs."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kit.servers import Mxart, mxart
from mxart.cli import main

CONFIG = """
[repository.oci]
format = "oci"
kind = "local"
path = "/"
[[permission]]
repository = "oci"
path = "secret/**"
groups = "core"
actions = ["read", "publish"]
"""
PASSWORD = "correct horse"


class Office:
    """An administrator's shell, on the machine of the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mine.toml").write_text(CONFIG)

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Standard output, or a mistake's words on standard error. In this process: another takes half a second."""
        line = ["--config", str(self.folder / "mine.toml"), "--data", str(self.data), *arguments]
        done = CliRunner().invoke(main, line, input=stdin, prog_name="mxart")
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout if code in {0, 1} else done.stderr

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def user(self, name: str, *more: str) -> None:
        self.run("user", "add", name, "--password-stdin", *more, stdin=f"{PASSWORD}\n")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def status(server: Mxart, path: str, authorization: str = "") -> int:
    request = urllib.request.Request(f"{server.url}{path}")
    if authorization:
        request.add_header("authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_users_groups_and_tokens_come_and_go(office: Office) -> None:
    office.user("ann")
    assert office.run("user", "add", "ci", "--robot") == "ci needs a token: mxart token create --user ci --name NAME\n"
    office.run("group", "add", "core")
    office.run("group", "join", "core", "ann", "ci")
    listed = office.run("user", "list")
    assert [line.split()[0] for line in listed.splitlines()] == ["USER", "admin", "ann", "ci"]
    assert office.run("group", "list").splitlines()[1:] == ["admins  admin", "core    ann, ci"]
    made = ["--expires", "12h", "--action", "read", "--repository", "oci:team/**"]
    text = office.run("token", "create", "--user", "ci", "--name", "build", *made).strip()
    number = text.split("_")[1]
    (line,) = office.run("token", "list").splitlines()[1:]
    assert line.split()[:3] == [number, "ci", "build"]
    assert "read in oci:team/**" in line
    assert text.rpartition("_")[2] not in line
    office.run("token", "revoke", number)
    assert len(office.run("token", "list").splitlines()) == 1
    office.run("group", "leave", "core", "ci")
    office.run("group", "delete", "core")
    office.run("user", "disable", "ann")
    assert "disabled" in office.run("user", "list")
    office.run("user", "enable", "ann")
    office.run("user", "delete", "ann")
    assert "ann" not in office.run("user", "list")
    audit = [json.loads(line) for line in (office.data / "audit" / "audit.jsonl").read_text().splitlines()]
    assert audit[0]["detail"] == "user add ann"
    assert audit[0]["source"].startswith("command line of ")
    assert PASSWORD not in str(audit)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["user", "add", "Ann", "--password-stdin"], "a-z 0-9"),
        (["user", "add", "ann"], "--password-stdin or --password-file"),
        (["user", "add", "ann", "--password-file", "/nowhere/p"], "cannot be read"),
        (["user", "add", "ann", "--password-stdin", "--password-file", "x"], "not both"),
        (["user", "add", "ann", "--group", "no", "--password-stdin"], "there are admins"),
        (["user", "delete", "nobody"], "there is no user nobody"),
        (["user", "delete", "admin"], "last administrator"),
        (["group", "join", "admins", "nobody"], "there is no user nobody"),
        (["token", "create", "--user", "admin", "--name", "x", "--expires", "soon"], "30d"),
        (["token", "create", "--user", "admin", "--name", "x", "--action", "reed"], "read, fetch"),
        (["token", "create", "--user", "admin", "--name", "x", "--repository", "no"], "there are oci"),
        (["token", "revoke", "123"], "there is no token 123"),
        (["check", "read"], "--as USER"),
        (["check", "--as", "admin", "read"], "ACTION REPOSITORY PATH"),
        (["check", "--as", "admin", "reed", "oci", "a"], "read, fetch"),
        (["check", "--as", "admin", "read", "no", "a"], "there are oci"),
    ],
)
def test_a_mistake_is_told_in_one_line(office: Office, arguments: list[str], told: str) -> None:
    error = office.run(*arguments, stdin=f"{PASSWORD}\n", code=2)
    assert told in error
    assert "Traceback" not in error


def test_check_says_what_somebody_may_and_which_rule_decides(office: Office) -> None:
    assert "there are no users yet" in office.run("check", "--as", "ann", "read", "oci", "a", code=2)
    assert not office.data.exists(), "a question makes nothing"
    assert office.run("check", "--as", "anonymous", "read", "oci", "team/app").splitlines() == [
        "yes: anonymous may read team/app in oci",
        "because: built in: allow anonymous fetch, read on ** of *",
    ]
    office.user("ann")
    said = office.run("check", "--as", "ann", "read", "oci", "secret/x", code=1)
    assert said.startswith("no: ann may not read secret/x in oci\nbecause: permission[0]: allow core")
    office.run("group", "add", "core")
    office.run("group", "join", "core", "ann")
    office.run("check", "--as", "ann", "read", "oci", "secret/x")
    office.run("check", "--as", "ann", "delete", "oci", "secret/x", code=1)
    office.run("check", "--as", "admin", "delete", "oci", "secret/x")
    assert "manage the whole in oci" in office.run("check", "--as", "admin", "manage", "oci")
    assert "manage the whole in the server" in office.run("check", "--as", "ann", "manage", "*", code=1)
    made = office.run("token", "create", "--user", "ann", "--name", "x", "--action", "publish").strip()
    number = made.split("_")[1]
    said = office.run("check", "--as", "ann", "--token", number, "read", "oci", "secret/x", code=1)
    assert f"the token {number} is only good for publish in every repository" in said
    assert "has no token" in office.run("check", "--as", "admin", "--token", number, "read", "oci", code=2)
    assert "no user eve" in office.run("check", "--as", "eve", "read", "oci", "a", code=2)
    # And the configuration, as before.
    lines = office.run("check").splitlines()
    assert lines[-2:] == [
        "permission  permission[0]: allow core publish, read on secret/** of oci",
        "the configuration is right",
    ]
    office.run("group", "delete", "core")
    assert "note        permission[0] names the group core, who is not there (yet)" in office.run("check")


@pytest.fixture
def server(office: Office) -> Iterator[Mxart]:
    with mxart(office.folder, CONFIG, workers=2) as made:
        yield made


def test_every_worker_of_a_running_server_sees_a_change_at_once(office: Office, server: Mxart) -> None:
    def every(authorization: str, path: str = "/v2/secret/x/tags/list") -> set[int]:
        return {status(server, path, authorization) for _ in range(8)}

    office.folder = server.data.parent
    shown = basic("ann", PASSWORD)
    assert every(shown) == {401}
    office.user("ann")
    assert every(shown) == {403}
    office.run("group", "add", "core")
    office.run("group", "join", "core", "ann")
    assert every(shown) == {404}
    text = office.run("token", "create", "--user", "ann", "--name", "x").strip()
    assert every(f"Bearer {text}") == {404}
    office.run("token", "revoke", text.split("_")[1])
    assert every(f"Bearer {text}") == {401}
    office.run("user", "password", "ann", "--password-stdin", stdin="another password")
    assert every(shown) == {401}
    shown = basic("ann", "another password")
    assert every(shown) == {404}
    office.run("user", "delete", "ann")
    assert every(shown) == {401}


def test_the_first_start_says_where_the_password_of_admin_is_and_it_lets_in(office: Office, server: Mxart) -> None:
    file = server.data / "admin-password"
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(file) in server.log()
    password = file.read_text().strip()
    assert password not in server.log()
    assert status(server, "/v2/") == 401
    assert status(server, "/v2/", basic("admin", password)) == 200
