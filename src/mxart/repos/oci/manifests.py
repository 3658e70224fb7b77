"""Manifests that clients push: whether they are what they say, and what they say of other files.

image-spec manifest.md, image-index.md, descriptor.md; Docker's schema 2.  What is pushed is kept byte by byte, so
nothing here makes a manifest anew: it is read, and taken or refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from mxart.digest import Digest
from mxart.errors import BadRequest
from mxart.repos.oci import media
from mxart.repos.oci.names import shown
from mxart.repos.operations import Facts
from mxart.repos.publishing import Inspection
from mxart.store.published import Need, Referrer

_MAX_SIZE = (1 << 63) - 1
# Files that one manifest may refer to: each is looked up in the transaction that publishes it.
MAX_REFERENCES = 10_000
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z")  # descriptor.md, "Digests"
# Layers that nobody may hand on are not pushed: whoever pulls gets them from their URLs.
_ELSEWHERE = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


class _Descriptor(msgspec.Struct):
    digest: str
    size: int
    media_type: str = msgspec.field(name="mediaType", default="")


class _Manifest(msgspec.Struct):
    """Of every kind; null is as good as absent, as Go writes it."""

    schema_version: int | None = msgspec.field(name="schemaVersion", default=None)
    media_type: str | None = msgspec.field(name="mediaType", default=None)
    artifact_type: str | None = msgspec.field(name="artifactType", default=None)
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    blobs: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(_Manifest)


def accept(declared: str, digest: Digest | None, data: bytes) -> Facts:
    """Judge a pushed manifest. `declared` is its media type as sent, `digest` the one it should have, if one was named.

    Raises BadRequest that says what would be right.
    """
    manifest = _read(data)
    media_type = _media_type(declared, manifest)
    _check_shape(media_type, manifest)
    for count, (place, descriptor) in enumerate(_descriptors(manifest), 1):
        if count > MAX_REFERENCES:
            raise _wrong(f"it refers to more than {MAX_REFERENCES} files, the most that are taken here")
        _check_descriptor(place, descriptor)
    _refuse_double_keys(data)
    found = Digest.of(data, digest.algorithm if digest is not None else "sha256")
    if digest is not None and found != digest:
        raise BadRequest(f"the manifest that came has the digest {found}, not {digest}", subject="digest")
    return Facts(found, len(data), media_type)


def inspect(package: str, facts: Facts, data: bytes) -> Inspection:
    """What a manifest needs and what it is a referrer of; nothing where it cannot be read (schema 1)."""
    if facts.digest is None or media.is_legacy(facts.media_type):
        return Inspection()
    try:
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Inspection()
    needs: dict[Digest, Need] = {}
    for place, descriptor in _descriptors(manifest):
        digest = _known(descriptor.digest)
        if digest is None or place == "subject":
            continue
        need = Need(digest, descriptor.size, _paths(package, place, descriptor, digest))
        if digest not in needs or not needs[digest].paths:
            needs[digest] = need
    return Inspection(tuple(needs.values()), _referrer(manifest, facts), nests=bool(manifest.manifests))


def _paths(package: str, place: str, descriptor: _Descriptor, digest: Digest) -> tuple[str, ...]:
    """The names of which one must be there."""
    if descriptor.media_type.startswith(_ELSEWHERE):
        return ()
    if not place.startswith("manifests"):
        return (f"{package}/blobs/{digest}",)
    if media.is_manifest(descriptor.media_type):
        return (f"{package}/manifests/{digest}",)
    # An index may list anything (image-index.md, "manifests"): buildkit's caches list layers.
    return (f"{package}/manifests/{digest}", f"{package}/blobs/{digest}")


def _referrer(manifest: _Manifest, facts: Facts) -> Referrer | None:
    subject = None if manifest.subject is None else _known(manifest.subject.digest)
    if subject is None or facts.digest is None:
        return None
    kind = manifest.artifact_type or ""
    if not kind and manifest.config is not None:  # never for an index: distribution-spec, "Listing Referrers"
        kind = manifest.config.media_type
    descriptor: dict[str, object] = {
        "mediaType": facts.media_type,
        "digest": str(facts.digest),
        "size": facts.size,
        **({"artifactType": kind} if kind else {}),
        **({"annotations": manifest.annotations} if manifest.annotations else {}),
    }
    return Referrer(subject, kind, msgspec.json.encode(descriptor))


def _known(text: str) -> Digest | None:
    """A digest that we can compute; None for others."""
    try:
        return Digest.parse(text)
    except ValueError:
        return None


def _read(data: bytes) -> _Manifest:
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _wrong("it is not a JSON object in UTF-8") from None
    except RecursionError:
        raise _wrong("its JSON nests too deep") from None


def _media_type(declared: str, manifest: _Manifest) -> str:
    inner = manifest.media_type or ""
    if media.says_nothing(declared):
        declared = inner or (media.INDEX if manifest.manifests is not None else media.MANIFEST)
    elif inner and inner != declared:
        raise _wrong(f"its mediaType is {shown(inner)}, but it was sent as Content-Type {shown(declared)}")
    if media.is_legacy(declared):
        raise _wrong("schema 1 is not taken any more; push schema 2 or OCI, as every client of today does")
    if not media.is_manifest(declared):
        raise _wrong(f"{shown(declared)} is no manifest; push {', '.join(media.MANIFESTS)}")
    return declared


def _check_shape(media_type: str, manifest: _Manifest) -> None:
    """One document must not be an image to one reader and an index to another (CVE-2021-41190)."""
    if media_type != media.ARTIFACT and manifest.schema_version != 2:
        raise _wrong("its schemaVersion is not 2")
    if media_type in (media.INDEX, media.DOCKER_LIST):
        if manifest.layers is not None or manifest.config is not None:
            raise _wrong("an index has manifests, and neither config nor layers")
    elif manifest.manifests is not None:
        raise _wrong("an image's manifest has config and layers, and no manifests")
    elif media_type != media.ARTIFACT and manifest.config is None:
        raise _wrong("it has no config")


def _descriptors(manifest: _Manifest) -> Iterator[tuple[str, _Descriptor]]:
    """Everything that it refers to, with its place."""
    if manifest.config is not None:
        yield "config", manifest.config
    lists = {"layers": manifest.layers, "blobs": manifest.blobs, "manifests": manifest.manifests}
    for name, descriptors in lists.items():
        for number, descriptor in enumerate(descriptors or ()):
            yield f"{name}[{number}]", descriptor
    if manifest.subject is not None:
        yield "subject", manifest.subject


def _check_descriptor(place: str, descriptor: _Descriptor) -> None:
    if not 0 <= descriptor.size <= _MAX_SIZE:
        raise _wrong(f"the size in {place} is not that of a file")
    if _known(descriptor.digest) is not None:
        return
    algorithm = descriptor.digest.partition(":")[0]
    if _DIGEST.match(descriptor.digest) is None or algorithm in ("sha256", "sha512"):
        why = "is not a digest: sha256:<64 hex digits> or sha512:<128 hex digits>"
    elif descriptor.media_type.startswith(_ELSEWHERE):
        return
    else:
        why = "has an algorithm that cannot be checked here; use sha256 or sha512"
    raise BadRequest(f"the manifest is not taken: {shown(descriptor.digest)} in {place} {why}", subject="manifest")


class _DoubleKey(Exception):
    pass


def _refuse_double_keys(data: bytes) -> None:
    """What two readers would read differently is not signed, scanned and run as the same thing (RFC 8259 section 4)."""

    def pairs(items: list[tuple[str, object]]) -> None:
        if len(items) < 2:
            return
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise _DoubleKey(key)
            seen.add(key)

    try:
        json.loads(data.decode(), object_pairs_hook=pairs)
    except _DoubleKey as error:
        raise _wrong(f"the key {shown(str(error))} is there twice in one object") from None
    except (ValueError, RecursionError):
        raise _wrong("its JSON cannot be read by everybody: it nests too deep or holds a number that is none") from None


def _wrong(why: str) -> BadRequest:
    return BadRequest(f"the manifest is not taken: {why}", subject="manifest")
