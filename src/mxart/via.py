"""Who a request came by (Via, RFC 9110 section 7.6.3), and how one that goes round is known. Pure, but for new names.

Every request to an upstream names this instance, by a pseudonym that is made anew at each start, and before it the
instances that the question came by.  Whoever reads its own name has asked itself: through a second name of
its own, an address translation, or a mirror whose mirror it is.  Of a client's field only such names are passed on.

Via, not CDN-Loop (RFC 8586): that one is for content delivery networks, whose customers may not touch it.  What
servers do differently when they see Via is not to compress (nginx gzip_proxied, IIS noCompressionForProxies), and
we ask for identity anyway; signatures of storage URLs cover the fields that they list, which Via is not.
"""

from __future__ import annotations

import re
import secrets

from mxart.message import Headers

MAX_HOPS = 8  # instances behind each other; more is a loop of somebody's, or will be one

_OURS = re.compile(r"(?<![\w-])mxart-[0-9a-f]{32}(?![\w-])")


def make_pseudonym() -> str:
    """A name for an instance that nobody else has or can guess."""
    return f"mxart-{secrets.token_hex(16)}"


def hops(headers: Headers) -> tuple[str, ...]:
    """The instances of this program that a request came by, in their order."""
    values = [value for name, value in headers.items if name == "via"]  # nearly always none, on every request
    return tuple(_OURS.findall(", ".join(values))) if values else ()


def via(came_by: tuple[str, ...]) -> str:
    """The field's value for these instances."""
    return ", ".join(f"1.1 {name}" for name in came_by)
