"""The grammar of names, tags and references (distribution-spec, "Pulling manifests"), and Docker Hub's special case."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

from mxart.digest import Digest
from mxart.errors import BadRequest

MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")

_HUB_HOSTS = frozenset(("registry-1.docker.io", "docker.io", "index.docker.io"))


def check_name(name: str) -> str:
    """The name, or BadRequest about a "name"."""
    # The length first: the pattern's time grows with it.
    if len(name) > MAX_NAME:
        raise BadRequest(f"a repository name has at most {MAX_NAME} characters", subject="name")
    if _NAME.match(name) is None:
        raise BadRequest(
            f"{shown(name)} is not a repository name: lower-case letters, digits and . _ - between them, "
            "in components separated by /",
            subject="name",
        )
    return name


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.match(text) is not None


def check_digest(text: str) -> Digest:
    """The digest, or BadRequest about a "digest"."""
    try:
        return Digest.parse(text)
    except ValueError:
        message = f"{shown(text)} is not a digest: sha256:<64 hex digits> or sha512:<128 hex digits>"
        raise BadRequest(message, subject="digest") from None


def unescape(path: str) -> str:
    """The path without percent escapes.

    Nothing in a name needs one, but a colon is often sent as `%3A`.  An escape for anything that the grammar does
    not know ends up in the grammar's refusal; one that would make a new slash or escape is refused here.
    """
    if "%" not in path:
        return path
    if re.search(r"%(?![0-9A-Fa-f]{2})|%2[Ff5]|%00", path):
        raise BadRequest("the path holds an escape that no name needs", subject="name")
    # Bytes that are not UTF-8 come out as characters that no name has.
    return unquote_to_bytes(path).decode("utf-8", "replace")


def is_docker_hub(urls: Iterable[str]) -> bool:
    """Whether these mirrors stand for Docker Hub, where `alpine` means `library/alpine`: the first one decides."""
    for url in urls:
        return urlsplit(url).hostname in _HUB_HOSTS
    return False


def shown(text: str) -> str:
    """Text of a stranger's, fit for a message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def scope(name: str) -> str:
    """What a token has to be good for to read a repository (Docker Registry Token Authentication, "scope")."""
    return f"repository:{name}:pull"
