"""Referrers in the words of the registry API (distribution-spec, "Listing Referrers"). Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from mxart.errors import BadRequest
from mxart.message import Headers
from mxart.repos.base import Referred, Referrers
from mxart.repos.oci import media
from mxart.repos.oci.errors import VERSION
from mxart.repos.oci.names import check_digest, check_name, shown

# A media type (RFC 6838 section 4.2), but forgiving: what is not one finds nothing.
_TYPE = re.compile(r"[\x21-\x7e]{1,255}\Z")


def parse(name: str, digest: str, query: str, after: str, limit: int | None) -> Referrers:
    """What a request wants. Raises BadRequest."""
    package, subject = check_name(name), check_digest(digest)
    types = parse_qs(query, keep_blank_values=True).get("artifactType", [])
    if len(types) > 1:
        raise BadRequest("give artifactType once: a list is filtered by one type", subject="page")
    artifact_type = types[0] if types else ""
    if artifact_type and not _TYPE.match(artifact_type):
        raise BadRequest(f"artifactType={shown(artifact_type)} is not a media type", subject="page")
    path = f"{package}/referrers/{subject}"
    return Referrers(package, path, "manifest", subject, artifact_type, after, limit)


def render(operation: Referrers, referred: Referred, target: str) -> tuple[Headers, bytes]:
    """An image index; the link to the next page is the caller's own, with any prefix of the router's, and `ns`."""
    fields = [("content-type", media.INDEX), VERSION, ("x-content-type-options", "nosniff")]
    if operation.artifact_type:
        fields.append(("oci-filters-applied", "artifactType"))
    if referred.more and referred.descriptors:
        path, _, query = target.partition("?")
        following = f"{path}?last={quote(str(referred.descriptors[-1].digest), safe=':')}"
        if operation.limit is not None:
            following += f"&n={operation.limit}"
        if operation.artifact_type:
            following += f"&artifactType={quote(operation.artifact_type, safe='/')}"
        for namespace in parse_qs(query).get("ns", [])[:1]:
            following += f"&ns={quote(namespace, safe='')}"
        fields.append(("link", f'<{following}>; rel="next"'))
    items = b",".join(item.json for item in referred.descriptors)
    head = b'{"schemaVersion":2,"mediaType":"' + media.INDEX.encode() + b'","manifests":['
    return Headers(fields), head + items + b"]}"
