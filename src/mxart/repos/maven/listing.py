"""The page of a directory, for people and for the tools that read such pages, as Coursier does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from mxart.message import Headers
from mxart.repos.operations import Directory, Entry

_SAFE = "+~!$@"

_FIELDS = Headers(
    (
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'"),
    )
)


class Pages:
    """See roles.Browsing."""

    def render_directory(self, directory: Directory, entries: Sequence[Entry], target: str) -> tuple[Headers, bytes]:
        """Names of directories end with a slash; links are relative."""
        path = directory.path
        title = f"/{escape(path)}/" if path else "/"
        lines = ["<!DOCTYPE html>", '<html><head><meta charset="utf-8">', f"<title>{title}</title></head><body>"]
        lines += [f"<h1>{title}</h1>", "<pre>"]
        if path:
            lines.append('<a href="../">../</a>')
        lines += [_line(entry) for entry in entries]
        lines += ["</pre>", "</body></html>", ""]
        return _FIELDS, "\n".join(lines).encode()


def _line(entry: Entry) -> str:
    if entry.size is None:
        return f'<a href="{quote(entry.name, safe=_SAFE)}/">{escape(entry.name)}/</a>'
    when = datetime.fromtimestamp(entry.modified, UTC).strftime("%Y-%m-%d %H:%M")
    name = f'<a href="{quote(entry.name, safe=_SAFE)}">{escape(entry.name)}</a>'
    return f"{name}{' ' * max(1, 60 - len(entry.name))}{when} {entry.size:>12}"
