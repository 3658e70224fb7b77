"""The development CA: what it makes is believed by a client that trusts it, and no key lies in the project."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "certs", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_certificate_is_believed_for_its_names_and_the_ca_is_used_again(tmp_path: Path) -> None:
    first = make(str(tmp_path), "one.test", "127.0.0.1")
    assert first.returncode == 0, first.stderr
    ca = (tmp_path / "ca.pem").read_text()
    assert make(str(tmp_path), "two.test").returncode == 0
    assert (tmp_path / "ca.pem").read_text() == ca
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(one, two, server_hostname="two.test"), server.wrap_bio(two, one, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (ours, theirs):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue


def test_a_mistake_is_told_in_one_line() -> None:
    for arguments in ((), ("--help",), (str(ROOT / "certs"), "x.test")):
        made = make(*arguments)
        assert made.returncode == 2
        assert made.stderr.count("\n") == 1


def test_no_private_key_is_in_the_project() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    marker = b"-----BEGIN " + b"PRIVATE KEY-----"
    assert listed
    for name in filter(None, listed):
        file = ROOT / name.decode()
        assert not file.is_file() or marker not in file.read_bytes(), name
