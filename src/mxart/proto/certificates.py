"""Which certificate a client is shown: OpenSSL contexts by name.

The user's own certificates come first, by the names in them; then what our CA may vouch for, minted when first
asked for; for any other name there is none, and the connection is refused.

Sessions.  OpenSSL seals session tickets with keys of the context that a connection was *created* with, and takes
certificates from the one it was *switched* to afterwards.  So every connection is created with one bare context,
`Sessions`, and switched to the context of its name: a ticket then holds across names' contexts that come and go, and,
if `Sessions` was made before the workers were forked, across processes.  Nothing is kept on the server's side: tickets
carry the session (RFC 5077; RFC 8446 section 4.6.1).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from msgspec import Struct
from OpenSSL import SSL

from mxart.config import CertificateFiles
from mxart.errors import ConfigError
from mxart.proto.authority import Authority
from mxart.proto.pem_files import PrivateKey, read_chain, read_key

PROTOCOLS = (b"h2", b"http/1.1", b"http/1.0")
"""What ALPN may agree on, best first. HTTP/1.0 has a name of its own there, and is served like HTTP/1.1."""

_RENEW_BEFORE = timedelta(days=2)
# Minted while the clock was wrong, and to others not yet valid: certificates are backdated by an hour.
_CLOCK_BACK = timedelta(minutes=30)
_MAX_CONTEXTS = 512
# HTTP/2 forbids all older suites (RFC 9113 section 9.2.2), and whoever speaks TLS 1.2 today has one of these.
_TLS12_CIPHERS = b"ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
# AES-128 first, whatever the client's order: its SHA-256 is done by the processor, where SHA-384 takes a good part of
# a handshake. But a client that puts ChaCha20 first has no AES in its processor, and gets that.
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_PRIORITIZE_CHACHA = 1 << 21  # SSL_OP_PRIORITIZE_CHACHA of openssl/ssl.h, which pyOpenSSL does not name
_PARTIAL_WRITE = 1  # SSL_MODE_ENABLE_PARTIAL_WRITE of openssl/ssl.h, which pyOpenSSL sets and does not name
_ALWAYS = "localhost"


class Sessions:
    """What makes sessions resumable everywhere. Make one before forking, and keep it over a reload."""

    __slots__ = ("context",)

    def __init__(self) -> None:
        self.context = _new_context(PROTOCOLS)


class Contexts:
    """Contexts by name. One for a worker; every method is synchronous and takes less than a few milliseconds."""

    def __init__(
        self,
        authority: Authority,
        served: Callable[[str], bool],
        *,
        certificates: Iterable[CertificateFiles] = (),
        names: Iterable[str] = (),
        protocols: tuple[bytes, ...] = PROTOCOLS,
        max_contexts: int = _MAX_CONTEXTS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises ConfigError if a certificate of the user's cannot be used.

        `served` says whether our CA may vouch for a lower-case DNS name; it is asked for every connection. `names`
        are vouched for as well, and the IP addresses among them stand in the certificate for clients without SNI.
        """
        self._authority = authority
        self._served = served
        self._protocols = protocols
        self._own = [_load(files, protocols) for files in certificates]
        listed = tuple(names)
        self._names = frozenset(name.lower() for name in listed)
        addresses = (address for name in listed if (address := _address(name)) is not None)
        self._addresses = tuple(address for address in addresses if authority.permits(address))
        self._minted: OrderedDict[str, _Minted] = OrderedDict()
        self._nameless: dict[str, SSL.Context | tuple[str, tuple[str, ...]]] = {}  # by the address connected to
        self._max = max_contexts
        self._clock = clock

    def find(self, sni: str | None, local_address: str) -> SSL.Context | None:
        """The context for a connection; None if the name is not ours to answer for.

        Without SNI it is the one for the address that the client connected to, and for `localhost`.
        """
        if sni is None:
            known = self._nameless.get(local_address)
            if known is None:
                if len(self._nameless) >= self._max:  # a PROXY header may tell of any number of addresses
                    self._nameless.clear()
                known = self._nameless[local_address] = self._for_address(_address(local_address))
            return known if isinstance(known, SSL.Context) else self._mint(*known)
        own = self._own_for(sni)
        if own is not None:
            return own
        if sni not in self._names and not self._served(sni):
            return None
        return self._mint(sni, (sni,))

    def needs(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those names that neither a certificate of the user's covers, nor our CA is permitted to vouch for."""
        return tuple(name for name in names if self._own_for(name) is None and not self._authority.permits(name))

    def _for_address(self, address: str | None) -> SSL.Context | tuple[str, tuple[str, ...]]:
        """The user's own, or what to mint."""
        own = None if address is None else self._own_for(address)
        return own or (f"[{address}]", self._without_name(address))

    def _without_name(self, address: str | None) -> tuple[str, ...]:
        """One name that the CA is not permitted would make verifiers refuse the others with it."""
        here = (name for name in (address, _ALWAYS) if name is not None and self._authority.permits(name))
        # With none of them left it is for clients that do not verify, a health check's for instance.
        return _unique((*here, *self._addresses)) or (_ALWAYS,)

    def _own_for(self, name: str) -> SSL.Context | None:
        for own in self._own:
            if name in own.names:
                return own.context
        wildcard = "*." + name.partition(".")[2]  # RFC 9525 section 6.3: one whole label, the left-most
        for own in self._own:
            if wildcard in own.names:
                return own.context
        return None

    def _mint(self, key: str, names: tuple[str, ...]) -> SSL.Context:
        now = self._clock()
        minted = self._minted.get(key)
        if minted is not None and minted.made_at <= now + _CLOCK_BACK and now < minted.renew_at:
            self._minted.move_to_end(key)
            return minted.context
        issued = self._authority.issue(names, now=now)
        context = _new_context(self._protocols)
        _install(context, issued.chain, issued.key)
        # A CA near its end makes shorter ones: they too are used for most of their life.
        spare = min(_RENEW_BEFORE, (issued.not_after - now) / 3)
        self._minted[key] = _Minted(context, now, issued.not_after - spare)
        self._minted.move_to_end(key)
        while len(self._minted) > self._max:
            self._minted.popitem(last=False)
        return context


class _Minted(Struct, frozen=True):
    context: SSL.Context
    made_at: datetime
    renew_at: datetime


class _Own(Struct, frozen=True):
    names: frozenset[str]  # DNS names in lower case, wildcards as they stand, IP addresses
    context: SSL.Context


def _new_context(protocols: tuple[bytes, ...]) -> SSL.Context:
    """A context without a certificate. All are alike: options are taken from the one a connection is created with."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Many clients end with FIN and no close_notify, and want their answer all the same. Whether something is missing
    # before that end, HTTP's own framing tells.
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_IGNORE_UNEXPECTED_EOF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 34 KB less for an idle connection
    context.clear_mode(_PARTIAL_WRITE)  # one call for many records: `tls_transport` says how
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13_CIPHERS)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"mxart")

    def select(_connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    context.set_alpn_select_callback(select)
    return context


def _install(context: SSL.Context, chain: tuple[x509.Certificate, ...], key: PrivateKey) -> None:
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(key)
    context.check_privatekey()


def _load(files: CertificateFiles, protocols: tuple[bytes, ...]) -> _Own:
    chain, key = read_chain(files.cert), read_key(files.key)
    names = _names_of(chain[0])
    if not names:
        raise ConfigError(f"{files.cert}: the certificate names no host (subjectAltName), so no client would accept it")
    context = _new_context(protocols)
    try:
        _install(context, chain, key)
    except SSL.Error as error:
        raise ConfigError(f"{files.cert} and {files.key} cannot be used together: is the key another's?") from error
    return _Own(names, context)


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    found = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return frozenset(found | {str(address) for address in names.get_values_for_type(x509.IPAddress)})


def _address(text: str) -> str | None:
    """An IP address as certificates hold it: without a zone, IPv4 that came in on an IPv6 socket as IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _unique(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))
