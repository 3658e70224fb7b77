"""What upstreams answer with, judged: `.info`, `.mod`, `@latest` and lists of versions. Pure.

A proxy in trouble often answers with a page, or with bytes that are still packed; nothing of that is passed on.
"""

from __future__ import annotations

import re

import msgspec

from mxart.errors import UpstreamFailed
from mxart.repos.go.paths import shown
from mxart.repos.go.requests import Wanted
from mxart.repos.go.versions import is_canonical, is_version

# Nobody has released that often; a longer list would keep a worker from everybody else.
MAX_VERSIONS = 50_000
_GZIP = b"\x1f\x8b"
# A module directive, in its short form or in that of a block (go.dev/ref/mod, "module directive").
_DIRECTIVE = re.compile(rb"^[ \t]*module(?:[ \t]+\S|[ \t]*\()", re.MULTILINE)


class _Info(msgspec.Struct):
    Version: str
    Time: str | None = None


_info = msgspec.json.Decoder(_Info)


def check(wanted: Wanted, data: bytes) -> None:
    """Judge a whole document. Raises UpstreamFailed."""
    if data.startswith(_GZIP):
        raise _failed(wanted, "gzip data")
    if wanted.kind == "mod":
        _check_mod(wanted, data)
    else:
        _check_info(wanted, data)


def _check_mod(wanted: Wanted, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise _failed(wanted, "something that is no text") from None
    if data.lstrip()[:1] == b"<" or _DIRECTIVE.search(data) is None:
        raise _failed(wanted, "something without a module directive")


def _check_info(wanted: Wanted, data: bytes) -> None:
    try:
        found = _info.decode(data).Version
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise _failed(wanted, 'something that is no JSON object with a "Version"') from None
    if wanted.is_lasting and found != wanted.version:
        raise _failed(wanted, f"that of version {shown(found)}")
    if not is_canonical(wanted.module, found):
        raise _failed(wanted, f"version {shown(found)}, which {wanted.module} cannot have")


def version(data: bytes) -> str:
    """The version that a checked `.info` is about."""
    return _info.decode(data).Version


def versions(data: bytes, subject: str) -> tuple[str, ...]:
    """The versions of a list; a time behind one is of no use. Raises UpstreamFailed if it is no list.

    Lines that name no version are passed over, as cmd/go does, unless there are no others.
    """
    try:
        lines = [line.split()[0] for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UpstreamFailed("upstream's list of versions is no text", subject=subject) from None
    if len(lines) > MAX_VERSIONS:
        message = f"upstream's list has {len(lines)} versions; at most {MAX_VERSIONS} are taken"
        raise UpstreamFailed(message, subject=subject)
    found = tuple(dict.fromkeys(line for line in lines if is_version(line)))
    if lines and not found:
        raise UpstreamFailed(f"upstream's list of versions names none: {shown(lines[0])}", subject=subject)
    return found


def _failed(wanted: Wanted, sent: str) -> UpstreamFailed:
    name = wanted.module if wanted.kind == "latest" else f"{wanted.module}@{wanted.version}"
    of = "@latest" if wanted.kind == "latest" else f".{wanted.kind}"
    return UpstreamFailed(f"upstream answered for {of} of {name} with {sent}", subject=wanted.kind)
