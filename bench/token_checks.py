"""What showing who one is costs: a warm manifest by tag with credentials, against the same as anybody.

One worker, 16 connections, HTTP/1.1.  A user's password and an API token by Basic, an API token and a JWT of our
token server by Bearer.  All are checked with every request: a user who is deleted meanwhile is refused.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from bench.harness import Bench, Row, wrk
from bench.pushing import REPOSITORY, Target, layer, ours, push
from kit.pushes import mxart_command
from kit.registry import OCI_MANIFEST
from kit.servers import Mxart


def run(bench: Bench) -> list[Row]:
    """Each at least 0.9 of what anybody gets."""
    with ours(bench, workers=1) as (target, server):
        push(target, [layer(bench.fresh("layers"), 1 << 10)], way="put")
        url = f"{target.url}/v2/{REPOSITORY}/manifests/1"
        token = _api_token(server)
        by_basic = base64.b64encode(f"admin:{token}".encode()).decode()
        shown = {
            "password, Basic": target.authorization,
            "API token, Basic": f"Basic {by_basic}",
            "API token, Bearer": f"Bearer {token}",
            "JWT, Bearer": f"Bearer {_jwt(target)}",
        }
        measures = {"anybody": lambda: wrk(url, bench.seconds, 16, f"Accept: {OCI_MANIFEST}")}
        for name, value in shown.items():
            measures[name] = lambda value=value: wrk(
                url, bench.seconds, 16, f"Accept: {OCI_MANIFEST}", f"Authorization: {value}"
            )
        found = bench.interleaved(measures)
    anybody = found.pop("anybody")
    return [
        Row(
            f"warm manifest, one worker, {name}",
            f"{value:,.0f} req/s",
            f"anybody {anybody:,.0f} req/s",
            f"{value / anybody:.2f}",
            "≥ 0.9",
            value / anybody >= 0.9,
        )
        for name, value in found.items()
    ]


def _api_token(server: Mxart) -> str:
    """A token of the administrator's, as the command prints it."""
    printed = mxart_command(server, "token", "create", "--user", "admin", "--name", "bench")
    found = re.search(r"mxt_\S+", printed)
    assert found, printed
    return found[0]


def _jwt(target: Target) -> str:
    """What a client gets that logs in to pull."""
    query = urlencode({"service": target.url.partition("//")[2], "scope": f"repository:{REPOSITORY}:pull"})
    asked = Request(f"{target.url}/-/token?{query}", headers={"Authorization": target.authorization})
    with urlopen(asked, timeout=20) as answer:
        return str(json.loads(answer.read())["token"])
