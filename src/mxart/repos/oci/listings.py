"""Lists of tags and of repositories (distribution-spec, "Listing Tags"; Docker's `_catalog`). Pure."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

import msgspec

from mxart.errors import BadRequest, UpstreamFailed
from mxart.message import Headers
from mxart.repos.oci.errors import VERSION
from mxart.repos.oci.links import following as next_page
from mxart.repos.oci.names import scope, shown, unescape
from mxart.repos.operations import Listed, Listing, Page
from mxart.upstream.base import Ask

_JSON = "application/json"


class _TagList(msgspec.Struct):
    tags: list[str] | None = None


_tag_list = msgspec.json.Decoder(_TagList)


class Names:
    """See roles.Paging."""

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        # No `n`: some registries refuse one above their limit, all of them page by Link.
        path = f"v2/{listing.path}" + (f"?{following}" if following else "")
        fields = Headers((("accept", _JSON), ("accept-encoding", "identity")))
        return Ask("GET", path, fields, scope(listing.package))

    def page(self, listing: Listing, headers: Headers, data: bytes) -> Page:
        try:
            tags = _tag_list.decode(data).tags
        except (msgspec.MsgspecError, RecursionError):
            raise UpstreamFailed("upstream's answer is not a list of tags", subject="name") from None
        return Page(tuple(tags or ()), next_page(headers.get_all("link")))

    def render(self, listing: Listing, listed: Listed, target: str) -> tuple[Headers, bytes]:
        """The name and the link to the next page are the caller's own, with any prefix of the router's, and `ns`."""
        path, _, query = target.partition("?")
        fields = [("content-type", _JSON), VERSION]
        if listed.more and listed.names and listing.limit:
            link = f"{path}?n={listing.limit}&last={quote(listed.names[-1], safe='')}"
            for namespace in parse_qs(query).get("ns", [])[:1]:
                link += f"&ns={quote(namespace, safe='')}"
            fields.append(("link", f'<{link}>; rel="next"'))
        if listing.of == "packages":
            return Headers(fields), msgspec.json.encode({"repositories": listed.names})
        name = unescape(path).removeprefix("/v2/").removesuffix("/tags/list")
        return Headers(fields), msgspec.json.encode({"name": name, "tags": listed.names})


def read(query: str) -> tuple[str, int | None]:
    """`last` and `n` of a list (distribution-spec, "Listing Tags"); other parameters mean nothing here."""
    if not query:
        return "", None
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise BadRequest("the query cannot be read", subject="page") from None
    last = fields.get("last", [""])[0]
    text = fields.get("n", [""])[0]
    if not text:
        return last, None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadRequest(f"n={shown(text)} is not a number of entries", subject="page")
    return last, int(text)
