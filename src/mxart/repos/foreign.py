"""What an upstream in trouble sends instead of what was asked for: a page, or bytes that are packed."""

from __future__ import annotations

from mxart.errors import UpstreamFailed
from mxart.message import Headers


def refuse_foreign(headers: Headers, subject: str) -> None:
    """Raise UpstreamFailed if a head announces a page, or bytes that are packed although nobody asked for that."""
    essence = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if essence in ("text/html", "application/xhtml+xml"):
        raise UpstreamFailed(f"upstream sent a web page ({essence}) instead of a {subject}", subject=subject)
    encoding = (headers.get("content-encoding") or "").strip().lower()
    if encoding not in ("", "identity"):
        message = f"upstream sent a {subject} that is packed ({encoding}), and was asked for one that is not"
        raise UpstreamFailed(message, subject=subject)
