"""What a manifest needs, in which order a graph of them is sent, and the index of referrers under a tag. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import UpstreamFailed
from mxart.repos.oci import media

MAX_MANIFEST = 16 << 20


class Platform(msgspec.Struct, frozen=True):
    """image-spec, image-index.md."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    @property
    def text(self) -> str:
        """As people write it: linux/arm/v7."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int
    media_type: str = msgspec.field(name="mediaType", default="")
    urls: tuple[str, ...] | None = None
    platform: Platform | None = None


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor | None = None
    layers: tuple[_Descriptor, ...] | None = None
    blobs: tuple[_Descriptor, ...] | None = None  # of the artifact manifest that image-spec 1.1 dropped
    manifests: tuple[_Descriptor, ...] | None = None
    subject: _Descriptor | None = None
    artifact_type: str | None = msgspec.field(name="artifactType", default=None)
    annotations: dict[str, str] | None = None


_decode = msgspec.json.Decoder(_Manifest).decode


class Part(Struct, frozen=True):
    """Something that a manifest refers to, as it describes it."""

    digest: Digest
    size: int
    media_type: str
    platform: Platform | None = None


class Manifest(Struct, frozen=True):
    """A manifest whose digest was checked. `foreign` are layers that are not for passing on."""

    digest: Digest
    media_type: str
    data: bytes
    manifests: tuple[Part, ...] = ()
    blobs: tuple[Part, ...] = ()
    foreign: tuple[Part, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] | None = None


def read_manifest(digest: Digest, media_type: str, data: bytes) -> Manifest:
    """Raises UpstreamFailed where it cannot be replicated as it is, saying why."""
    if media.is_legacy(media_type):
        raise UpstreamFailed(f"{digest} is a manifest of schema 1, which names its layers in a way of its own")
    try:
        found = _decode(data)
        manifests: list[Part] = []
        blobs: list[Part] = []
        foreign: list[Part] = []
        for item in found.manifests or ():
            (manifests if _is_manifest(item.media_type) else blobs).append(_part(item))
        for item in (*((found.config,) if found.config else ()), *(found.layers or ()), *(found.blobs or ())):
            (foreign if item.urls and _is_foreign(item.media_type) else blobs).append(_part(item))
        return Manifest(
            digest,
            media_type,
            data,
            tuple(manifests),
            tuple(blobs),
            tuple(foreign),
            Digest.parse(found.subject.digest) if found.subject is not None else None,
            found.artifact_type or (found.config.media_type if found.config is not None else ""),
            found.annotations,
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise UpstreamFailed(f"the manifest {digest} cannot be followed: {error}") from None


def _part(item: _Descriptor) -> Part:
    if not 0 <= item.size < 1 << 62:
        raise ValueError(f"{item.size} is not a size")
    return Part(Digest.parse(item.digest), item.size, item.media_type, item.platform)


def _is_manifest(media_type: str) -> bool:
    """Build caches list layers where manifests should be."""
    return media_type.endswith("+json") and any(word in media_type for word in (".manifest.", ".index."))


def _is_foreign(media_type: str) -> bool:
    return ".foreign." in media_type or ".nondistributable." in media_type


def choose_platform(index: Manifest, wanted: str) -> Digest:
    """The manifest for a platform (`linux/arm64`, `linux/arm/v7`). Raises UpstreamFailed saying which there are."""
    offered = [part for part in index.manifests if part.platform is not None]
    for exact in (True, False):
        for part in offered:
            text = part.platform.text if part.platform is not None else ""
            if text == wanted or (not exact and text.startswith(f"{wanted}/")):
                return part.digest
    there = ", ".join(sorted({part.platform.text for part in offered if part.platform is not None})) or "none"
    raise UpstreamFailed(f"there is no {wanted} in it; there are: {there}")


def in_order(manifests: Mapping[Digest, Manifest]) -> list[Manifest]:
    """Parts before what is made of them, subjects before their referrers. What is not in the mapping is left out."""
    done: dict[Digest, Manifest] = {}
    for root in manifests:
        stack = [root]
        while stack:
            digest = stack[-1]
            if digest in done:
                stack.pop()
                continue
            manifest = manifests[digest]
            needs = [part.digest for part in manifest.manifests]
            needs += [manifest.subject] if manifest.subject is not None else []
            # Digests cannot go in a circle, so this ends.
            waiting = [need for need in needs if need in manifests and need not in done]
            if waiting:
                stack += waiting
            else:
                done[digest] = manifest
    return list(done.values())


def referrers_tag(subject: Digest) -> str:
    """The tag that stands for the list of referrers where a registry has no such API (distribution-spec, "Referrers
    Tag Schema")."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


class _Index(msgspec.Struct):
    manifests: list[msgspec.Raw]


class _Named(msgspec.Struct):
    digest: str
    media_type: str = msgspec.field(name="mediaType", default="")
    size: int = 0


def referrers_of(data: bytes) -> list[Part]:
    """What a list of referrers names. Raises UpstreamFailed for what is none."""
    try:
        entries = [msgspec.json.decode(raw, type=_Named) for raw in msgspec.json.decode(data, type=_Index).manifests]
        return [Part(Digest.parse(entry.digest), entry.size, entry.media_type) for entry in entries]
    except (msgspec.MsgspecError, ValueError) as error:
        raise UpstreamFailed(f"the list of referrers cannot be read: {error}") from None


def with_referrers(data: bytes | None, referrers: Iterable[Manifest]) -> bytes | None:
    """An index of referrers with more of them, None if it has them all; what else it lists stays.

    Raises UpstreamFailed.
    """
    known = {str(part.digest) for part in referrers_of(data)} if data is not None else set()
    entries = list(msgspec.json.decode(data, type=_Index).manifests) if data is not None else []
    fresh = [manifest for manifest in referrers if str(manifest.digest) not in known]
    if not fresh:
        return None
    for manifest in fresh:
        fields: dict[str, object] = {
            "mediaType": manifest.media_type,
            "digest": str(manifest.digest),
            "size": len(manifest.data),
        }
        if manifest.artifact_type:
            fields["artifactType"] = manifest.artifact_type
        if manifest.annotations:
            fields["annotations"] = manifest.annotations
        entries.append(msgspec.Raw(msgspec.json.encode(fields)))
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": entries})
