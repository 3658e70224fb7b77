"""`mxart setup CLIENT` as its user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from mxart.cli import main
from mxart.setup.clients import CLIENTS

_URL = "http://images.test:8080"


class Machine:
    """A folder that stands for a machine, and the command run for it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.data = folder / "data"

    def run(self, *arguments: str, before: tuple[str, ...] = (), answer: str | None = None) -> Result:
        command = ["--data", str(self.data), *before, "setup", *arguments]
        return CliRunner().invoke(main, command, input=answer)

    def client(self, *arguments: str, url: str = _URL) -> Result:
        return self.run(arguments[0], "--url", url, "--root", str(self.root), *arguments[1:])

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, text: str) -> None:
        self.file(path).parent.mkdir(parents=True)
        self.file(path).write_text(text)

    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.root)) for file in self.root.rglob("*") if file.is_file())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_client_it_lists_them(machine: Machine) -> None:
    done = machine.run()
    assert done.exit_code == 0
    assert all(f"\n  {name}" in done.stdout for name in (*CLIENTS, "firewall"))


def test_an_unknown_client_is_the_users_mistake(machine: Machine) -> None:
    done = machine.run("dokcer")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: there is no client 'dokcer' to set up; there are: ")
    assert "docker" in done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_without_write_it_shows_the_files_and_writes_none(machine: Machine, client: str) -> None:
    done = machine.client(client)
    assert done.exit_code == 0
    assert "# /etc/" in done.stdout
    assert "note: clients reach this server at http://images.test:8080" in done.stderr
    assert machine.files() == []
    assert not machine.data.exists()  # no CA is made for what is not TLS


@pytest.mark.parametrize("client", CLIENTS)
def test_with_write_it_shows_the_change_and_writes_once(machine: Machine, client: str) -> None:
    done = machine.client(client, "--write")
    assert done.exit_code == 0
    assert "--- /dev/null\n+++ /etc/" in done.stdout
    written = machine.files()
    assert all(f"wrote /{name}\n" in done.stdout for name in written)
    again = machine.client(client, "--write")
    assert again.stdout == "nothing to do: everything is set already\n"
    assert machine.files() == written


def test_the_servers_own_ca_is_what_clients_trust(machine: Machine) -> None:
    done = machine.client("podman", "--write", url="https://localhost:8443")
    assert done.exit_code == 0
    certificate = machine.file("/etc/containers/certs.d/localhost:8443/mxart.crt").read_bytes()
    assert certificate == (machine.data / "ca/ca.pem").read_bytes()


def test_another_ca_can_be_given_and_a_missing_one_is_told(machine: Machine, tmp_path: Path) -> None:
    given = tmp_path / "given.pem"
    given.write_text("-----BEGIN CERTIFICATE-----\n")
    assert machine.client("podman", "--write", "--ca", str(given), url="https://images.test").exit_code == 0
    assert machine.file("/etc/containers/certs.d/images.test/mxart.crt").read_text() == given.read_text()
    assert not machine.data.exists()
    done = machine.client("podman", "--ca", str(tmp_path / "none"), url="https://images.test")
    assert (done.exit_code, "cannot be read" in done.stderr) == (2, True)


def test_of_a_ca_of_the_users_own_clients_are_told_only_when_it_is_given(machine: Machine, tmp_path: Path) -> None:
    trustme.CA().issue_cert("*.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    given = tmp_path / "root.pem"
    given.write_text("-----BEGIN CERTIFICATE-----\n")
    for table in (
        'ca_cert = "c.pem"\nca_key = "k.pem"',
        f'certificates = [{{cert = "{tmp_path}/own.pem", key = "k.pem"}}]',
    ):
        config = tmp_path / "mxart.toml"
        config.write_text(f"[tls]\n{table}\n")
        before = ("--config", str(config))
        done = machine.run("skopeo", "--url", "https://images.test", before=before)
        assert done.exit_code == 0
        assert "certs.d" not in done.stdout
        assert "come from a CA of your own" in done.stderr
        done = machine.run("skopeo", "--url", "https://images.test", "--ca", str(given), before=before)
        assert "certs.d/images.test/mxart.crt" in done.stdout
        assert "CA of your own" not in done.stderr
    assert not machine.data.exists()


def test_a_name_that_our_certificate_would_not_have_is_told(machine: Machine) -> None:
    assert 'add [tls] names = ["images.test"]' in machine.client("podman", url="https://images.test").stderr
    assert "add [tls]" not in machine.client("podman", url="https://10.0.0.5").stderr


def test_without_a_listener_for_others_the_url_is_asked_for(machine: Machine) -> None:
    done = machine.run("docker")
    assert done.exit_code == 2
    assert "--url http://127.0.0.1:8080" in done.stderr
    assert machine.run("docker", before=("--listen", ":8080")).exit_code == 0


def test_a_conflict_is_shown_and_refused_and_forced(machine: Machine) -> None:
    path = "/etc/docker/daemon.json"
    theirs = '{\n  "insecure-registries": "all",\n  "debug": true\n}\n'
    machine.put(path, theirs)
    shown = machine.client("docker")
    assert shown.exit_code == 0
    assert 'conflict: /etc/docker/daemon.json: insecure-registries is "all"; ours would be ["images' in shown.stderr
    refused = machine.client("docker", "--write")
    assert refused.exit_code == 2
    assert "nothing was written; --force" in refused.stderr
    assert machine.files() == [path[1:]]
    assert machine.file(path).read_text() == theirs
    assert machine.client("docker", "--write", "--force").exit_code == 0
    assert '"debug": true' in machine.file(path).read_text()
    assert machine.file(f"{path}.before-mxart").read_text() == theirs


def test_a_file_that_cannot_be_merged_is_the_users_mistake_and_left_alone(machine: Machine) -> None:
    machine.put("/etc/docker/daemon.json", "{ nonsense")
    done = machine.client("docker", "--write")
    assert done.exit_code == 2
    assert "/etc/docker/daemon.json is not JSON, nothing was changed" in done.stderr
    assert machine.files() == ["etc/docker/daemon.json"]


@pytest.mark.parametrize(
    ("arguments", "answer", "written"), [((), "n\n", False), ((), "y\n", True), (("--yes",), "", True)]
)
def test_on_a_terminal_it_asks_unless_told_not_to(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], answer: str, written: bool
) -> None:
    monkeypatch.setattr("mxart.commands.setup._is_terminal", lambda: True)
    command = ("skopeo", "--url", _URL, "--root", str(machine.root), "--write", *arguments)
    done = machine.run(*command, answer=answer)
    assert done.exit_code == (0 if written else 1)
    assert ("Write this?" in done.stdout) == (not arguments)
    assert bool(machine.files()) == written
