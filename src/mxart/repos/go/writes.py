"""Publishing modules: `PUT …/@v/<version>.zip`, from which everything else follows, and deleting a version. Pure.

There is no standard for this.  The URL is the one that the file is read by; its `.mod` and `.info` come with it.  Two
more are taken, of which the zip itself tells the module: `PUT …/upload`, as Gitea has it, and `PUT …/<version>.zip`, as
Nexus has it.
"""

from __future__ import annotations

import json
import re
import time
from typing import BinaryIO
from urllib.parse import unquote

from mxart.body import Body
from mxart.errors import BadRequest, MethodNotAllowed
from mxart.message import Headers, Response
from mxart.repos.go import gomod
from mxart.repos.go.archives import BadArchive, entries, pieces
from mxart.repos.go.errors import TEXT
from mxart.repos.go.paths import escape, shown
from mxart.repos.go.requests import Wanted, read
from mxart.repos.go.requests import parse as parse_path
from mxart.repos.go.sums import Asked
from mxart.repos.go.versions import major, pseudo_time
from mxart.repos.go.zips import MAX_ZIP, BadModule, check_zip
from mxart.repos.publishing import Delete, Derived, Gone, Judgement, Release, Released, Write
from mxart.store.base import Unjudged

MAX_MOD = 4 << 20
"""Bytes of a published go.mod: it is served from memory."""
ALLOW = "GET, HEAD, PUT, DELETE"
_INCOMPATIBLE = "+incompatible"
_ANONYMOUS = re.compile(r"/(?:upload|(?P<version>v[^/]+)\.zip)\Z")


def parse(method: str, path: str) -> Write:
    """What a client wants to be done, by the path of a URL, still escaped.

    Raises MethodNotAllowed, BadRequest, NotFound.
    """
    if method not in ("PUT", "DELETE"):
        raise MethodNotAllowed("modules are read, and published by PUT", subject="route", headers=(("allow", ALLOW),))
    if method == "PUT" and (match := _ANONYMOUS.match(path)) is not None:
        return Release("", "", "zip", MAX_ZIP, unquote(match["version"] or ""))
    wanted = parse_path(path)
    if isinstance(wanted, Asked):
        message = "what a checksum database says is only read: GET and HEAD"
        raise MethodNotAllowed(message, subject="sumdb", headers=(("allow", "GET, HEAD"),))
    if wanted.kind != "zip":
        message = f"a version is published, and deleted, by its .zip: {method} …/@v/v1.2.3.zip; the others follow"
        raise MethodNotAllowed(message, subject="route", headers=(("allow", "GET, HEAD"),))
    base = wanted.path.removesuffix(".zip")
    if method == "DELETE":
        return Delete(wanted.module, wanted.path, "zip", beside=(f"{base}.mod", f"{base}.info"))
    _refuse_incompatible(wanted.version)
    return Release(wanted.module, wanted.path, "zip", MAX_ZIP)


def _refuse_incompatible(version: str) -> None:
    if version.endswith(_INCOMPATIBLE) and major(version) in ("v0", "v1"):
        right = version.removesuffix(_INCOMPATIBLE)
        message = f"there is no {version}: v0 and v1 are never {_INCOMPATIBLE}, it is {right}"
        raise BadRequest(message, subject="version")


class Releases:
    """See roles.Releasing."""

    def release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        name = "a module"
        try:
            wanted = read(operation.path or _path_within(unjudged.file, unjudged.size, operation.version))
            name = f"{wanted.module}@{wanted.version}"
            _refuse_incompatible(wanted.version)
            checksum = check_zip(unjudged.file, unjudged.size, wanted.module, wanted.version)
            mod = _mod(unjudged.file, unjudged.size, wanted)
        except (BadModule, BadArchive) as error:
            raise BadRequest(f"this is no zip of {name}: {error}", subject="zip") from None
        base = wanted.path.removesuffix(".zip")
        info = json.dumps(
            {"Version": wanted.version, "Time": _time(wanted.version, now)}, separators=(",", ":")
        ).encode()
        derived = (Derived(f"{base}.mod", TEXT, mod), Derived(f"{base}.info", "application/json", info))
        # The version's own name is no path that anybody can ask for.
        return Judgement(wanted.module, wanted.path, checksum, "application/zip", (wanted.version, base), derived)

    def released(self, operation: Release, outcome: Released) -> Response:
        word = "published" if outcome.new else "published before, the same"
        return _text(201 if outcome.new else 200, f"{word}: {outcome.checksum}\n")


def _path_within(file: BinaryIO, size: int, version: str) -> str:
    """The path of a zip by what it holds. Raises BadModule, BadArchive."""
    found = entries(file, size)
    if not found:
        raise BadModule("it holds no files")
    first = found[0].name
    module, at, rest = first.partition("@")
    told, slash, _ = rest.partition("/")
    if not at or not slash:
        raise BadModule(f"it holds {shown(first)}: everything in it has to begin with <module>@<version>/")
    if version not in ("", told):
        raise BadModule(f"it is one of version {shown(told)}, not {shown(version)}")
    return f"{escape(module)}/@v/{escape(told)}.zip"


def _mod(file: BinaryIO, size: int, wanted: Wanted) -> bytes:
    """The go.mod within, or the one that stands for none. Raises BadModule."""
    found = entries(file, size)
    if not any(not entry.name.endswith("/") for entry in found):
        raise BadModule("it holds no files")
    name = f"{wanted.module}@{wanted.version}/go.mod"
    entry = next((entry for entry in found if entry.name == name), None)
    if entry is None:
        return f"module {wanted.module}\n".encode()
    if wanted.version.endswith(_INCOMPATIBLE):
        raise BadModule(f"it has a go.mod, so no version of it is {_INCOMPATIBLE}: its path has to end with /v2 or so")
    if entry.size > MAX_MOD:
        raise BadModule(f"its go.mod has {entry.size} bytes; at most {MAX_MOD} are taken")
    data = b"".join(pieces(file, entry))
    try:
        module = gomod.read(data).module
    except ValueError:
        raise BadModule("its go.mod is no text") from None
    if module != wanted.module:
        says = f"is that of {shown(module)}" if module else "names no module"
        raise BadModule(f"its go.mod {says}, not of {wanted.module}")
    return data


def _time(version: str, now: float) -> str:
    """When a commit was made, as its version says; else now."""
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", pseudo_time(version))
    if match is not None:
        return "{}-{}-{}T{}:{}:{}Z".format(*match.groups())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def deleted(outcome: Gone) -> Response:
    """See Format.gone."""
    return _text(200, f"deleted: {outcome.warning}\n" if outcome.warning else "deleted\n")


def _text(status: int, text: str) -> Response:
    fields = (("content-type", TEXT), ("cache-control", "no-store"))
    return Response(status, Headers(fields), Body((text.encode(),)))
