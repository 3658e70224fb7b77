"""What an upstream registry sends is judged before it is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.repos import manifest
from mxart.digest import Digest
from mxart.errors import UpstreamFailed
from mxart.message import Headers
from mxart.repos.oci import media
from mxart.repos.oci.format import Oci
from mxart.repos.operations import Blob, Document, Listing

OCI = Oci()
TAG = Document("a", "a/manifests/b", "manifest", mutable=True, tag="b")
LIST = Listing("a", "a/tags/list", "name", "tags")
SCHEMA1 = b'{"schemaVersion": 1, "name": "a", "signatures": []}'


def check(data: bytes, *fields: tuple[str, str], document: Document = TAG) -> tuple[Digest | None, str]:
    facts = OCI.check(document, Headers(fields), data)
    return facts.digest, facts.media_type


@pytest.mark.parametrize("kind", [media.INDEX, media.MANIFEST, media.DOCKER_LIST, media.DOCKER_MANIFEST])
def test_the_four_types_are_passed_on_under_their_own_name(kind: str) -> None:
    data = manifest(media_type=kind)
    assert check(data, ("content-type", kind)) == (Digest.of(data), kind)
    assert check(data, ("content-type", kind.upper() + " ; charset=utf-8")) == (Digest.of(data), kind)


@pytest.mark.parametrize("says", ["", "application/json", "application/octet-stream", "text/plain; charset=utf-8"])
def test_a_content_type_that_says_nothing_is_read_from_the_document(says: str) -> None:
    fields = [("content-type", says)] if says else []
    assert check(manifest(media_type=media.DOCKER_LIST), *fields)[1] == media.DOCKER_LIST
    assert check(b'{"schemaVersion": 2, "manifests": []}', *fields)[1] == media.INDEX
    assert check(b'{"schemaVersion": 2, "config": {}, "layers": []}', *fields)[1] == media.MANIFEST
    assert check(SCHEMA1, *fields)[1] == media.SIGNED_SCHEMA1
    for nothing in (b"{}", b'{"schemaVersion": 2}', b'{"schemaVersion": 2, "config": {}}', b'{"mediaType": 7}'):
        with pytest.raises(UpstreamFailed):
            check(nothing, *fields)


def test_a_schema_1_manifest_passes_although_its_digest_is_not_that_of_its_bytes() -> None:
    fields = [("content-type", media.SIGNED_SCHEMA1), ("docker-content-digest", "sha256:" + "1" * 64)]
    assert check(SCHEMA1, *fields) == (Digest.of(SCHEMA1), media.SIGNED_SCHEMA1)


def test_a_type_nobody_knows_yet_passes_untouched() -> None:
    data = b'{"anything": 1}'
    assert check(data, ("content-type", "application/vnd.oci.artifact.manifest.v1+json"))[0] == Digest.of(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (manifest(media_type=media.INDEX), media.MANIFEST),
        (manifest(), "application/vnd.unknown+json"),
        (manifest(), "text/html"),
        (manifest(), media.SIGNED_SCHEMA1),
        (b'{"schemaVersion": "2"}', media.MANIFEST),
        (b'{"schemaVersion": 1}', media.MANIFEST),
        (b'{"schemaVersion": 2, "mediaType": "x\\ny"}', ""),
        (b"\xff\xfe", media.MANIFEST),
        (b"null", media.MANIFEST),
        (manifest() + b"x", media.MANIFEST),
    ],
)
def test_what_contradicts_itself_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(UpstreamFailed):
        check(data, ("content-type", kind))


def test_the_digest_that_upstream_claims_must_be_right() -> None:
    for wrong in (Digest.of(b"other"), Digest.of(b"other", "sha512")):
        with pytest.raises(UpstreamFailed):
            check(manifest(), ("content-type", media.MANIFEST), ("docker-content-digest", str(wrong)))
    # One that we cannot compute says nothing.
    check(manifest(), ("content-type", media.MANIFEST), ("docker-content-digest", "blake3:abc"))


@given(st.binary(max_size=200))
def test_any_bytes_are_judged(data: bytes) -> None:
    try:
        digest, kind = check(data, ("content-type", "application/json"))
    except UpstreamFailed:
        return
    assert digest == Digest.of(data)
    assert "/" in kind


def test_a_head_about_another_digest_is_refused() -> None:
    digest = Digest.of(b"x")
    blob = Blob("a", f"a/blobs/{digest}", "blob", digest)
    with pytest.raises(UpstreamFailed):
        OCI.facts(blob, Headers((("docker-content-digest", str(Digest.of(b"y"))),)))
    facts = OCI.facts(blob, Headers((("content-length", "1"), ("content-type", "text/x-evil"))))
    assert (facts.size, facts.media_type, facts.digest) == (1, media.BLOB, digest)
    for length in ("-1", "x", "9" * 30):
        assert OCI.facts(blob, Headers((("content-length", length),))).size is None


@pytest.mark.parametrize(
    ("link", "following"),
    [
        ('</v2/a/tags/list?last=x&n=50>; rel="next"', "last=x&n=50"),
        ("<https://inner.example:5000/v2/a/tags/list?n=50&last=x>;rel=next", "n=50&last=x"),
        ('</prev?x=1>; rel="prev", <?last=y> ; title="a, b" ; REL="next"', "last=y"),
        ("</v2/a/tags/list?last=a b\xe4>; rel=next", "last=a%20b%C3%A4"),
        ("<http://[broken?last=z>; rel=next", "last=z"),
        ('</v2/a/tags/list>; rel="next"', ""),
        ('</v2/a/tags/list?last=x>; rel="last"', None),
        ("garbage", None),
    ],
)
def test_the_next_page_of_upstreams_list_is_found(link: str, following: str | None) -> None:
    page = OCI.paging.page(LIST, Headers((("link", link),)), b'{"name": "a", "tags": ["x"]}')
    assert page.names == ("x",)
    assert page.following == following


def test_the_next_page_is_asked_at_the_same_place_with_the_same_scope() -> None:
    ask = OCI.paging.ask_page(LIST, "last=x")
    assert (ask.path, ask.scope) == ("v2/a/tags/list?last=x", "repository:a:pull")
    assert OCI.paging.ask_page(LIST, None).path == "v2/a/tags/list"


@pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b'{"tags": [1]}', json.dumps({"tags": "x"}).encode()])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        OCI.paging.page(LIST, Headers(), data)


def test_no_tags_is_an_empty_list() -> None:
    assert OCI.paging.page(LIST, Headers(), b'{"name": "a", "tags": null}').names == ()
