"""What a configuration says of modules from git: refused with its place, and what is read from files at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.settings import Kept, configured
from mxart.build_vcs import VcsTrust
from mxart.errors import ConfigError
from mxart.setup.clients import CLIENTS
from mxart.setup.facts import server

VCS = '[repository.corp]\nformat="go"\nkind="vcs"\nmodules=["corp.test/*"]\npath="/go"\n'
LOGIN = "[[repository.corp.login]]\n"


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        (VCS.replace('modules=["corp.test/*"]\n', ""), "repository.corp.modules", "as in GOPRIVATE"),
        (VCS.replace('"go"', '"oci"'), "repository.corp.kind", "only Go modules are read from git"),
        (VCS + 'upstream="https://a.test"', "repository.corp.upstream", "has no upstream"),
        (VCS + 'token="x"', "repository.corp.token", "no upstream to present it to"),
        (VCS + "max_bytes=1", "repository.corp.max_bytes", "what was made of a commit stays"),
        (VCS + 'sumdb="off"', "repository.corp.sumdb", "only a proxy"),
        (VCS + 'publish_to="x"', "repository.corp.publish_to", "by pushing a tag"),
        (VCS + 'proxy="ftp://x"', "repository.corp.proxy", "is not a proxy"),
        (VCS + '[repository.corp.urls]\n"corp.test/a"="git@git.test:a"', "urls.corp.test/a", "write https://host/path"),
        (VCS + LOGIN + 'hosts="https://git.test"', "login[0].hosts", "no host name"),
        (VCS + LOGIN + 'hosts=["git.test", "GIT"]', "login[0].hosts", "no host name"),
        (VCS + LOGIN + 'username="ann"', "login[0].password_file", "go together"),
        (VCS + LOGIN + 'password="x"', "login[0].username", "go together"),
        (VCS + LOGIN + 'token="x"\ntoken_file="/x"', "login[0].token_file", "not both"),
        (VCS + LOGIN + 'token="x"\nnetrc_file="/x"', "login[0].token", "give one of"),
        (VCS + LOGIN + 'token="x"\nusername="a"\npassword="b"', "login[0].token", "give one of"),
        (VCS + LOGIN + 'ssh_key_file="/key"', "login[0].known_hosts_file", "ssh-keyscan"),
        (VCS + LOGIN + 'ca_file="ca.pem"', "login[0].ca_file", "write the whole path"),
        (VCS + LOGIN + 'known_hosts_file="/a\\"b"', "login[0].known_hosts_file", "ssh takes no file"),
        (VCS + LOGIN + 'key="/key"', "repository.corp", "known here: hosts"),
        ('[repository.l]\nformat="oci"\nkind="local"\nmodules=["a.test"]', "repository.l.modules", "a local of oci"),
        ('[repository.l]\nformat="go"\nkind="local"\nurls={a="b"}', "repository.l.urls", 'kind = "vcs"'),
        (
            VCS + '[repository.g]\nformat="go"\nkind="group"\nmembers=["corp"]\npublish_to="corp"',
            "repository.g.publish_to",
            "is a vcs, whose content is git's",
        ),
    ],
)
def test_a_fault_names_its_place_and_what_would_be_right(text: str, place: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        configured(text)
    assert place in str(error.value)
    assert why in str(error.value)


def trust(text: str) -> VcsTrust:
    return VcsTrust.read("corp", configured(text).repositories["corp"])


def test_secrets_come_from_files_and_are_shown_by_nothing(tmp_path: Path) -> None:
    for name in ("token", "netrc"):
        (tmp_path / name).write_text(
            {"token": "secret-one\n", "netrc": "machine b.test login x password secret-two"}[name]
        )
    read = trust(
        VCS
        + f'{LOGIN}hosts="a.test"\ntoken_file="{tmp_path}/token"\n'
        + f'{LOGIN}hosts=["*.test"]\nnetrc_file="{tmp_path}/netrc"\n'
    )
    assert read.logins.of("a.test").basic("a.test", "a.test") == ("oauth2", "secret-one")
    assert read.logins.of("b.test").basic("b.test", "b.test") == ("x", "secret-two")
    assert read.logins.of("c.test").basic("c.test", "c.test") is None
    assert "secret" not in repr(read)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (VCS.replace("corp.test/*", "corp.test/[a"), r"repository\.corp\.modules: .* no pattern"),
        (VCS + '[repository.corp.urls]\n"corp.test/*"="https://git.test/a"', "same number of"),
        (VCS + '[repository.corp.urls]\n"corp.test/a"="https://ann:pw@git.test/a"', "go into a login"),
        (VCS + LOGIN + 'token_file="/nowhere/token"', r"login\[0\]\.token_file: /nowhere/token cannot be read"),
        (VCS + LOGIN + 'ca_file="/nowhere/ca"', r"repository\.corp\.login: .*cannot be read"),
        (VCS + LOGIN + 'netrc_file="{broken}"', r"login\[0\]\.netrc_file: .* none of machine"),
        (VCS + LOGIN + 'known_hosts_file="/nowhere/known"', "no file that this user can read"),
        (VCS + LOGIN + 'ssh_key_file="{open}"\nknown_hosts_file="{open}"', "chmod 600"),
    ],
)
def test_what_cannot_be_read_is_known_at_the_start(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("what")
    (tmp_path / "open").write_text("key")
    (tmp_path / "open").chmod(0o644)
    text = text.replace("{broken}", str(tmp_path / "broken")).replace("{open}", str(tmp_path / "open"))
    with pytest.raises(ConfigError, match=why) as error:
        trust(text)
    assert "pw@" not in str(error.value)


@pytest.mark.parametrize(
    ("script", "why"),
    [("", "needs git, which is not installed"), ("echo git version 2.20.1", "2.37 or newer; here is git")],
)
def test_without_a_git_that_can_be_used_nothing_starts(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script:
        program = tmp_path / "git"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=why):
        trust(VCS)
    assert os.environ["PATH"] == str(tmp_path)


def test_setting_a_client_up_names_the_patterns() -> None:
    text = (
        VCS.replace('path="/go"\n', "")
        + '[repository.public]\nformat="go"\nkind="proxy"\nupstream="https://proxy.golang.org"\n'
        + '[repository.all]\nformat="go"\nkind="group"\nmembers=["corp", "public"]\npath="/go"\n'
    )
    plan = CLIENTS["go"].plan("mirror", server(configured(text), "http://box.test"), Kept())
    assert any("go env -w 'GONOSUMDB=corp.test/*'" in note for note in plan.notes)


def test_check_says_what_is_private(tmp_path: Path) -> None:
    file = tmp_path / "mxart.toml"
    file.write_text(VCS)
    command = [sys.executable, "-m", "mxart", "--config", str(file), "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "repository  corp: go vcs at /go\n" in done.stdout
    assert "owned       corp.test/*: from git, asked of nobody but corp in its groups\n" in done.stdout
    file.write_text(VCS + LOGIN + 'token_file="/nowhere/token"')
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.returncode, "/nowhere/token cannot be read" in done.stderr) == (2, True)
