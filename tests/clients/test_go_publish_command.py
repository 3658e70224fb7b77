"""`mxart go publish`: the same files as the go command takes, so the same h1; and what its user is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kit.go_command import GO_VERSIONS, GoCommand
from kit.servers import Mxart, mxart, program

CONFIG = '[repository.own]\nformat = "go"\nkind = "local"\npath = "/go"\n'
REPO = "example.com/team/repo.git"
FILES = {
    "LICENSE": "of the repository\n",
    "go.mod": f"module {REPO}\n\ngo 1.17\n",
    "root.go": "package root\n",
    "Ünïcode name.txt": "x\n",
    "vendor/modules.txt": "# example.com/x v1.0.0\n",
    "vendor/example.com/x/x.go": "package x\n",
    "a/vendor/flat.go": "package vendor\n",
    "a/vendor/deep/deep.go": "package deep\n",
    "aa/bb/ccccc/vendor/flat.go": "package vendor\n",
    "nested/GO.MOD": "no module, and left out all the same\n",
    "nested/more/x.go": "package more\n",
    "sub/go.mod": f"module {REPO}/sub\n\ngo 1.24\n",
    "sub/sub.go": "package sub\n",
    "sub/vendor/modules.txt": "# example.com/x v1.0.0\n",
    "sub/a/vendor/flat.go": "package vendor\n",
    "sub/a/vendor/deep/deep.go": "package deep\n",
    "own/v2/go.mod": f"module {REPO}/own/v2\n\ngo 1.25.1\n",
    "own/v2/LICENSE": "its own\n",
    ".hg_archival.txt": "x\n",
    ".gitignore": "built\n",
}


class Tree:
    """A repository of git's with several modules, and the go command that gets them from it."""

    def __init__(self, room: Path) -> None:
        self.top = room / "repo"
        for name, text in FILES.items():
            (self.top / name).parent.mkdir(parents=True, exist_ok=True)
            (self.top / name).write_text(text)
        (self.top / "link.go").symlink_to("root.go")
        self.git("init", "-q")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run([program("git"), "-C", self.top, *identity, *arguments], check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all", "--force")
        self.git("commit", "-qm", "all")

    def go(self, folder: Path, by: str) -> GoCommand:
        instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{self.top}.insteadOf"}
        url = f"https://{REPO.removesuffix('.git')}"
        return GoCommand(folder, "direct", version=by, **instead, GIT_CONFIG_VALUE_0=url)


@pytest.fixture
def tree(room: Path) -> Tree:
    return Tree(room)


@pytest.fixture
def server(room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", CONFIG, tls=True) as running:
        yield running


def publish(
    folder: Path, to: str, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    command = [sys.executable, "-m", "mxart", "go", "publish", str(folder), "--to", to, *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **(env or {})}
    )
    return done.returncode, done.stdout + done.stderr


def login(server: Mxart) -> tuple[list[str], str]:
    password = (server.data / "admin-password").read_text()
    return ["--ca", str(server.ca), "--user", "admin", "--password-stdin"], password


@pytest.mark.parametrize(
    ("by", "where", "path", "version", "tag"),
    [
        *((by, "", REPO, "v1.2.3", "v1.2.3") for by in GO_VERSIONS),
        # By what is vendored in a module that wants at least 1.24; an older command makes other zips, and no use of it.
        *((by, "sub", f"{REPO}/sub", "v0.4.0-rc.1", "sub/v0.4.0-rc.1") for by in GO_VERSIONS[1:]),
        (GO_VERSIONS[-1], "own/v2", f"{REPO}/own/v2", "v2.0.1", "own/v2.0.1"),
    ],
)
def test_what_is_published_has_the_sum_that_the_go_command_makes_of_the_commit(
    tree: Tree, server: Mxart, room: Path, by: str, where: str, path: str, version: str, tag: str
) -> None:
    tree.git("tag", tag)
    (tree.top / where / "built").write_text("not committed\n")
    (direct,) = tree.go(room / "direct", by).download(f"{path}@{version}").values()
    arguments, password = login(server)
    code, text = publish(tree.top / where, f"{server.url}/go", *arguments, stdin=password)
    assert (code, direct.sum in text.splitlines()[0]) == (0, True), (text, direct.sum)
    assert text.splitlines()[1] == f"published: {direct.sum}"
    (ours,) = GoCommand(room / "ours", f"{server.url}/go", server.ca).download(f"{path}@{version}").values()
    assert (ours.sum, ours.mod_sum) == (direct.sum, direct.mod_sum)
    code, text = publish(tree.top / where, f"{server.url}/go", *arguments, stdin=password)
    assert (code, "published before" in text) == (0, True)


def test_a_version_that_is_there_is_refused_in_the_servers_words(tree: Tree, server: Mxart) -> None:
    arguments, password = login(server)
    for text, code in (("package a\n", 0), ("package b\n", 1)):
        (tree.top / "root.go").write_text(text)
        tree.commit()
        found = publish(tree.top, f"{server.url}/go", *arguments, "--version", "v1.0.0", stdin=password)
        assert found[0] == code, found
    assert "409" in found[1]
    assert "published already, with other content" in found[1]
    code, said = publish(tree.top, f"{server.url}/go", "--ca", str(server.ca), "--version", "v1.1.0")
    assert code == 1
    assert "401" in said


def test_a_folder_without_git_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module example.com/plain\n")
    (tmp_path / "a.go").write_text("package plain\n")
    (tmp_path / ".svn").mkdir()
    (tmp_path / ".svn" / "entries").write_text("x")
    code, text = publish(tmp_path, "https://packages.example/go", "--version", "v0.1.0", "--dry-run")
    assert code == 0
    assert "example.com/plain@v0.1.0: 2 files" in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "say --version"),
        (("--version", "v1.0"), "v1.0.0 is one"),
        (("--version", "v2.0.0"), "ends a module's path"),
        (("--version", "v1.0.0", "--token-file", "/nonexistent"), "No such file"),
        (("--version", "v1.0.0", "--user", "ann"), "--password-stdin, too"),
        (("--version", "v1.0.0", "--password-stdin"), "--user, too"),
        (("--version", "v1.0.0", "--user", "ann", "--password-stdin"), "plain text"),
    ],
)
def test_a_users_mistake_is_told_in_one_line(tree: Tree, arguments: tuple[str, ...], why: str) -> None:
    code, text = publish(tree.top, "http://packages.example/go", *arguments, stdin="secret\n")
    assert code == 2
    assert why in text.splitlines()[-1]
    assert "secret" not in text


def test_what_is_not_committed_is_not_published_by_mistake(tree: Tree) -> None:
    (tree.top / "root.go").write_text("package other\n")
    code, text = publish(tree.top, "https://packages.example/go", "--version", "v1.0.0", "--dry-run")
    assert (code, "root.go is not as it was committed" in text) == (2, True)
    code, text = publish(tree.top, "https://packages.example/go", "--version", "v1.0.0", "--dry-run", "--uncommitted")
    assert code == 0


def test_two_names_that_differ_in_case_are_refused_here_already(tree: Tree) -> None:
    (tree.top / "ROOT.go").write_text("package other\n")
    tree.commit()
    code, text = publish(tree.top, "https://packages.example/go", "--version", "v1.0.0", "--dry-run")
    assert (code, "differ in case only" in text) == (2, True)
