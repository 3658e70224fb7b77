"""Referrers in the words of the registry API (distribution-spec, "Listing Referrers"). Pure.

Not every registry has that API.  One that has not answers with whatever it says to an unknown address: 404 as text,
405, a redirect to a site for people (ghcr.io), a page.  Its clients then keep an index of a manifest's
referrers themselves, under a tag made of the manifest's digest ("Referrers Tag Schema").
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

import msgspec

from mxart.digest import Digest
from mxart.errors import BadRequest, UpstreamFailed
from mxart.message import Headers
from mxart.repos.oci import media
from mxart.repos.oci.errors import VERSION
from mxart.repos.oci.links import following as next_page
from mxart.repos.oci.names import check_digest, check_name, scope, shown
from mxart.repos.operations import Descriptor, Document, NoReferrers, Referred, Referrers, ReferrersPage
from mxart.upstream.base import Ask

_FALLBACK = re.compile(r"sha256-[0-9a-f]{64}\Z")
# A media type (RFC 6838 section 4.2), but forgiving: what is not one finds nothing.
_TYPE = re.compile(r"[\x21-\x7e]{1,255}\Z")
# What registries without the API say to a question for referrers, besides 200 with a page.
_UNKNOWN = (303, 400, 404, 405, 406, 410, 501)
# Those that are about the question rather than what it is about.
_NEVER_ASKED = (303, 404, 405, 501)
# Content-Types of servers that do not tell an index from other JSON.
_VAGUE = frozenset(("", "application/json", "application/octet-stream", "text/plain"))


class _Index(msgspec.Struct):
    # Go's registries write null for an empty list.
    manifests: list[msgspec.Raw] | None
    schema_version: int = msgspec.field(name="schemaVersion", default=2)
    subject: msgspec.Raw | None = None


class _Fields(msgspec.Struct):
    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int
    artifact_type: str | None = msgspec.field(name="artifactType", default=None)


class _Subject(msgspec.Struct):
    digest: str


class _Errors(msgspec.Struct):
    errors: list[msgspec.Raw]


_index = msgspec.json.Decoder(_Index)
_fields = msgspec.json.Decoder(_Fields)
_subject = msgspec.json.Decoder(_Subject)
_errors = msgspec.json.Decoder(_Errors)


def tag_of(digest: Digest) -> str:
    """The tag under which clients keep the referrers of a manifest where there is no API."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


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


def descriptors(data: bytes, subject: Digest | None = None) -> tuple[Descriptor, ...]:
    """What an index lists, in its order, each as it stands there. Raises ValueError with what is wrong with it.

    One descriptor that cannot be read spoils the list: without it the list would be short.  `subject`: whose
    referrers they ought to be, in case the index says.
    """
    try:
        data.decode("utf-8")
        index = _index.decode(data)
        found = tuple(_descriptor(bytes(item)) for item in index.manifests or ())
        of = _subject.decode(index.subject).digest if index.subject not in (None, b"null") else None
    except UnicodeDecodeError:
        raise ValueError("it is not JSON in UTF-8") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is not an index: {error}") from None
    if index.schema_version != 2:
        raise ValueError("its schemaVersion is not 2")
    if subject is not None and of is not None and of != str(subject):
        raise ValueError(f"it is about {shown(of)}")
    return found


def _descriptor(item: bytes) -> Descriptor:
    fields = _fields.decode(item)
    if fields.size < 0:
        raise ValueError(f"{shown(fields.digest)} has a size below zero")
    return Descriptor(Digest.parse(fields.digest), fields.size, fields.media_type, fields.artifact_type or "", item)


class Pointers:
    """See roles.Referring."""

    # The tag of a list (tag_of), and cosign's of before there were referrers: that and .sig, .att or .sbom.
    companions = "sha[0-9][0-9][0-9]-" + 64 * "[0-9a-f]" + "*"

    def ask(self, operation: Referrers, following: str | None) -> Ask:
        path = f"v2/{operation.path}" + (f"?{following}" if following else "")
        fields = Headers((("accept", media.INDEX), ("accept-encoding", "identity")))
        # "Not there" is an answer here: it tells whether upstream has the API at all.
        return Ask("GET", path, fields, scope(operation.package), expects=_UNKNOWN)

    def page(self, operation: Referrers, status: int, headers: Headers, data: bytes) -> ReferrersPage | NoReferrers:
        declared = media.essence(headers.get("content-type"))
        if status != 200:
            if status not in _NEVER_ASKED:
                return NoReferrers(certain=False)
            # A registry that knows the question words its refusal: of a name, or of this digest.
            return NoReferrers(certain=not _is_refusal(data))
        if declared != media.INDEX and (declared not in _VAGUE or not _looks_like_one(data)):
            return NoReferrers(certain=False)  # a page for people: of a proxy's on the way, for all we know
        try:
            found = descriptors(data, operation.digest)
        except ValueError as error:
            raise UpstreamFailed(f"upstream's list of referrers is broken: {error}", subject="manifest") from None
        return ReferrersPage(found, next_page(headers.get_all("link")))

    def about(self, operation: Referrers) -> Document:
        path = f"{operation.package}/manifests/{operation.digest}"
        return Document(
            operation.package,
            path,
            "manifest",
            mutable=False,
            digest=operation.digest,
            credential=operation.credential,
        )

    def stand_in(self, operation: Referrers) -> Document:
        tag = tag_of(operation.digest)
        path = f"{operation.package}/manifests/{tag}"
        return Document(operation.package, path, "manifest", mutable=True, tag=tag, credential=operation.credential)

    def listed(self, operation: Referrers, media_type: str, data: bytes) -> tuple[Descriptor, ...]:
        tag = tag_of(operation.digest)
        if media_type != media.INDEX:
            raise UpstreamFailed(f"upstream's tag {tag} is {media_type}, not an index of referrers", subject="manifest")
        try:
            return descriptors(data, operation.digest)
        except ValueError as error:
            raise UpstreamFailed(f"upstream's tag {tag} is no list of referrers: {error}", subject="manifest") from None

    def read(self, json: bytes) -> Descriptor:
        return _descriptor(json)

    def fallback(self, document: Document) -> Referrers | None:
        """The tag that stands for a list of referrers (distribution-spec, "Referrers Tag Schema").

        Of longer digests it holds a part only.
        """
        if _FALLBACK.match(document.tag) is None:
            return None
        return parse(document.package, document.tag.replace("-", ":", 1), "", "", None)

    def render(self, operation: Referrers, referred: Referred, target: str) -> tuple[Headers, bytes]:
        """An image index; the link to the next page is the caller's own, with any prefix of the router's, and `ns`."""
        fields = [("content-type", media.INDEX), VERSION, ("x-content-type-options", "nosniff")]
        if operation.artifact_type:
            fields.append(("oci-filters-applied", "artifactType"))
        if referred.more and referred.descriptors:
            path, _, query = target.partition("?")
            link = f"{path}?last={quote(str(referred.descriptors[-1].digest), safe=':')}"
            if operation.limit is not None:
                link += f"&n={operation.limit}"
            if operation.artifact_type:
                link += f"&artifactType={quote(operation.artifact_type, safe='/')}"
            for namespace in parse_qs(query).get("ns", [])[:1]:
                link += f"&ns={quote(namespace, safe='')}"
            fields.append(("link", f'<{link}>; rel="next"'))
        items = b",".join(item.json for item in referred.descriptors)
        head = b'{"schemaVersion":2,"mediaType":"' + media.INDEX.encode() + b'","manifests":['
        return Headers(fields), head + items + b"]}"


def _is_refusal(data: bytes) -> bool:
    """Whether this is an error in the words of the registry API (distribution-spec, "Error Codes")."""
    try:
        return bool(_errors.decode(data).errors)
    except (msgspec.MsgspecError, RecursionError):
        return False


def _looks_like_one(data: bytes) -> bool:
    try:
        _index.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True
