"""Host names and addresses as values: what is an address, who owns a name, which names lie below another. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# Suffixes under which strangers get names, beside the country codes' second levels ("co.uk").  Not
# the whole Public Suffix List: whatever is missing here only makes the pin of credentials weaker
# within one provider, never wider than one second-level domain.
_SHARED_SUFFIXES = frozenset(
    {
        "amazonaws.com", "azurecr.io", "azurewebsites.net", "appspot.com", "cloudfront.net", "fly.dev",
        "github.io", "gitlab.io", "googleapis.com", "herokuapp.com", "pages.dev", "pkg.dev", "r2.dev", "run.app",
        "web.app", "windows.net", "workers.dev",
    }
)  # fmt: skip
_SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "gob", "gov", "mil", "ne", "net", "nom", "or", "org"})


@lru_cache(maxsize=1024)
def is_ip(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def registrable_domain(host: str) -> str:
    """The part of a name that somebody can own ("auth.docker.io" -> "docker.io"); an IP address is its own."""
    host = host.rstrip(".")
    if is_ip(host):
        return host
    labels = host.split(".")
    keep = 2
    if ".".join(labels[-2:]) in _SHARED_SUFFIXES or (
        len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _SECOND_LEVELS
    ):
        keep = 3
    return ".".join(labels[-keep:])


def is_within(name: str, domain: str) -> bool:
    """Whether a name is a domain, or lies below it. Both in lower case."""
    return name == domain or name.endswith("." + domain)
