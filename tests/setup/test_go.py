"""What makes the go command ask us, and which of our URLs it is told."""

from __future__ import annotations

import pytest

from kit.settings import Kept, configured
from mxart.setup.clients import CLIENTS
from mxart.setup.facts import server
from mxart.setup.go import OWN

_CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
_MIRROR = '[repository.mirror]\nformat = "go"\nkind = "proxy"\nupstream = "https://proxy.golang.org"\n'
_GROUP = '[repository.all]\nformat = "go"\nkind = "group"\nmembers = ["mirror"]\n'


@pytest.mark.parametrize(
    ("text", "url", "expected"),
    [
        ("", "https://box.test:8443", "https://box.test:8443/go"),
        ("", "http://127.0.0.1:8080", "http://127.0.0.1:8080/go"),
        (_MIRROR + 'path = "/mirror"\n', "https://box.test", "https://box.test/mirror"),
        (_MIRROR + 'path = "/mirror"\n' + _GROUP + 'path = "/all"\n', "https://box.test", "https://box.test/all"),
        (_MIRROR + _GROUP + 'hosts = ["go.test"]\n', "https://go.test", "https://go.test"),
        (_MIRROR + 'path = "/"\n', "https://box.test", "https://box.test"),
        (_MIRROR, "https://box.test", ""),
    ],
)
def test_the_url_of_the_modules(text: str, url: str, expected: str) -> None:
    assert server(configured(text), url).modules == expected


def test_every_shell_is_told_and_the_machine_trusts_our_ca() -> None:
    plan = CLIENTS["go"].plan("mirror", server(configured(""), "https://box.test", _CA), Kept())
    there = Kept().after(plan)
    assert there[OWN].endswith("\nexport GOPROXY=https://box.test/go\n")
    assert "/usr/local/share/ca-certificates/mxart.crt" in there
    said = "\n".join(plan.notes)
    assert "go env -w GOPROXY=https://box.test/go" in said
    assert "machine box.test login USER password TOKEN" in said
    assert "before Go 1.24" not in said
    assert "GONOSUMDB=" in said
    assert "GONOSUMCHECK" not in said  # no go command has ever known it
    assert ",direct" not in there[OWN]


_OWN = '[repository.own]\nformat = "go"\nkind = "local"\n'
_NESTED = _GROUP.replace("all", "in").replace("mirror", "own") + _GROUP.replace("mirror", "in")
_KEY = "sum.example.test+0123abcd+AbC/+="


@pytest.mark.parametrize(
    ("text", "url", "below"),
    [
        ("", "https://box.test", "/go"),
        ("", "http://127.0.0.1:8080", "/go"),
        (_OWN + 'hosts = ["go.test"]\n', "https://go.test", ""),
        (_OWN + _NESTED + 'path = "/all"\n', "https://box.test", "/all"),
    ],
    ids=["default", "plain", "host", "nested"],
)
def test_modules_of_our_own_are_verified_by_a_database_of_our_own(text: str, url: str, below: str) -> None:
    plan = CLIENTS["go"].plan("mirror", server(configured(text), url, sumdb_key=_KEY), Kept())
    line = f"GOSUMDB='{_KEY} {url}{below}/sumdb/sum.example.test'"
    assert Kept().after(plan)[OWN].endswith(f"\nexport {line}\n")
    said = "\n".join(plan.notes)
    assert f"go env -w {line}" in said
    assert "leave GOSUMDB as it is: go env -w GONOSUMDB=example.com/yours" in said


def test_before_there_is_a_key_that_is_said() -> None:
    plan = CLIENTS["go"].plan("mirror", server(configured(""), "http://box.test"), Kept())
    assert "GOSUMDB" not in Kept().after(plan)[OWN]
    said = "\n".join(plan.notes)
    assert "no key before the server first starts" in said
    assert "GONOSUMDB=example.com/yours" in said


def test_a_mirror_alone_leaves_clients_their_database() -> None:
    text = _MIRROR + 'path = "/mirror"\n'
    plan = CLIENTS["go"].plan("mirror", server(configured(text), "http://box.test", sumdb_key=_KEY), Kept())
    assert "GOSUMDB" not in Kept().after(plan)[OWN]
    assert not any("GOSUMDB=" in note for note in plan.notes)


def test_without_tls_no_password_is_spoken_of() -> None:
    plan = CLIENTS["go"].plan("mirror", server(configured(""), "http://box.test"), Kept())
    assert not any("netrc" in note for note in plan.notes)
    assert any("over plain http" in note for note in plan.notes)


def test_where_there_are_no_modules_that_is_said_and_what_we_set_is_undone() -> None:
    before = Kept().after(CLIENTS["go"].plan("mirror", server(configured(""), "http://box.test"), Kept()))
    plan = CLIENTS["go"].plan("mirror", server(configured(_MIRROR), "http://box.test"), before)
    assert "GOPROXY" not in before.after(plan)[OWN]
    assert any('format = "go"' in note for note in plan.notes)


def test_a_port_is_named_as_each_go_command_wants_it() -> None:
    plan = CLIENTS["go"].plan("mirror", server(configured(""), "https://box.test:8443", _CA), Kept())
    said = "\n".join(plan.notes)
    assert "machine box.test:8443 login" in said
    assert "some Go before 1.21 wants no port in that line: machine box.test login" in said
