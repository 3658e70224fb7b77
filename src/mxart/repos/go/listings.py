"""Versions of a module: the list of them, and which one is the latest (go.dev/ref/mod, "GOPROXY protocol"). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from mxart.message import Headers
from mxart.repos.foreign import refuse_foreign
from mxart.repos.go import documents, gomod
from mxart.repos.go.errors import TEXT
from mxart.repos.go.paths import escape
from mxart.repos.go.requests import PLAIN, SAFE
from mxart.repos.go.versions import is_pseudo, is_version, latest, order
from mxart.repos.operations import Document, Listed, Listing, Page
from mxart.upstream.base import Ask


class Versions:
    """See roles.Paging. Versions come in one page."""

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        return Ask("GET", quote(listing.path, safe=SAFE), PLAIN)

    def page(self, listing: Listing, headers: Headers, data: bytes) -> Page:
        refuse_foreign(headers, listing.subject)
        return Page(documents.versions(data, listing.subject), None)

    def render(self, listing: Listing, listed: Listed, target: str) -> tuple[Headers, bytes]:
        text = "".join(f"{version}\n" for version in in_order(listed.names))
        return Headers((("content-type", TEXT),)), text.encode()


class Latest:
    """See roles.Choosing. The newest version's go.mod says which ones are retracted."""

    def choose(self, document: Document, answers: Sequence[bytes]) -> int:
        found = [documents.version(data) for data in answers]
        return found.index(latest(found))

    def listing(self, document: Document) -> Listing:
        return Listing(document.package, f"{escape(document.package)}/@v/list", "list", "tags", kept=document.kept)

    def guide(self, document: Document, versions: Sequence[str]) -> Document | None:
        version = latest(versions)
        return _of_version(document.package, version, "mod") if version else None

    def best(self, document: Document, versions: Sequence[str], guide: bytes) -> Document:
        return _of_version(document.package, best(versions, guide), "info")


def best(versions: Sequence[str], mod: bytes) -> str:
    """The latest version that was not retracted; the latest at all if every one was. There is at least one."""
    try:
        said = gomod.read(mod)
    except ValueError:
        return latest(versions)
    return latest(version for version in versions if not said.retracts(version)) or latest(versions)


def in_order(versions: Sequence[str]) -> list[str]:
    """In the order of a list, which names no commits."""
    return sorted((version for version in versions if is_version(version) and not is_pseudo(version)), key=order)


def _of_version(module: str, version: str, kind: str) -> Document:
    path = f"{escape(module)}/@v/{escape(version)}.{kind}"
    return Document(module, path, kind, mutable=False, small=True)
