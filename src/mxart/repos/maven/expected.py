"""What an upstream says that its files are: their checksums, in the head of an answer. Pure.

Central, Artifactory, Nexus and object stores do, each in fields of its own (resolver calls them "included").  What they
say comes from when the file was deployed, and so tells more than the transfer does.
"""

from __future__ import annotations

import re

from mxart.message import Headers
from mxart.repos.maven.checksums import is_hex
from mxart.repos.maven.coordinates import ALGORITHMS, Algorithm

_PREFIXES = ("x-checksum-", "x-goog-meta-checksum-", "x-amz-meta-checksum-")
_NEXUS = re.compile(r'(?:W/)?"?\{SHA1\{([0-9a-fA-F]{40})\}\}"?\Z')


def told(headers: Headers) -> tuple[Algorithm, str] | None:
    """The strongest checksum that the head of an answer tells, in lower case; None: it tells none."""
    for algorithm in reversed(ALGORITHMS):
        for prefix in _PREFIXES:
            text = (headers.get(f"{prefix}{algorithm}") or "").strip()
            if is_hex(text, algorithm):
                return algorithm, text.lower()
    match = _NEXUS.match(headers.get("etag") or "")
    return ("sha1", match[1].lower()) if match is not None else None
