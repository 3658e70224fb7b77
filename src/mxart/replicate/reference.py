"""Where an image is: `[http://]host[:port]/name[:tag][@digest]`, as people write it. Pure."""

from __future__ import annotations

from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import BadRequest
from mxart.repos.oci.names import check_digest, check_name, is_docker_hub, is_tag, shown
from mxart.upstream.url import Url

_HUB = "https://registry-1.docker.io"


class Place(Struct, frozen=True):
    """A repository of a registry, and maybe one image of it: by `tag`, "" for none, or `digest`."""

    registry: str  # its URL: "https://registry.example:5000"
    name: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def reference(self) -> str:
        """The digest if there is one, else the tag, which may be ""."""
        return str(self.digest) if self.digest is not None else self.tag

    def __str__(self) -> str:
        mark = "@" if self.digest is not None else ":"
        return f"{self.registry}/{self.name}" + (f"{mark}{self.reference}" if self.reference else "")


def parse_place(text: str) -> Place:
    """Raises BadRequest with what would be right. https, unless the text says http://."""
    before, mark, below = text.strip().partition("://")
    scheme = before.lower() if mark else "https"
    host, _, rest = (below if mark else before).partition("/")
    host = host.lower()
    if "@" in host:
        # Not shown: it may be a password.
        raise BadRequest("credentials do not belong into an image's name", subject="reference")
    if scheme not in ("http", "https"):
        raise BadRequest(f"{shown(scheme)} is neither http nor https", subject="reference")
    if not rest or not host or (not mark and "." not in host and ":" not in host and host != "localhost"):
        raise BadRequest(
            f"{shown(text)} does not say of which registry: write docker.io/library/alpine:3.20, "
            "or http://localhost:5000/name",
            subject="reference",
        )
    try:
        registry = str(Url.parse(f"{scheme}://{host}").origin)
    except ValueError as error:
        raise BadRequest(f"{shown(text)}: {error}", subject="reference") from None
    name, tag, digest = parse_image(rest)
    if scheme == "https" and is_docker_hub((registry,)):
        registry, name = _HUB, name if "/" in name else f"library/{name}"
    return Place(registry, name, tag, digest)


def parse_image(text: str) -> tuple[str, str, Digest | None]:
    """Name, tag ("" for none) and digest of `name[:tag][@digest]`. Raises BadRequest."""
    rest, _, hexed = text.partition("@")
    name, colon, tag = rest.partition(":")
    if colon and not is_tag(tag):
        raise BadRequest(f"{shown(tag)} is not a tag", subject="reference")
    if "@" in text:
        return check_name(name), tag, check_digest(hexed)
    return check_name(name), tag, None
