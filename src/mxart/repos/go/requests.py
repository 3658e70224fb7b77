"""What a request to a GOPROXY wants (go.dev/ref/mod, "GOPROXY protocol"), parsed once. Pure.

The path is below the repository's own: `/github.com/!burnt!sushi/toml/@v/v1.2.3.info`, or the same behind
`/cached-only`.  Percent escapes go first (cmd/go sends `%21` for `!`), then the `!`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from mxart.errors import BadRequest, NotFound
from mxart.message import Headers
from mxart.repos.go import sums
from mxart.repos.go.paths import shown, unescape_path, unescape_version
from mxart.repos.go.sums import Asked
from mxart.repos.go.versions import canonical, fits, is_canonical

Kind = Literal["list", "latest", "info", "mod", "zip"]

# The longest path that is looked at; names on disks have at most 4096 bytes.
MAX_PATH = 4096
# What cmd/go leaves as it is in a path; the `!` goes as `%21`, as from there.
SAFE = "/$&+=:@"
PLAIN = Headers((("accept-encoding", "identity"),))
CACHED_ONLY = "/cached-only/"
_FILE = re.compile(r"(?P<version>.+)\.(?P<kind>info|mod|zip)\Z")


class Wanted(Struct, frozen=True):
    """A list of versions, the latest of them, or a file of one.

    `path` is the request's own without percent escapes: what it is called in the upstream and in the catalog.
    `version` may be a branch or a revision where `kind` is info.
    """

    kind: Kind
    module: str
    path: str
    version: str = ""

    @property
    def is_lasting(self) -> bool:
        """Whether the answer is the same for ever: a version names one content of a module."""
        return self.kind in ("info", "mod", "zip") and is_canonical(self.module, self.version)


# Longer requests than ordinary ones are parsed each time: memory is not for strangers to fill.
_MAX_REMEMBERED = 512


def parse(path: str) -> Wanted | Asked:
    """What is asked for by the path of a URL, still escaped. Raises BadRequest, NotFound."""
    return _remembered(path) if len(path) <= _MAX_REMEMBERED else _parse(path)


def read(path: str) -> Wanted:
    """The same by a path without percent escapes, as it is called in the catalog."""
    return _remembered_read(path) if len(path) <= _MAX_REMEMBERED else _read(path)


def _parse(path: str) -> Wanted | Asked:
    if len(path) > MAX_PATH:
        raise BadRequest(f"the path is longer than {MAX_PATH} characters", subject="module")
    path = path.removeprefix(CACHED_ONLY) if path.startswith(CACHED_ONLY) else path.removeprefix("/")
    path = _unquoted(path)
    return sums.read(path) if path.startswith("sumdb/") else read(path)


def _read(path: str) -> Wanted:
    if path.endswith("/@latest"):
        return Wanted("latest", _module(path.removesuffix("/@latest")), path)
    escaped, found, name = path.partition("/@v/")
    if not found:
        message = f"{shown(path)} is no URL of a GOPROXY: those end with /@latest, /@v/list or /@v/<version>.info"
        raise NotFound(f"{message}, .mod or .zip", subject="route")
    module = _module(escaped)
    if name == "list":
        return Wanted("list", module, path)
    return _file(module, name, path)


def is_cached_only(path: str, headers: Headers) -> bool:
    """Whether the client wants nothing fetched for it, as it says to Google's proxy."""
    return path.startswith(CACHED_ONLY) or (headers.get("disable-module-fetch") or "").lower() == "true"


def _file(module: str, name: str, path: str) -> Wanted:
    match = _FILE.match(name)
    if match is None:
        raise NotFound(f"{shown(name)} is neither list nor a version with .info, .mod or .zip behind", subject="route")
    try:
        version = unescape_version(match["version"])
    except ValueError as error:
        raise BadRequest(str(error), subject="version") from None
    kind: Kind = "info" if match["kind"] == "info" else "mod" if match["kind"] == "mod" else "zip"
    if kind != "info" and not is_canonical(module, version):
        raise BadRequest(_not_canonical(module, version, kind), subject="version")
    return Wanted(kind, module, path, version)


def _not_canonical(module: str, version: str, kind: str) -> str:
    right = canonical(version)
    if right and fits(module, version):
        return f"there is a .{kind} of whole versions only: {right} instead of {version}"
    if right:
        return f"{module} cannot have version {version}: from v2 on the major version ends a module's path"
    return f"there is a .{kind} of versions only, and {shown(version)} is none: its .info tells which one it stands for"


def _module(escaped: str) -> str:
    try:
        return unescape_path(escaped)
    except ValueError as error:
        raise BadRequest(str(error), subject="module") from None


def _unquoted(path: str) -> str:
    if "%" not in path:
        return path
    if re.search(r"%(?![0-9A-Fa-f]{2})|%2[Ff]|%00", path):
        raise BadRequest(f"{shown(path)} holds an escape that no module path needs", subject="module")
    # What is not UTF-8 comes out as characters that no path has.
    return unquote_to_bytes(path).decode("utf-8", "replace")


# Builds ask for the same few names over and over.
_remembered = lru_cache(maxsize=4096)(_parse)
_remembered_read = lru_cache(maxsize=4096)(_read)
