"""What Maven's clients run against: releases and snapshots of our own, beside an upstream, in nested groups."""

from __future__ import annotations

from kit.maven_tree import Artifact

BASE = Artifact("com.example", "base", "1.0")
APP = Artifact("com.example", "app", "1.0", (BASE.coordinates,))
"""What the upstream of these tests has beside the real tree."""


def served(upstream: str, more: str = "", *, ttl: int = 3600, options: str = "") -> str:
    """`/maven` is everything, `/releases` and `/snapshots` the local ones; `options` are the proxy's."""
    return f"""
[repository.maven-releases]
format = "maven"
kind = "local"
policy = "releases"
path = "/releases"
[repository.maven-snapshots]
format = "maven"
kind = "local"
policy = "snapshots"
path = "/snapshots"
[repository.hosted]
format = "maven"
kind = "group"
members = ["maven-releases", "maven-snapshots"]
publish_to = ["maven-releases", "maven-snapshots"]
[repository.central]
format = "maven"
kind = "proxy"
upstream = "{upstream}"
ttl = {ttl}
negative_ttl = 600
{options}
[repository.maven]
format = "maven"
kind = "group"
members = ["hosted", "central"]
publish_to = "hosted"
path = "/maven"
{more}
"""
