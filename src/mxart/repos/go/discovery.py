"""What tells the go command where a module is, when it asks the host in the module's path (`GOPROXY=direct`). Pure.

`GET https://example.com/any/path?go-get=1` is to be answered with a page whose `go-import` tells a root, how it is
reached, and where (go.dev/ref/mod, "Finding a repository for a module path").  "mod" says: at this GOPROXY.  The host
itself is the root, so that the page is the same for every module; cmd/go asks for the root's page, too, and
compares.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from mxart.body import Body
from mxart.message import Headers, Response


def answer(query: str, root: str) -> Response | None:
    """The page, if that is what is asked for on a host that is the repository's own; `root` as for Format.parse."""
    if "go-get=1" not in query.split("&"):
        return None
    try:
        url = urlsplit(root)
        host = url.hostname
    except ValueError:  # half an IPv6 address
        return None
    if not host or url.path:
        return None  # by path we are somebody's proxy, and no module is called like that
    content = escape(f"{host} mod {root}", quote=True)
    page = f'<!DOCTYPE html>\n<html><head><meta name="go-import" content="{content}"></head></html>\n'
    fields = (("content-type", "text/html; charset=utf-8"), ("cache-control", "no-cache"))
    return Response(200, Headers(fields), Body((page.encode(),)))
