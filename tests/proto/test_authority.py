"""The program's own CA, checked by OpenSSL's and by cryptography's verifier."""

from __future__ import annotations

import ipaddress
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store

from kit.tls import client_context, connected
from mxart.atomic import write_atomically
from mxart.claims import Scope
from mxart.config import CertificateFiles
from mxart.errors import ConfigError
from mxart.proto import authority as authority_module
from mxart.proto.authority import Authority, AuthorityExpired, key_pem
from mxart.proto.certificates import Contexts
from mxart.proto.tls import TlsServer


def test_a_directory_gets_its_ca_once_and_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "ca"
    made = Authority.open(directory)
    again = Authority.open(directory)
    assert again.certificate == made.certificate
    assert (directory / "ca.pem").read_bytes() == made.pem
    assert sorted(path.name for path in directory.iterdir()) == ["ca-key.pem", "ca.pem"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "ca-key.pem").stat().st_mode) == 0o600


_OPEN = """
import pathlib, sys
from mxart.proto.authority import Authority
sys.stdout.buffer.write(Authority.open(pathlib.Path(sys.argv[1])).pem)
"""


def test_processes_that_start_at_once_agree_on_one_ca(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPEN, str(tmp_path / "ca")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(6)]
    made = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0] * len(started)
    assert made == {(tmp_path / "ca" / "ca.pem").read_bytes()}


def test_what_the_ca_says_of_itself() -> None:
    ca = Authority.ephemeral().certificate
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert ca.not_valid_after_utc - ca.not_valid_before_utc == timedelta(days=3650)
    assert ca.not_valid_before_utc < datetime.now(UTC)
    assert Authority.ephemeral().certificate.subject != ca.subject


@pytest.mark.parametrize("name", ["a.test", "127.0.0.1", "::1", "x" * 63 + "." + "y" * 63 + ".test"])
def test_a_strict_verifier_accepts_what_it_issues(name: str) -> None:
    authority = Authority.ephemeral()
    issued = authority.issue((name,))
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    verifier = PolicyBuilder().store(Store([authority.certificate])).build_server_verifier(subject)
    assert verifier.verify(issued.chain[0], list(issued.chain[1:]))[-1] == authority.certificate


def test_a_leaf_is_short_lived_backdated_and_never_outlives_its_ca() -> None:
    authority = Authority.ephemeral()
    now = datetime.now(UTC).replace(microsecond=0)
    issued = authority.issue(("a.test", "*.b.test", "10.0.0.1"), now=now)
    leaf = issued.chain[0]
    assert leaf.not_valid_before_utc == now - timedelta(hours=1)
    assert leaf.not_valid_after_utc == issued.not_after == now + timedelta(days=7)
    assert leaf.public_key() == issued.key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert not names.critical
    assert names.value.get_values_for_type(x509.DNSName) == ["a.test", "*.b.test"]
    assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    assert leaf.serial_number != authority.issue(("a.test",)).chain[0].serial_number
    late = authority.certificate.not_valid_after_utc - timedelta(days=1)
    assert authority.issue(("a.test",), now=late).not_after == authority.certificate.not_valid_after_utc
    with pytest.raises(ValueError, match="needs a name"):
        authority.issue(())


def test_a_crash_between_key_and_certificate_is_made_good(tmp_path: Path) -> None:
    before = Authority.open(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert Authority.open(tmp_path).certificate.public_key() == before.certificate.public_key()


def test_a_ca_that_cannot_be_used_is_refused_with_a_remedy(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    key, certificate = (tmp_path / "ca-key.pem").read_bytes(), (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(ConfigError, match="is missing: restore it"):
        Authority.open(tmp_path)
    (tmp_path / "ca-key.pem").write_bytes(b"no key")
    with pytest.raises(ConfigError, match="not a private key"):
        Authority.open(tmp_path)
    (tmp_path / "ca-key.pem").write_bytes(key)
    (tmp_path / "ca.pem").write_bytes(b"no certificate")
    with pytest.raises(ConfigError, match="not a certificate"):
        Authority.open(tmp_path)
    (tmp_path / "ca.pem").write_bytes(Authority.ephemeral().pem)
    with pytest.raises(ConfigError, match="do not belong together"):
        Authority.open(tmp_path)
    (tmp_path / "ca.pem").write_bytes(certificate)
    Authority.open(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Authority.open(tmp_path / "file")


def test_a_renewal_makes_another_ca_and_keeps_the_old_files_aside(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    assert Authority.find(directory) is None
    first, nothing = Authority.renew(directory)
    assert nothing is None
    second, kept = Authority.renew(directory, Scope(("a.test",), ()))
    assert kept is not None
    assert second.certificate.public_key() != first.certificate.public_key()
    assert second.certificate.subject != first.certificate.subject
    assert (kept / "ca.pem").read_bytes() == first.pem
    assert (kept / "ca-key.pem").read_bytes() != (directory / "ca-key.pem").read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE((kept / "ca-key.pem").stat().st_mode) == 0o600
    found = Authority.find(directory)
    assert found is not None
    assert found.certificate == second.certificate
    assert (found.permits("x.a.test"), found.permits("b.test")) == (True, False)


@pytest.mark.parametrize("writes", [0, 1])
def test_a_renewal_that_is_cut_short_leaves_a_ca_that_opens(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Authority.open(tmp_path)
    done: list[Path] = []

    def fail(path: Path, data: bytes, mode: int) -> None:
        if len(done) == writes:
            raise OSError(28, "No space left on device")
        done.append(path)
        write_atomically(path, data, mode)

    with monkeypatch.context() as patched:
        patched.setattr(authority_module, "write_atomically", fail)
        with pytest.raises(ConfigError, match="No space left"):
            Authority.renew(tmp_path)
    (kept,) = tmp_path.glob("until-*")
    assert (kept / "ca.pem").read_bytes() == first.pem
    assert Authority.open(tmp_path).issue(("a.test",)).chain


def test_an_expired_ca_names_the_remedy(tmp_path: Path) -> None:
    _, now = Authority.open(tmp_path), datetime.now(UTC)
    key = serialization.load_pem_private_key((tmp_path / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    old = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(2), now - timedelta(1))
    (tmp_path / "ca.pem").write_bytes(old.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ConfigError, match="has expired: `mxart ca renew` makes another"):
        Authority.open(tmp_path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "there", b"x", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def own(folder: Path, authority: Authority, *names: str) -> CertificateFiles:
    """A certificate of the user's, in files."""
    issued = authority.issue(names)
    stem = folder / names[0].replace("*", "any")
    stem.with_suffix(".crt").write_bytes(issued.chain[0].public_bytes(serialization.Encoding.PEM))
    stem.with_suffix(".key").write_bytes(key_pem(issued.key))
    return CertificateFiles(cert=str(stem.with_suffix(".crt")), key=str(stem.with_suffix(".key")))


def test_contexts_are_kept_per_name_renewed_in_time_and_bounded() -> None:
    clock = Clock()
    contexts = Contexts(Authority.ephemeral(), lambda name: True, max_contexts=2, clock=clock)
    first = contexts.find("a.test", "127.0.0.1")
    assert contexts.find("a.test", "127.0.0.1") is first
    clock.now += timedelta(days=4, hours=23)
    assert contexts.find("a.test", "127.0.0.1") is first
    clock.now += timedelta(hours=2)
    renewed = contexts.find("a.test", "127.0.0.1")
    assert renewed is not first
    contexts.find("b.test", "127.0.0.1")
    assert contexts.find("a.test", "127.0.0.1") is renewed
    contexts.find("c.test", "127.0.0.1")  # b.test was used longest ago
    assert contexts.find("a.test", "127.0.0.1") is renewed


def test_what_was_minted_by_a_clock_that_was_ahead_is_minted_again_when_it_is_set_right() -> None:
    clock = Clock()
    contexts = Contexts(Authority.ephemeral(), lambda name: True, clock=clock)
    clock.now += timedelta(days=1)
    ahead = contexts.find("a.test", "127.0.0.1")
    clock.now -= timedelta(minutes=20)  # less than clients are allowed to be behind
    assert contexts.find("a.test", "127.0.0.1") is ahead
    clock.now -= timedelta(hours=23)
    assert contexts.find("a.test", "127.0.0.1") is not ahead


def test_a_clock_from_before_the_ca_is_told_of_and_no_crash() -> None:
    """A machine without a battery starts in its past until it has asked for the time."""
    clock = Clock()
    contexts = Contexts(Authority.ephemeral(), lambda name: True, clock=clock)
    clock.now -= timedelta(days=400)
    with pytest.raises(AuthorityExpired, match="before the CA was made"):
        contexts.find("a.test", "127.0.0.1")
    clock.now += timedelta(days=400)
    assert contexts.find("a.test", "127.0.0.1") is not None


async def test_an_open_connection_goes_on_while_new_ones_get_a_renewed_certificate() -> None:
    clock, authority = Clock(), Authority.ephemeral()
    clock.now -= timedelta(days=6)
    server = TlsServer(authority, lambda name: True, clock=clock)
    async with connected(server, client_context(authority)) as (ours, first):
        await ours.send_all(b"before ")
        clock.now += timedelta(days=6)
        async with connected(server, client_context(authority)) as (_, second):
            seen = [stream.getpeercert(binary_form=True) for stream in (first, second)]
            assert seen[0] != seen[1]
        await ours.send_all(b"and after")
        received = b""
        while len(received) < 16:
            received += await first.receive_some()
        assert received == b"before and after"


def test_what_the_ca_is_not_permitted_is_left_out_where_no_name_is_asked_for() -> None:
    authority = Authority.ephemeral(Scope(("localhost", "a.test"), (ipaddress.ip_network("10.0.0.0/8"),)))
    contexts = Contexts(authority, lambda name: False, names=("10.9.9.9", "192.0.2.1", "a.test"))

    def shown(address: str) -> tuple[str, ...]:
        return contexts._without_name(address)

    assert shown("10.0.0.1") == ("10.0.0.1", "localhost", "10.9.9.9")
    assert shown("192.0.2.1") == ("localhost", "10.9.9.9")
    strict = Authority.ephemeral(Scope(("a.test",), (ipaddress.ip_network("10.0.0.0/8"),)))
    assert Contexts(strict, lambda name: False)._without_name("192.0.2.1") == ("localhost",)  # for who does not verify


def test_names_that_need_more_than_the_ca_may_are_told_but_for_those_with_a_certificate(tmp_path: Path) -> None:
    authority = Authority.ephemeral(Scope(("a.test",), ()))
    files = [own(tmp_path, Authority.ephemeral(), "*.corp.test")]
    contexts = Contexts(authority, lambda name: False, certificates=files)
    assert contexts.needs(["x.a.test", "b.test", "x.corp.test", "corp.test"]) == ("b.test", "corp.test")


def test_only_what_is_served_or_listed_is_vouched_for_and_it_is_asked_every_time() -> None:
    names = {"a.test"}
    contexts = Contexts(Authority.ephemeral(), names.__contains__, names=("Listed.Test", "192.0.2.1"))
    assert contexts.find("a.test", "127.0.0.1") is not None
    assert contexts.find("listed.test", "127.0.0.1") is not None
    assert contexts.find("other.test", "127.0.0.1") is None
    names.clear()
    assert contexts.find("a.test", "127.0.0.1") is None


def test_a_client_without_a_name_gets_one_context_an_address() -> None:
    contexts = Contexts(Authority.ephemeral(), lambda name: False)
    loopback = contexts.find(None, "127.0.0.1")
    assert loopback is contexts.find(None, "::ffff:127.0.0.1")
    assert loopback is not contexts.find(None, "fe80::1%eth0")
    assert contexts.find(None, "") is not None  # a Unix socket, or an address already gone


def test_the_users_own_certificate_wins_exact_before_wildcard(tmp_path: Path) -> None:
    theirs = Authority.ephemeral()
    files = [own(tmp_path, theirs, "*.corp.test", "192.0.2.7"), own(tmp_path, theirs, "art.corp.test")]
    contexts = Contexts(Authority.ephemeral(), lambda name: name == "x.y.corp.test", certificates=files)
    exact, wild = contexts.find("art.corp.test", ""), contexts.find("b.corp.test", "")
    assert exact is not None
    assert wild is not None
    assert exact is not wild
    assert contexts.find(None, "192.0.2.7") is wild
    assert contexts.find("corp.test", "") is None
    minted = contexts.find("x.y.corp.test", "")  # a wildcard stands for one label
    assert minted is not None
    assert minted is not wild


def test_a_certificate_that_cannot_be_used_is_refused_with_its_file(tmp_path: Path) -> None:
    theirs = Authority.ephemeral()
    good, other = own(tmp_path, theirs, "a.test"), own(tmp_path, theirs, "b.test")
    nothing, locked = tmp_path / "nothing", tmp_path / "locked.key"
    nothing.write_bytes(b"")
    locked.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    def refuse(cert: str, key: str, why: str) -> None:
        with pytest.raises(ConfigError, match=why):
            Contexts(theirs, lambda name: True, certificates=[CertificateFiles(cert=cert, key=key)])

    refuse(str(tmp_path / "absent"), good.key, "absent cannot be read")
    refuse(str(nothing), good.key, "holds no certificates")
    refuse(good.cert, str(nothing), "not a private key")
    refuse(good.cert, str(locked), "without a password")
    refuse(good.cert, other.key, "the key another's")
    (tmp_path / "ca.crt").write_bytes(theirs.pem)
    refuse(str(tmp_path / "ca.crt"), good.key, "names no host")
