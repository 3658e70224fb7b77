"""The list of a package with 10,000 tags, whole: how long does a client wait for it?

One request without `n` on a kept connection, or as many as the answers' Link headers ask for; the time until all
names are there.  docker-registry's repository is laid out on disk as it would lay it out itself.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.harness import Bench, Row
from bench.pushing import REPOSITORY, Target, layer, ours, push
from kit.registry import OCI_MANIFEST, Registry, running

_TAGS = 10_000
_AT_ONCE = 50  # an OCI-Tag header for each, and http.client takes no more than 100 headers


def run(bench: Bench) -> list[Row]:
    """Within 50 ms."""
    names = sorted(f"v1.{number // 100}.{number % 100}" for number in range(_TAGS))
    small = [layer(bench.fresh("layers"), 1 << 10)]
    root = bench.fresh("root")
    registry = Registry(root, bench.fresh("registry"))
    with ours(bench) as (target, _), running(registry):
        push(target, small, way="put")
        push(Target(registry.url), small, way="put")
        _tag_ours(target, names)
        _tag_theirs(root, names)
        measures = {
            "ours": lambda: _listed(target, names),
            "docker-registry": lambda: _listed(Target(registry.url), names),
        }
        found = bench.interleaved(measures)
    milliseconds = found["ours"] * 1000
    return [
        Row(
            f"tags/list of {_TAGS} tags",
            f"{milliseconds:.1f} ms",
            f"docker-registry {found['docker-registry'] * 1000:.1f} ms",
            f"{found['docker-registry'] / found['ours']:.2f}",
            "≤ 50 ms",
            milliseconds <= 50,
        )
    ]


def _connection(target: Target) -> http.client.HTTPConnection:
    parts = urlsplit(target.url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)


def _tag_ours(target: Target, names: list[str]) -> None:
    """Many tags with one request, as the specification's end-7b has it."""
    connection = _connection(target)
    shown = {"Authorization": target.authorization}
    connection.request("GET", f"/v2/{REPOSITORY}/manifests/1", headers={**shown, "Accept": OCI_MANIFEST})
    manifest = connection.getresponse().read()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    for start in range(0, len(names), _AT_ONCE):
        tags = "&".join(f"tag={name}" for name in names[start : start + _AT_ONCE])
        headers = {**shown, "Content-Type": OCI_MANIFEST}
        connection.request("PUT", f"/v2/{REPOSITORY}/manifests/{digest}?{tags}", manifest, headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    connection.request("DELETE", f"/v2/{REPOSITORY}/manifests/1", headers=shown)
    assert connection.getresponse().read() == b""


def _tag_theirs(root: Path, names: list[str]) -> None:
    tags = root / "docker/registry/v2/repositories" / REPOSITORY / "_manifests/tags"
    link = (tags / "1/current/link").read_bytes()
    for name in names:
        (tags / name / "current").mkdir(parents=True)
        (tags / name / "current/link").write_bytes(link)
    for folder in sorted((tags / "1").rglob("*"), reverse=True):
        folder.rmdir() if folder.is_dir() else folder.unlink()
    (tags / "1").rmdir()


def _listed(target: Target, names: list[str]) -> float:
    """Seconds until all names are there."""
    connection = _connection(target)
    connection.connect()
    found: list[str] = []
    path: str | None = f"/v2/{REPOSITORY}/tags/list"
    started = time.perf_counter()
    while path is not None:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        following = re.match(r"<([^>]+)>", answer.getheader("Link") or "")
        found += json.loads(body)["tags"]
        path = following[1] if following else None
    seconds = time.perf_counter() - started
    assert sorted(found) == names
    connection.close()
    return seconds
