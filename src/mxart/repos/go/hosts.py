"""Where a module's repository is, as far as its path tells, or the configuration: nobody need be asked. Pure.

(`go help importpath`: GitHub and Bitbucket by two elements behind the host, any host by an element that ends with
.git.)  GitLab is not among them: how deep its groups are only it can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from mxart.repos.go.paths import check_path, shown

_BY_OWNER = ("github.com", "bitbucket.org")
_ELEMENT = re.compile(r"[A-Za-z0-9_.-]+\Z")


class Root(Struct, frozen=True):
    """The repository at `url` holds the modules whose paths begin with `path`; that stands for a folder of it."""

    path: str
    url: str
    folder: str = ""


class Urls:
    """Roots that the configuration names, with the URLs of their repositories.

    An element `*` of a root stands for any one element; the URL has as many of them, which stand for the same.
    """

    def __init__(self, by_root: Mapping[str, str]) -> None:
        """Raises ValueError with what would be right."""
        for root, url in by_root.items():
            check_path(root.replace("*", "x"))
            if any("*" in part and part != "*" for part in root.split("/")):
                raise ValueError(f"{shown(root)}: * stands for a whole element, as in example.com/*/*")
            if root.count("*") != url.count("*"):
                raise ValueError(f"{shown(root)} and its URL, {shown(url)}, do not have the same number of *")
        # What names more elements says more; among those alike, what has fewer stars.
        self._rules = sorted(by_root.items(), key=lambda rule: (-rule[0].count("/"), rule[0].count("*"), rule[0]))

    def find(self, module: str) -> Root | None:
        """The root that this module is below, None if none is named."""
        elements = module.split("/")
        for root, url in self._rules:
            wanted = root.split("/")
            head = elements[: len(wanted)]
            if len(head) == len(wanted) and all(want in ("*", have) for want, have in zip(wanted, head, strict=True)):
                stars = [have for want, have in zip(wanted, head, strict=True) if want == "*"]
                pieces = url.split("*")
                return Root("/".join(head), pieces[0] + "".join(map(str.__add__, stars, pieces[1:])))
        return None


def well_known(module: str) -> Root | None:
    """The root that a path tells by itself. None: its host has to be asked.

    Raises LookupError for a path on a well-known host that names no repository.
    """
    elements = module.split("/")
    if elements[0] in _BY_OWNER:
        if len(elements) < 3 or not all(map(_ELEMENT.match, elements[:3])):
            raise LookupError(f"{module} names no repository: there is an owner and a name behind {elements[0]}")
        root = "/".join(elements[:3])
        return Root(root, f"https://{root}")
    for at, element in enumerate(elements):
        if at and element.endswith(".git") and element != ".git":
            root = "/".join(elements[: at + 1])
            return Root(root, f"https://{root}")
    return None
