"""An intermediate CA of the user's: judged before it is used, and never shown as something to trust."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.verification import PolicyBuilder, Store

from mxart.errors import ConfigError
from mxart.proto.authority import AuthorityExpired, IssuerKey
from mxart.proto.certificates import Contexts
from mxart.proto.intermediate import open_intermediate

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Ca:
    """A CA of the tests' own."""

    certificate: x509.Certificate
    key: IssuerKey


def make(
    name: str,
    above: Ca | None = None,
    *,
    key: IssuerKey | None = None,
    ca: bool | None = True,
    path_length: int | None = None,
    signs: bool = True,
    purposes: tuple[x509.ObjectIdentifier, ...] = (),
    permitted: tuple[str, ...] = (),
    start: datetime = NOW - DAY,
    end: datetime = NOW + 365 * DAY,
) -> Ca:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer = above.key if above else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=signs,
                crl_sign=signs,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier(name.encode()), critical=False)  # of the CA's own making
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if permitted:
        names = x509.NameConstraints([x509.DNSName(name) for name in permitted], None)
        builder = builder.add_extension(names, critical=True)
    return Ca(builder.sign(signer, hashes.SHA256()), key)


def files(folder: Path, *chain: Ca, key: object = None) -> tuple[str, str]:
    """The two files of `[tls] ca_cert, ca_key`."""
    cert, private = folder / "ca.crt", folder / "ca.key"
    cert.write_bytes(b"".join(one.certificate.public_bytes(serialization.Encoding.PEM) for one in chain))
    made = chain[0].key if key is None else key
    assert isinstance(made, IssuerKey | ed25519.Ed25519PrivateKey)
    private.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(cert), str(private)


@pytest.mark.parametrize("kind", ["elliptic curve", "rsa"])
def test_leaves_carry_the_chain_without_its_root_and_verify_against_that_root(kind: str, tmp_path: Path) -> None:
    root = make("root")
    middle = make("middle", root, path_length=1)
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    lowest = make("lowest", middle, key=key, path_length=0, purposes=(x509.ExtendedKeyUsageOID.SERVER_AUTH,))
    for chain in ((lowest, middle), (lowest, middle, root)):
        authority = open_intermediate(*files(tmp_path, *chain))
        issued = authority.issue(("a.test",))
        assert issued.chain[1:] == (lowest.certificate, middle.certificate)
        verifier = PolicyBuilder().store(Store([root.certificate])).build_server_verifier(x509.DNSName("a.test"))
        assert verifier.verify(issued.chain[0], list(issued.chain[1:]))[-1] == root.certificate
        named = issued.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert named.key_identifier == b"lowest"


def test_what_is_to_be_trusted_is_the_root_or_is_said_to_be_above(tmp_path: Path) -> None:
    root = make("the root")
    lowest = make("lowest", root)
    known = open_intermediate(*files(tmp_path, lowest, root))
    assert known.root == root.certificate
    assert known.pem == root.certificate.public_bytes(serialization.Encoding.PEM)
    unknown = open_intermediate(*files(tmp_path, lowest))
    assert unknown.root is None
    assert unknown.pem.startswith(b"This is an intermediate CA and nothing to trust by itself: trust its root, CN=the ")
    assert x509.load_pem_x509_certificate(unknown.pem) == lowest.certificate


def test_a_root_of_the_users_own_is_taken_as_well(tmp_path: Path) -> None:
    root = make("root")
    authority = open_intermediate(*files(tmp_path, root))
    assert authority.root == root.certificate
    assert len(authority.issue(("a.test",)).chain) == 1


@pytest.mark.parametrize(
    ("below", "why"),
    [
        ({"ca": False}, "CN=lowest is not a CA's: bring the one that issues"),
        ({"ca": None}, "has no basicConstraints"),
        ({"signs": False}, "may not sign certificates"),
        ({"purposes": (x509.ExtendedKeyUsageOID.CLIENT_AUTH,)}, "is not for TLS servers"),
        ({"end": NOW - timedelta(hours=1)}, "has expired on 20"),
        ({"start": NOW + DAY}, "is not valid before 20"),
    ],
)
def test_a_ca_that_clients_would_refuse_is_refused_with_the_reason(
    below: dict[str, object], why: str, tmp_path: Path
) -> None:
    root = make("root")
    with pytest.raises(ConfigError, match=why):
        open_intermediate(*files(tmp_path, make("lowest", root, **below)))  # type: ignore[arg-type]


def test_a_chain_that_does_not_hold_together_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = make("root")
    middle = make("middle", root, path_length=0)
    lowest, other = make("lowest", middle), make("other", root)
    with pytest.raises(ConfigError, match="CN=middle allows 0 CAs below it, and there are 1"):
        open_intermediate(*files(tmp_path, lowest, middle))
    with pytest.raises(ConfigError, match="CN=lowest was not issued by CN=other, which follows it"):
        open_intermediate(*files(tmp_path, lowest, other))
    with pytest.raises(ConfigError, match="is the key another's"):
        open_intermediate(*files(tmp_path, other, key=lowest.key))
    with pytest.raises(ConfigError, match="an RSA or an elliptic curve key"):
        open_intermediate(*files(tmp_path, other, key=ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(ConfigError, match="cannot be read"):
        open_intermediate(str(tmp_path / "absent"), str(tmp_path / "absent"))


def test_constraints_anywhere_in_its_chain_count(tmp_path: Path) -> None:
    middle = make("middle", make("root"), permitted=("corp.test",))
    authority = open_intermediate(*files(tmp_path, make("lowest", middle, permitted=("a.corp.test", "b.test")), middle))
    assert authority.permits("x.a.corp.test")
    assert not authority.permits("b.test")
    assert not authority.permits("localhost")
    assert authority.permits("10.0.0.1")  # constrained for names only


def test_nothing_outlives_the_shortest_lived_of_its_chain_and_renewal_does_not_run_hot(tmp_path: Path) -> None:
    middle = make("middle", make("root"), end=NOW + DAY)
    authority = open_intermediate(*files(tmp_path, make("lowest", middle, start=NOW - timedelta(minutes=5)), middle))
    issued = authority.issue(("a.test",), now=NOW)
    assert issued.not_after == NOW + DAY
    assert issued.chain[0].not_valid_before_utc == NOW - timedelta(minutes=5)  # not before its issuer
    clock = [NOW]
    contexts = Contexts(authority, lambda name: True, clock=lambda: clock[0])
    first = contexts.find("a.test", "")
    clock[0] += timedelta(hours=15)
    assert contexts.find("a.test", "") is first
    clock[0] += timedelta(hours=2)
    assert contexts.find("a.test", "") is not first
    clock[0] = NOW + DAY
    with pytest.raises(AuthorityExpired, match="CN=lowest has expired"):
        contexts.find("b.test", "")
