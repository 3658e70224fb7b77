"""The certificate authority that our certificates come from.

It is the program's own, made at the first start, kept in the data directory, trusted by hand; or an intermediate one
of the user's (module intermediate).

    <directory>/          0700
      ca.pem              the certificate that clients are told to trust
      ca-key.pem   0600   its key; never leaves this directory
      until-<time>/       what was there before a renewal at that time (UTC)

Several processes may start at once on one directory: a lock on the directory itself lets one of them create,
and the others read.  Each file is written aside and renamed, the key first, so that a crash leaves either
nothing, or a key that the next start makes the certificate for, or both.  A renewal takes the certificate away before
it writes, and so keeps that.

What our own may vouch for is in its certificate (module constraints), and it is for TLS servers only: whoever steals
the key is no bank and signs no code.  Leaves have no common name: a verifier that takes it for a host's
(OpenSSL, GnuTLS, where no DNS name is beside it) would hold it against the constraints.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from mxart.atomic import locked_directory, sync_directory, write_atomically
from mxart.claims import Scope
from mxart.errors import ConfigError, MxartError
from mxart.proto import constraints

__all__ = ["CA_FILE", "KEY_FILE", "Authority", "AuthorityExpired", "Issued", "IssuerKey", "key_pem"]

CA_FILE = "ca.pem"
KEY_FILE = "ca-key.pem"

_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=7)
_SKEW = timedelta(hours=1)  # clients' clocks may be behind ours

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""The kinds of key that a CA here may have."""


class AuthorityExpired(MxartError):
    """The CA's time is over, or by our clock has not come yet: nothing can be issued."""


class Issued(Struct, frozen=True):
    """A server's certificate and key. `chain` begins with the leaf, and leaves out the root: clients have it."""

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey
    not_after: datetime


class Authority:
    """A CA that can issue. Immutable; `issue` takes well below a millisecond and does no I/O."""

    __slots__ = ("_issuers", "_key", "_top", "certificate", "not_after")

    def __init__(self, certificate: x509.Certificate, key: IssuerKey, above: tuple[x509.Certificate, ...] = ()) -> None:
        """`above` are the CAs above this one, each the issuer of the one before; with or without the root."""
        self.certificate = certificate
        self.not_after = min(one.not_valid_after_utc for one in (certificate, *above))
        self._key = key
        self._top = (certificate, *above)[-1]
        self._issuers = (certificate, *above)

    @classmethod
    def open(cls, directory: Path, scope: Scope | None = None) -> Authority:
        """The CA of a directory, made now if there is none. Blocks on the disk, and on another process that makes it.

        A new one may vouch for `scope` only, or for anything without one; one that is there stays what it is. Raises
        ConfigError if what is there cannot be used, or nothing can be written.
        """
        with _directory(directory):
            key = _load_or_make_key(directory)
            certificate = _load_or_make_certificate(directory, key, scope)
        if certificate.public_key() != key.public_key():
            raise ConfigError(f"{directory / CA_FILE} and {directory / KEY_FILE} do not belong together")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise ConfigError(f"{directory / CA_FILE} has expired: `mxart ca renew` makes another")
        return cls(certificate, key)

    @classmethod
    def find(cls, directory: Path) -> Authority | None:
        """The CA of a directory; None if none was made yet. Raises ConfigError."""
        return cls.open(directory) if (directory / CA_FILE).exists() else None

    @classmethod
    def renew(cls, directory: Path, scope: Scope | None = None) -> tuple[Authority, Path | None]:
        """A new CA with a new key, and the folder below `directory` where the old files are now, if there were any.

        Raises ConfigError; then, or after a crash, the next `open` finds the old CA, or makes one.
        """
        with _directory(directory):
            kept = _set_aside(directory)
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomically(directory / KEY_FILE, key_pem(key), 0o600)
            return cls(_load_or_make_certificate(directory, key, scope), key), kept

    @classmethod
    def ephemeral(cls, scope: Scope | None = None) -> Authority:
        """A CA that lives in memory only."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_make_ca(key, scope), key)

    @property
    def root(self) -> x509.Certificate | None:
        """What clients are to trust; None if that is a root above an intermediate CA, which we were not given."""
        return self._top if self._top.issuer == self._top.subject else None

    @property
    def pem(self) -> bytes:
        """The root as PEM, or the uppermost CA that is known, with a word about it (RFC 7468 section 5.2)."""
        pem = self._top.public_bytes(serialization.Encoding.PEM)
        if self.root is not None:
            return pem
        above = self._top.issuer.rfc4514_string()
        return f"This is an intermediate CA and nothing to trust by itself: trust its root, {above}\n".encode() + pem

    def permits(self, name: str) -> bool:
        """Whether it may vouch for a DNS name, a wildcard, or an IP address (RFC 5280 section 4.2.1.10)."""
        return constraints.permits(self._issuers, name)

    def issue(self, names: tuple[str, ...], *, now: datetime | None = None) -> Issued:
        """A certificate of seven days for DNS names (wildcards too) and IP addresses, with a fresh key.

        `now` is aware of its time zone; the present by default. Raises ValueError without a name, or for one that
        no certificate can hold, AuthorityExpired. Whether the CA is permitted to is not asked here.
        """
        if not names:
            raise ValueError("a certificate needs a name")
        start = datetime.now(UTC) if now is None else now
        not_after = min(start + _LEAF_LIFE, self.not_after)
        if not_after <= start:
            raise AuthorityExpired(f"the CA {self.certificate.subject.rfc4514_string()} has expired")
        if not_after <= self.certificate.not_valid_before_utc:
            raise AuthorityExpired(f"by this machine's clock it is {start:%Y-%m-%d}, long before the CA was made")
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "MxArtifact")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(start - _SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        sent = tuple(one for one in self._issuers if one.issuer != one.subject)
        return Issued((leaf, *sent), key, not_after)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """An unencrypted PKCS #8 key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@contextmanager
def _directory(directory: Path) -> Iterator[None]:
    """Made if need be, and locked. Whatever the system refuses meanwhile becomes ConfigError."""
    try:
        with locked_directory(directory):
            yield
    except OSError as error:
        raise ConfigError(f"the CA in {directory} cannot be opened: {error.strerror}") from error


def _set_aside(directory: Path) -> Path | None:
    there = [directory / name for name in (CA_FILE, KEY_FILE) if (directory / name).exists()]
    if not there:
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
    kept = directory / f"until-{now}"
    kept.mkdir(mode=0o700)
    for path in there:
        os.link(path, kept / path.name)
    sync_directory(kept)
    sync_directory(directory)
    (directory / CA_FILE).unlink(missing_ok=True)
    return kept


def _load_or_make_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    path = directory / KEY_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if (directory / CA_FILE).exists():
            # Clients may trust this certificate: replacing it behind their backs would be worse than stopping.
            raise ConfigError(f"{path} is missing: restore it, or let `mxart ca renew` make a new CA") from None
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomically(path, key_pem(key), 0o600)
        return key
    try:
        loaded = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigError(f"{path} is not a private key in PEM without a password") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic curve key, which this program's CA has")
    return loaded


def _load_or_make_certificate(
    directory: Path, key: ec.EllipticCurvePrivateKey, scope: Scope | None
) -> x509.Certificate:
    path = directory / CA_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        certificate = _make_ca(key, scope)
        write_atomically(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return certificate
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate in PEM") from error


def _make_ca(key: ec.EllipticCurvePrivateKey, scope: Scope | None) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two installations must not share a name: a trust store that knows both picks by name.
    common = f"MxArtifact CA {identifier.digest.hex()[:12]}"
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "MxArtifact"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
    start = datetime.now(UTC) - 2 * _SKEW  # before any leaf's
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
    )
    if scope is not None:
        builder = builder.add_extension(constraints.extension(scope), critical=True)
    return builder.sign(key, hashes.SHA256())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
