"""What a CA of ours is permitted: written so that verifiers honour it, and read as they read it."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.servers import program
from mxart.claims import Scope
from mxart.proto.authority import Authority, Issued, key_pem
from mxart.proto.constraints import permits, permitted

SCOPE = Scope(
    ("docker.io", "own.test", "localhost"), (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fc00::/7"))
)
AUTHORITY = Authority.ephemeral(SCOPE)

Verify = Callable[[Issued, str, Path], bool]


def pem(issued: Issued) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in issued.chain)


def by_openssl(issued: Issued, name: str, folder: Path) -> bool:
    ca, leaf = folder / "ca.pem", folder / "leaf.pem"
    ca.write_bytes(AUTHORITY.pem)
    leaf.write_bytes(pem(issued))
    command = [program("openssl"), "verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore"]
    asked = ["-verify_ip" if name[0].isdigit() or ":" in name else "-verify_hostname", name]
    done = subprocess.run([*command, *asked, "-CAfile", ca, leaf], capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def by_python(issued: Issued, name: str, folder: Path) -> bool:
    """A whole handshake in memory, as strictly as Python 3.13 does by default."""
    leaf = folder / "leaf.pem"
    leaf.write_bytes(pem(issued) + key_pem(issued.key))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(leaf)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.load_verify_locations(cadata=AUTHORITY.pem.decode())
    asking.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return True


def by_cryptography(issued: Issued, name: str, folder: Path) -> bool:
    try:
        subject: x509.IPAddress | x509.DNSName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = PolicyBuilder().store(Store([AUTHORITY.certificate])).build_server_verifier(subject)
    with contextlib.suppress(VerificationError):
        verifier.verify(issued.chain[0], list(issued.chain[1:]))
        return True
    return False


@pytest.mark.parametrize("verify", [by_openssl, by_python, by_cryptography])
@pytest.mark.parametrize(
    ("names", "good"),
    [
        (("registry-1.docker.io",), True),
        (("docker.io",), True),
        (("*.own.test",), True),
        (("localhost", "127.0.0.1", "fd00::1"), True),
        (("127.0.0.1",), True),  # no DNS name beside it: nothing else may pass for one
        (("evil.test",), False),
        (("notdocker.io",), False),
        (("192.0.2.1",), False),
        (("own.test", "evil.test"), False),
        (("127.0.0.1", "192.0.2.1"), False),
    ],
)
def test_verifiers_accept_what_is_permitted_and_refuse_what_a_stolen_key_would_mint(
    verify: Verify, names: tuple[str, ...], good: bool, tmp_path: Path
) -> None:
    issued = AUTHORITY.issue(names)
    asked = "any.own.test" if names[0].startswith("*") else names[0]
    assert verify(issued, asked, tmp_path) is good
    assert all(AUTHORITY.permits(name) for name in names) is good


def test_the_ca_says_that_it_is_for_tls_servers_and_for_what() -> None:
    extensions = AUTHORITY.certificate.extensions
    assert extensions.get_extension_for_class(x509.NameConstraints).critical
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]
    assert permitted(AUTHORITY.certificate) == ("docker.io", "own.test", "localhost", "127.0.0.0/8", "fc00::/7")
    assert permitted(Authority.ephemeral().certificate) is None


def constrained(permitted_names: list[str] | None, excluded: list[str] | None) -> x509.Certificate:
    """A CA as others make them."""

    def subtree(text: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_network(text))
        except ValueError:
            return x509.DNSName(text)

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "theirs")])
    now = AUTHORITY.certificate.not_valid_before_utc
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(AUTHORITY.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.NameConstraints(
                [subtree(text) for text in permitted_names] if permitted_names else None,
                [subtree(text) for text in excluded] if excluded else None,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("allowed", "denied", "name", "expected"),
    [
        (["corp.test"], None, "a.corp.test", True),
        (["Corp.Test"], None, "A.CORP.test", True),
        ([".corp.test"], None, "corp.test", False),  # not in the RFC for DNS; OpenSSL and Go read it so
        ([".corp.test"], None, "a.corp.test", True),
        (["corp.test"], None, "10.0.0.1", True),  # another kind: not constrained
        (["10.0.0.0/8"], None, "anything.test", True),
        (["10.0.0.0/8"], None, "10.1.2.3", True),
        (["10.0.0.0/8"], None, "11.1.2.3", False),
        (["10.0.0.0/8"], None, "::1", False),
        (None, ["secret.corp.test"], "a.corp.test", True),
        (None, ["secret.corp.test"], "x.secret.corp.test", False),
        (["corp.test"], ["secret.corp.test"], "secret.corp.test", False),
        (None, ["secret.corp.test"], "*.corp.test", False),
        (None, ["a.secret.corp.test"], "*.other.test", True),
        (None, ["0.0.0.0/0", "::/0"], "127.0.0.1", False),
        (None, [""], "any.test", False),
    ],
)
def test_the_constraints_of_others_cas_are_read(
    allowed: list[str] | None, denied: list[str] | None, name: str, expected: bool
) -> None:
    assert permits([constrained(allowed, denied)], name) is expected


def test_every_ca_of_a_chain_must_permit() -> None:
    wide, narrow = constrained(["corp.test"], None), constrained(["a.corp.test"], None)
    assert permits([narrow, wide], "x.a.corp.test")
    assert not permits([narrow, wide], "x.b.corp.test")
    assert permits([], "whatever.test")


label = st.sampled_from(["a", "b", "docker", "io"])
domain = st.lists(label, min_size=1, max_size=4).map(".".join)


@settings(max_examples=60, deadline=None)
@given(allowed=st.lists(domain, min_size=1, max_size=3), name=domain)
def test_we_and_a_verifier_agree_on_any_name(allowed: list[str], name: str) -> None:
    authority = Authority.ephemeral(Scope(tuple(dict.fromkeys(allowed)), ()))
    verifier = PolicyBuilder().store(Store([authority.certificate])).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(authority.issue((name,)).chain[0], [])
        accepted = True
    except VerificationError:
        accepted = False
    assert authority.permits(name) is accepted
