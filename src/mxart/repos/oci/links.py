"""The link to the next page of a list (RFC 8288; distribution-spec, "Listing Tags"). Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^,;"]+(?:"[^"]*")?)*)')


def following(links: list[str]) -> str | None:
    """The query of the next page, None on the last one; `links` are the values of Link.

    Only the query: the next page is at the same place, whatever host upstream believes to have.
    """
    for target, parameters in _LINK.findall(", ".join(links)):
        if re.search(r';\s*rel\s*=\s*"?\s*next\b', parameters, re.IGNORECASE):
            # By hand: what the rest of the link looks like does not matter.
            return quote(target.partition("#")[0].partition("?")[2], safe="=&%+-._~:/?@!$'()*,;")
    return None
