"""The page of a directory, for people and for the tools that read such pages, as Coursier does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from mxart.message import Headers

_FIELDS = Headers(
    (
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'"),
    )
)


def render(path: str, names: Sequence[str]) -> tuple[Headers, bytes]:
    """A directory's fields and page. Names of directories end with a slash; links are relative."""
    title = f"/{escape(path)}/" if path else "/"
    lines = ["<!DOCTYPE html>", '<html><head><meta charset="utf-8">', f"<title>{title}</title></head><body>"]
    lines += [f"<h1>{title}</h1>", "<pre>"]
    if path:
        lines.append('<a href="../">../</a>')
    lines += [f'<a href="{quote(name, safe="/+~!$@")}">{escape(name)}</a>' for name in names]
    lines += ["</pre>", "</body></html>", ""]
    return _FIELDS, "\n".join(lines).encode()
