"""A group that takes pushes, in the whole program: beside a real registry, and with another instance behind it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kit.registry import OCI_INDEX, Blob, Image, Registry, image, running, tar
from kit.servers import Mxart, mxart
from test_referrers_program import EMPTY, SBOM, SIGNATURE, about, attach, proxy

CONFIG = """
[repository.own]
format = "oci"
kind = "local"
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "{}"
path = "/hub"
ttl = 0
negative_ttl = 0
[repository.inner]
format = "oci"
kind = "group"
members = ["hub", "own"]
publish_to = "own"
[repository.all]
format = "oci"
kind = "group"
path = "/all"
members = ["inner"]
publish_to = "inner"
"""


@dataclass(frozen=True)
class Told:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Chain:
    """`far` asks the group of `near`, which has a member that asks the registry."""

    registry: Registry
    tool: Image
    near: Mxart
    far: Mxart

    def say(self, method: str, path: str, blob: Blob | None = None, *, at: Mxart | None = None) -> Told:
        """As the administrator who publishes at `near`, unless it is for reading."""
        server = at or self.near
        fields = {"Content-Type": blob.media_type} if blob is not None else {}
        if method not in ("GET", "HEAD") or "/blobs/uploads/" in path:
            password = (server.data / "admin-password").read_text().strip()
            fields["Authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, blob.data if blob is not None else None, fields)
            got = connection.getresponse()
            return Told(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def push(self, name: str, reference: str, manifest: Blob, *blobs: Blob) -> Told:
        for blob in blobs:
            begun = self.say("POST", f"/v2/{name}/blobs/uploads/")
            assert begun.status == 202, begun
            location = begun.headers["location"]
            assert location.startswith(f"/v2/{name}/blobs/uploads/")
            assert self.say("PATCH", location, Blob("application/octet-stream", blob.data)).status == 202
            assert self.say("PUT", f"{location}?digest={blob.digest}").status == 201
        return self.say("PUT", f"/v2/{name}/manifests/{reference}", manifest)

    def referrers(self, name: str, subject: Blob, at: Mxart | None = None) -> set[str]:
        told = self.say("GET", f"/v2/{name}/referrers/{subject.digest}", at=at)
        assert (told.status, told.headers["content-type"]) == (200, OCI_INDEX), told
        return {item["digest"] for item in json.loads(told.body)["manifests"]}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    tmp_path = tmp_path_factory.mktemp("group")
    tool = image(tar({"etc/tool": b"tool\n"}))
    with running(Registry(tmp_path / "root", tmp_path / "registry")) as registry:
        registry.publish_image("team/tool", "1", tool)
        with (
            mxart(tmp_path / "near", CONFIG.format(registry.url), workers=2) as near,
            mxart(tmp_path / "far", proxy(near.url)) as far,
        ):
            yield Chain(registry, tool, near, far)


def test_what_is_pushed_to_a_group_of_groups_is_read_there_at_once_by_every_worker(chain: Chain) -> None:
    app = image(tar({"etc/app": b"app\n"}))
    for tag in ("1", "2"):
        told = chain.push("all/team/app", tag, app.manifest, *app.blobs)
        assert (told.status, told.headers["location"]) == (201, f"/v2/all/team/app/manifests/{app.manifest.digest}")
        for _ in range(8):  # each on a connection of its own
            told = chain.say("GET", f"/v2/all/team/app/manifests/{tag}")
            assert (told.status, told.body) == (200, app.manifest.data)
    for at, name in ((chain.near, "all/team/app"), (chain.far, "hub/all/team/app")):
        told = chain.say("GET", f"/v2/{name}/tags/list", at=at)
        assert json.loads(told.body)["tags"] == ["1", "2"]
        for blob in app.blobs:
            assert chain.say("GET", f"/v2/{name}/blobs/{blob.digest}", at=at).body == blob.data
    # No word of it to the registry.
    assert not [line for line in chain.registry.asked() if "team/app" in line.path]
    assert chain.say("DELETE", f"/v2/all/team/app/manifests/{app.manifest.digest}").status == 202
    for _ in range(8):
        assert chain.say("GET", "/v2/all/team/app/manifests/1").status == 404


def test_signatures_of_an_upstreams_image_are_united_and_the_image_stays(chain: Chain) -> None:
    subject = chain.tool.manifest
    theirs, ours = about(subject, SBOM, "theirs"), about(subject, SIGNATURE, "ours")
    attach(chain.registry, "team/tool", subject, theirs)
    told = chain.push("all/team/tool", ours.digest, ours, EMPTY)
    assert (told.status, told.headers["oci-subject"]) == (201, subject.digest)
    both = {theirs.digest, ours.digest}
    for at, name in ((chain.near, "all/team/tool"), (chain.far, "hub/all/team/tool")):
        assert chain.referrers(name, subject, at) == both
        for artifact in (theirs, ours):
            assert chain.say("GET", f"/v2/{name}/manifests/{artifact.digest}", at=at).body == artifact.data
        assert chain.say("GET", f"/v2/{name}/manifests/1", at=at).body == subject.data
    assert chain.referrers("hub/team/tool", subject) == {theirs.digest}
    # Deleted through the group: what is ours is gone from the list at once.
    assert chain.say("DELETE", f"/v2/all/team/tool/manifests/{ours.digest}").status == 202
    assert chain.referrers("all/team/tool", subject) == {theirs.digest}


def test_a_proxy_takes_nothing_and_says_what_does(chain: Chain) -> None:
    told = chain.say("POST", "/v2/hub/team/tool/blobs/uploads/")
    assert (told.status, b"publish_to" in told.body) == (405, True)


def test_nobody_pushes_without_a_login(chain: Chain) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", chain.near.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v2/all/team/app/blobs/uploads/")
        got = connection.getresponse()
        assert (got.status, got.getheader("WWW-Authenticate", "")[:6]) == (401, "Bearer")
        assert b"UNAUTHORIZED" in got.read()
