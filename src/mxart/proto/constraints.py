"""Name constraints of a CA's certificate (RFC 5280 section 4.2.1.10): written, and read as verifiers do. Pure.

Only DNS names and IP addresses are looked at, which are all that our certificates hold.  Without a permitted subtree
of a kind, that whole kind is permitted; an excluded one always wins; every CA of a chain must agree.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cryptography import x509

from mxart.claims import Network, Scope


def extension(scope: Scope) -> x509.NameConstraints:
    """What makes a CA good for a scope and nothing else. Every verifier must know it, so it is to be critical."""
    domains = [x509.DNSName(domain) for domain in scope.domains]
    networks = [x509.IPAddress(network) for network in scope.networks]
    return x509.NameConstraints([*domains, *networks], excluded_subtrees=None)


def permits(chain: Iterable[x509.Certificate], name: str) -> bool:
    """Whether the CAs of a chain may all vouch for a DNS name, a wildcard or an IP address."""
    return all(_permits(certificate, name) for certificate in chain)


def permitted(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """The domains and networks that a CA is permitted, as text; None if it is not constrained so."""
    constraints = _of(certificate)
    if constraints is None or not constraints.permitted_subtrees:
        return None
    return tuple(
        str(subtree.value)
        for subtree in constraints.permitted_subtrees
        if isinstance(subtree, x509.DNSName | x509.IPAddress)
    )


def _of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def _permits(certificate: x509.Certificate, name: str) -> bool:
    constraints = _of(certificate)
    if constraints is None:
        return True
    allowed, denied = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        domains = [subtree.value for subtree in allowed if isinstance(subtree, x509.DNSName)]
        barred = [subtree.value for subtree in denied if isinstance(subtree, x509.DNSName)]
        # A wildcard stands for names that an excluded one may lie among.
        overlaps = name.startswith("*.") and any(_is_within(other, name[2:]) for other in barred)
        return (
            (not domains or any(_is_within(name, domain) for domain in domains))
            and not any(_is_within(name, domain) for domain in barred)
            and not overlaps
        )
    networks = [_network(subtree.value) for subtree in allowed if isinstance(subtree, x509.IPAddress)]
    return (not networks or any(address in network for network in networks)) and not any(
        address in _network(subtree.value) for subtree in denied if isinstance(subtree, x509.IPAddress)
    )


def _is_within(name: str, domain: str) -> bool:
    """As OpenSSL and Go read it: "" is everything, and a leading dot leaves out the domain itself."""
    name, domain = name.lower(), domain.lower()
    if domain.startswith("."):
        return name.endswith(domain)
    return not domain or name == domain or name.endswith("." + domain)


def _network(value: ipaddress.IPv4Address | ipaddress.IPv6Address | Network) -> Network:
    return value if isinstance(value, Network) else ipaddress.ip_network(value)
