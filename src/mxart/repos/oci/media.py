"""Media types of manifests, and whether bytes are the manifest they claim to be (image-spec media-types.md)."""

from __future__ import annotations

import msgspec

from mxart.errors import UpstreamFailed

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SIGNED_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # of image-spec 1.1's candidates; older oras pushes it
BLOB = "application/octet-stream"

MANIFESTS = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST)

# Always the full list, never the caller's: else the digest behind a tag depends on who asked first.
ACCEPT = ", ".join((INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, SIGNED_SCHEMA1, "*/*;q=0.1"))

_SCHEMA2 = frozenset((INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
_LEGACY = frozenset((SCHEMA1, SIGNED_SCHEMA1))
# What a server says when it does not know: the document itself must tell.
_SAYS_NOTHING = frozenset(("", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"))
_NEVER = frozenset(("text/html", "application/xhtml+xml"))


_ABSENT = msgspec.Raw(b"")


class _Shape(msgspec.Struct):
    schema_version: object = msgspec.field(name="schemaVersion", default=None)
    media_type: object = msgspec.field(name="mediaType", default=None)
    # Raw: a large index is not turned into objects for this. Empty: it is not there.
    config: msgspec.Raw = _ABSENT
    layers: msgspec.Raw = _ABSENT
    manifests: msgspec.Raw = _ABSENT


_decoder = msgspec.json.Decoder(_Shape)


def essence(content_type: str | None) -> str:
    """A Content-Type without parameters, in lower case; "" where there is none (RFC 9110 section 8.3.1)."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_manifest(media_type: str) -> bool:
    """Whether it is a manifest's that we know, schema 1 not among them."""
    return media_type in _SCHEMA2 or media_type == ARTIFACT


def says_nothing(media_type: str) -> bool:
    """Whether it is what senders say who do not know."""
    return media_type in _SAYS_NOTHING


def is_legacy(media_type: str) -> bool:
    """Schema 1, whose digest is not that of its bytes (distribution, docs/spec/manifest-v2-1.md)."""
    return media_type in _LEGACY


def refuse_page(content_type: str | None) -> None:
    """Raise UpstreamFailed for what can only be a page for people."""
    if essence(content_type) in _NEVER:
        raise UpstreamFailed("upstream answered with a page for people instead of a file", subject="manifest")


def manifest_type(content_type: str | None, data: bytes) -> str:
    """The media type under which a manifest is served: upstream's, unless it says nothing.

    Raises UpstreamFailed when the bytes are not a manifest, or not the one that the type announces.
    """
    refuse_page(content_type)
    declared = essence(content_type)
    try:
        shape = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        raise _wrong("it is not a JSON object") from None
    inner = shape.media_type
    if inner is not None and not isinstance(inner, str):
        raise _wrong("its mediaType is not a text")
    if declared in _SAYS_NOTHING:
        declared = inner or _guess(shape)
    elif inner and inner != declared and (inner in _SCHEMA2 or declared in _SCHEMA2):
        raise _wrong(f"its mediaType is {inner[:100]!r}, sent as {declared!r}")
    if declared in _SCHEMA2 and shape.schema_version != 2:
        raise _wrong("its schemaVersion is not 2")
    if declared in _LEGACY and shape.schema_version != 1:
        raise _wrong("its schemaVersion is not 1")
    if "\n" in declared or "\r" in declared or not declared.isascii() or "/" not in declared:
        raise _wrong("its mediaType is not one")
    return declared


def _guess(shape: _Shape) -> str:
    if shape.schema_version == 1:
        return SIGNED_SCHEMA1
    if shape.schema_version == 2 and shape.manifests != _ABSENT:
        return INDEX
    if shape.schema_version == 2 and _ABSENT not in (shape.config, shape.layers):
        return MANIFEST
    raise _wrong("neither it nor its Content-Type says what it is")


def _wrong(why: str) -> UpstreamFailed:
    return UpstreamFailed(f"upstream's answer is not a manifest: {why}", subject="manifest")
