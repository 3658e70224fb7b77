"""Where a module's repository is, as its host says on a page: `go-import` (go.dev/ref/mod, "vcs-find"). Pure.

`https://example.com/any/path?go-get=1` answers with a page that has `<meta name="go-import" content="ROOT VCS URL">` in
its head; since Go 1.25 a fourth word may name the folder of the repository that the root stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser

from msgspec import Struct

from mxart.repos.go.paths import shown

MAX_PAGE = 1 << 20
"""Bytes of a page that are looked at: a head is never longer."""


class Import(Struct, frozen=True):
    """What one such element says."""

    root: str
    vcs: str
    url: str
    folder: str = ""


def read(page: bytes) -> tuple[Import, ...]:
    """Everything that is said in the head of a page, in its order; whatever is no page says nothing."""
    reader = _Reader()
    reader.feed(page[:MAX_PAGE].decode("utf-8", "replace"))
    return tuple(reader.found)


class _Reader(HTMLParser):
    """Reads up to the end of the head, or the begin of the body: what people write into pages is no head."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Import] = []
        self._over = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self._over = True
        if tag != "meta" or self._over:
            return
        known = {name: value or "" for name, value in reversed(attrs)}  # the first of two alike counts
        words = known.get("content", "").split()
        if known.get("name") == "go-import" and len(words) in (3, 4):
            self.found.append(Import(*words))

    def handle_endtag(self, tag: str) -> None:
        if tag == "head":
            self._over = True


def choose(said: Iterable[Import], module: str) -> Import:
    """The one that is about this module, and about git.

    Raises LookupError where there is none, or several: that is what the host says, and no failure.
    """
    about = [one for one in said if is_below(module, one.root)]
    git = [one for one in about if one.vcs == "git"]
    if len(git) == 1:
        return git[0]
    if git:
        raise LookupError(f"says several things about {module}")
    if any(one.vcs == "mod" for one in about):
        url = next(one.url for one in about if one.vcs == "mod")
        raise LookupError(f"says that the modules are at a GOPROXY, {shown(url)}: give that to a proxy repository")
    if about:
        raise LookupError(f"says that {module} is in a repository of {shown(about[0].vcs)}, and only git is read here")
    raise LookupError(f"says nothing of {module}")


def check_folder(folder: str) -> str:
    """The folder that a fourth word names. Raises ValueError for one that is none."""
    parts = folder.split("/") if folder else []
    if folder.startswith("-") or any(part in ("", ".", "..") for part in parts) or not folder.isprintable():
        raise ValueError(f"{shown(folder)} is no folder of a repository")
    return folder


def is_below(path: str, root: str) -> bool:
    """Whether a path is that root, or lies below it."""
    return path == root or path.startswith(root + "/")
