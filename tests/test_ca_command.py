"""The CA as an administrator meets it: printed, trusted, too narrow for a new name, renewed, replaced by his own."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kit.servers import Mxart, mxart, wait_until
from mxart.cli import main
from mxart.commands.trust import CLIENTS, script
from mxart.commands.trust import Authority as Trusted
from mxart.config_file import decode

PLAIN = '[repository.mine]\nformat = "oci"\nkind = "local"\npath = "/"\n'
NAMED = PLAIN + 'hosts = ["images.corp.test"]\n'


def command(folder: Path, config: str, *arguments: str, tls: bool = True) -> list[str]:
    file = folder / "mxart.toml"
    file.write_text(config)
    found = ["--config", str(file), "--data", str(folder / "data")]
    return [*found, "--listen", "127.0.0.1:8443", *(["--tls"] if tls else []), *arguments]


def run(folder: Path, config: str, *arguments: str, tls: bool = True) -> Result:
    """A command, in this process: starting another takes ten times as long as all that it does."""
    return CliRunner().invoke(main, command(folder, config, *arguments, tls=tls), prog_name="mxart")


def start(folder: Path, config: str) -> subprocess.CompletedProcess[str]:
    """The program itself, where it is not to start."""
    started = [sys.executable, "-m", "mxart", *command(folder, config)]
    return subprocess.run(started, capture_output=True, text=True, timeout=30, check=False)


def _code(done: Result | subprocess.CompletedProcess[str]) -> int:
    return done.exit_code if isinstance(done, Result) else done.returncode


def shown(server: Mxart, ca: bytes, name: str = "localhost") -> bool:
    """Whether a client that trusts a CA, and nothing else, is answered by that name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        with urllib.request.urlopen(f"https://{name}:{server.port}/-/health", timeout=10, context=context) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return False
        raise


def test_a_name_that_the_ca_does_not_permit_is_refused_until_it_is_renewed(tmp_path: Path) -> None:
    before = run(tmp_path, PLAIN, "ca").stdout
    assert before == (tmp_path / "data" / "ca" / "ca.pem").read_text()
    assert run(tmp_path, PLAIN, "check").exit_code == 0
    for refused in (run(tmp_path, NAMED, "check"), start(tmp_path, NAMED)):
        assert _code(refused) == 2
        assert len(refused.stderr.splitlines()) == 1
        assert "not permitted to vouch for images.corp.test: `mxart ca renew`" in refused.stderr
        assert 'ca_domains = ["corp.test"]' in refused.stderr
    assert run(tmp_path, NAMED, "check", tls=False).exit_code == 0  # nothing is vouched for over plain HTTP
    renewed = run(tmp_path, NAMED, "ca", "renew")
    assert renewed.exit_code == 0, renewed.stderr
    assert "images.corp.test" in renewed.stdout
    assert "clients must trust it now" in renewed.stdout
    (kept,) = (tmp_path / "data" / "ca").glob("until-*")
    assert (kept / "ca.pem").read_text() == before
    assert run(tmp_path, NAMED, "check").exit_code == 0
    assert run(tmp_path, NAMED, "ca", "print").stdout != before
    # A domain once permitted holds for every name of it.
    wide = '[tls]\nca_domains = ["corp.test"]\n'
    assert run(tmp_path, wide + NAMED, "ca", "renew").exit_code == 0
    assert run(tmp_path, NAMED.replace("images", "more"), "check").exit_code == 0


def test_checking_makes_no_ca(tmp_path: Path) -> None:
    assert run(tmp_path, NAMED, "check").exit_code == 0
    assert not (tmp_path / "data").exists()


def test_a_server_that_runs_takes_a_renewed_ca_when_it_is_reloaded(tmp_path: Path) -> None:
    with mxart(tmp_path, PLAIN, tls=True) as server:
        old = server.ca.read_bytes()
        assert run(tmp_path, PLAIN, "ca", "renew").exit_code == 0
        new = server.ca.read_bytes()
        assert shown(server, old)
        os.kill(server.service.pid, signal.SIGHUP)
        wait_until(lambda: shown(server, new) or None, "the new CA")
        assert not shown(server, old)


def test_plain_http_goes_on_with_a_ca_that_is_too_narrow_and_the_log_says_so(tmp_path: Path) -> None:
    run(tmp_path, PLAIN, "ca")
    with mxart(tmp_path, NAMED) as server:
        assert "not permitted to vouch for images.corp.test" in server.log()


def own_ca(folder: Path, *, with_root: bool) -> tuple[str, bytes]:
    """An intermediate CA in files: what the configuration says of it, and its root."""
    root = trustme.CA()
    lower = root.create_child_ca()
    chain = [lower.cert_pem.bytes(), *([root.cert_pem.bytes()] if with_root else [])]
    (folder / "own.crt").write_bytes(b"".join(chain))
    (folder / "own.key").write_bytes(lower.private_key_pem.bytes())
    return f'[tls]\nca_cert = "{folder}/own.crt"\nca_key = "{folder}/own.key"\n', root.cert_pem.bytes()


def test_an_intermediate_ca_of_the_users_is_minted_with_and_its_root_is_what_to_trust(tmp_path: Path) -> None:
    tls, root = own_ca(tmp_path, with_root=False)
    with mxart(tmp_path, tls + NAMED, tls=True) as server:
        context = ssl.create_default_context(cadata=root.decode())
        with urllib.request.urlopen(f"{server.url}/-/ca.pem", timeout=10, context=context) as reply:
            served = reply.read()
        assert not (server.data / "ca").exists()
    printed = run(tmp_path, tls + NAMED, "ca", "print").stdout
    assert printed.encode() == served
    assert printed.startswith("This is an intermediate CA and nothing to trust by itself: trust its root, ")
    top = x509.load_pem_x509_certificate(served)
    assert top.public_bytes(serialization.Encoding.PEM) in (tmp_path / "own.crt").read_bytes()
    script = run(tmp_path, tls + NAMED, "ca", "trust", "debian").stdout
    assert "own.crt" not in script
    assert "CA:?" in script
    refused = run(tmp_path, tls + NAMED, "ca", "renew")
    assert refused.exit_code == 2
    assert "is renewed by whoever made it" in refused.stderr


def test_a_root_in_the_users_file_is_printed(tmp_path: Path) -> None:
    tls, root = own_ca(tmp_path, with_root=True)
    assert run(tmp_path, tls + NAMED, "ca").stdout.encode() == root


def test_files_that_are_no_ca_are_refused_in_one_line(tmp_path: Path) -> None:
    tls, _ = own_ca(tmp_path, with_root=False)
    leaf = trustme.CA().issue_cert("a.test")
    (tmp_path / "own.crt").write_bytes(leaf.cert_chain_pems[0].bytes())
    (tmp_path / "own.key").write_bytes(leaf.private_key_pem.bytes())
    commands = [run(tmp_path, tls + NAMED, *words) for words in (["check"], ["ca"], ["ca", "trust", "docker"])]
    for refused in (start(tmp_path, tls + NAMED), *commands):
        assert _code(refused) == 2
        assert "is not a CA's" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_what_is_printed_for_a_client_names_the_file_its_fingerprint_and_its_registries(tmp_path: Path) -> None:
    config = PLAIN + 'hosts = ["quay.io", "docker.io", "index.docker.io"]\n[token_server]\nhosts = ["auth.docker.io"]\n'
    script = run(tmp_path, config, "ca", "trust", "podman").stdout
    assert f"CA=${{CA:-{tmp_path}/data/ca/ca.pem}}" in script
    assert "for host in quay.io:8443; do" in script  # Docker Hub is nowhere but at 443
    assert "auth.docker.io" not in script.split("set -eu")[1]
    assert run(tmp_path, config, "ca", "trust", "netscape").exit_code == 2


@pytest.mark.parametrize("client", CLIENTS)
def test_every_script_is_one_that_sh_reads(client: str, tmp_path: Path) -> None:
    config = decode(NAMED, file="x", environment={}, listen=("[::1]:443", ":8443"), tls=True)
    ours, above = Trusted("CN=a\n'b' $c", f"{tmp_path}/it's here", "00:11", ("a.test",)), Trusted("CN=x", "", "", None)
    for authority in (ours, above):
        text = script(client, config, authority)
        checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, timeout=10, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
    head = script(client, config, ours).split("set -eu\n")[1].splitlines()[0]
    echoed = subprocess.run(["sh", "-c", f'{head}; echo "$CA"'], text=True, capture_output=True, timeout=10, check=True)
    assert echoed.stdout == f"{tmp_path}/it's here\n"
