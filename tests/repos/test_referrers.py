"""Referrers as an operation: what a request means, how an answer looks, how lists are cut and united."""

from __future__ import annotations

import json

import pytest

from kit.repos import body_of, code_of, request
from mxart.digest import Digest
from mxart.errors import BadRequest
from mxart.message import Headers, Trace
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.oci.format import Oci
from mxart.repos.operations import Descriptor, Document, Referred, Referrers
from mxart.repos.referring import MAX_PAGE, cut

SUBJECT = Digest.of(b"subject")
SIGNATURE, SBOM = "application/vnd.example.signature", "application/vnd.example.sbom"
INDEX = "application/vnd.oci.image.index.v1+json"


def descriptor(mark: str, artifact_type: str = SIGNATURE, note: str = "") -> Descriptor:
    digest = Digest.of(mark.encode())
    fields = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": str(digest),
        "size": 7,
        "artifactType": artifact_type,
        "annotations": {"mark": mark, "note": note},
        "unknown": [1],
    }
    return Descriptor(digest, 7, str(fields["mediaType"]), artifact_type, json.dumps(fields).encode())


def wanted(target: str) -> Referrers:
    path, _, query = target.partition("?")
    operation = Oci().parse("GET", path, query, Headers())
    assert isinstance(operation, Referrers)
    return operation


class Known(Local):
    """A repository whose referrers are given."""

    def __init__(self, name: str, *descriptors: Descriptor, warning: str = "") -> None:
        self.name, self.format = name, Oci()
        self._descriptors, self._warning = descriptors, warning

    def owns(self, package: str) -> bool:
        return False

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        trace.outcome = "local"
        return cut(self._descriptors, operation, self._warning)


async def pages(repository: Repository, target: str) -> list[list[dict[str, object]]]:
    """Every page, by our own links."""
    found: list[list[dict[str, object]]] = []
    following: str | None = target
    while following is not None:
        asked = request("GET", following)
        operation = repository.format.parse("GET", asked.path, asked.query, asked.headers)
        response = await answer(repository, operation, asked)
        assert (response.status, response.headers.get("content-type")) == (200, INDEX)
        index = json.loads(await body_of(response))
        assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
        found.append(index["manifests"])
        link = response.headers.get("link")
        following = link[1 : link.index(">")] if link else None
    return found


def marks(items: list[dict[str, object]]) -> set[str]:
    return {item["annotations"]["mark"] for item in items}  # type: ignore[index] # as descriptor() made them


def test_a_request_names_a_subject_and_perhaps_a_type() -> None:
    operation = wanted(f"/v2/a/referrers/b/referrers/{SUBJECT}?artifactType=application/x%2Bjson&n=3&last=sha256:0")
    assert (operation.package, operation.digest) == ("a/referrers/b", SUBJECT)
    assert (operation.artifact_type, operation.limit, operation.after) == ("application/x+json", 3, "sha256:0")
    assert operation.path == f"a/referrers/b/referrers/{SUBJECT}"
    assert wanted(f"/v2/a/referrers/{str(SUBJECT).replace(':', '%3A')}").digest == SUBJECT


@pytest.mark.parametrize(
    "target",
    [
        "/v2/a/referrers/latest",
        "/v2/a/referrers/sha256:0",
        "/v2/a/referrers/md5:00",
        f"/v2/A/referrers/{SUBJECT}",
        f"/v2/../referrers/{SUBJECT}",
        f"/v2/a/referrers/{SUBJECT}?n=-1",
        f"/v2/a/referrers/{SUBJECT}?artifactType=a%0Ab",
        f"/v2/a/referrers/{SUBJECT}?artifactType=a/b&artifactType=c/d",
    ],
)
def test_what_is_no_question_is_refused(target: str) -> None:
    with pytest.raises(BadRequest):
        wanted(target)


def test_a_name_may_still_end_in_the_word() -> None:
    operation = Oci().parse("GET", "/v2/a/referrers/manifests/1", "", Headers())
    assert isinstance(operation, Document)
    assert operation.package == "a/referrers"


async def test_descriptors_come_as_they_were_and_in_order() -> None:
    known = [descriptor("b"), descriptor("a", SBOM)]
    (page,) = await pages(Known("one", *known), f"/v2/x/referrers/{SUBJECT}")
    assert page == sorted((json.loads(item.json) for item in known), key=lambda item: str(item["digest"]))


async def test_a_filter_is_applied_and_said() -> None:
    one = Known("one", descriptor("a"), descriptor("b", SBOM))
    asked = request("GET", f"/v2/x/referrers/{SUBJECT}?artifactType={SBOM}")
    response = await answer(one, one.format.parse("GET", asked.path, asked.query, asked.headers), asked)
    assert response.headers.get("oci-filters-applied") == "artifactType"
    assert marks(json.loads(await body_of(response))["manifests"]) == {"b"}
    asked = request("GET", f"/v2/x/referrers/{SUBJECT}")
    response = await answer(one, one.format.parse("GET", asked.path, asked.query, asked.headers), asked)
    assert response.headers.get("oci-filters-applied") is None


async def test_pages_hold_what_was_asked_for_and_keep_the_filter_and_the_prefix() -> None:
    one = Known("one", *(descriptor(str(n), SBOM if n % 2 else SIGNATURE) for n in range(9)))
    found = await pages(one, f"/v2/x/referrers/{SUBJECT}?n=2&artifactType={SBOM}&ns=docker.io")
    assert [len(page) for page in found] == [2, 2]
    assert set().union(*map(marks, found)) == {"1", "3", "5", "7"}
    (page,) = await pages(one, f"/v2/x/referrers/{SUBJECT}?n=0")
    assert page == []


async def test_an_answer_is_never_larger_than_clients_read() -> None:
    many = Known("one", *(descriptor(str(n), note="x" * (1 << 20)) for n in range(9)))
    found = await pages(many, f"/v2/x/referrers/{SUBJECT}")
    assert [len(page) for page in found] == [3, 3, 3]
    huge = Known("one", descriptor("a", note="x" * MAX_PAGE), descriptor("b"))
    assert [len(page) for page in await pages(huge, f"/v2/x/referrers/{SUBJECT}")] == [1, 1]


async def test_a_group_unites_its_members_by_digest() -> None:
    again = descriptor("b", note="of the second")
    both = Group("all", Oci(), [Known("one", descriptor("a"), descriptor("b")), Known("two", again, descriptor("c"))])
    (page,) = await pages(both, f"/v2/x/referrers/{SUBJECT}")
    assert marks(page) == {"a", "b", "c"}
    assert not [item for item in page if item["annotations"]["note"]]  # type: ignore[index]


async def test_a_group_pages_over_members_that_page() -> None:
    members = [
        Known("one", *(descriptor(f"one{n}") for n in range(7))),
        Known("two", *(descriptor(f"two{n}") for n in range(3))),
        Known("three", *(descriptor(f"large{n}", note="x" * (3 << 20)) for n in range(4))),
    ]
    for target in (f"/v2/x/referrers/{SUBJECT}?n=2", f"/v2/x/referrers/{SUBJECT}"):
        found = await pages(Group("all", Oci(), members), target)
        assert sum(map(len, found)) == 14
        assert len(set().union(*map(marks, found))) == 14
        digests = [str(item["digest"]) for page in found for item in page]
        assert digests == sorted(digests)


async def test_a_stale_members_warning_is_the_groups() -> None:
    both = Group("all", Oci(), [Known("one"), Known("two", descriptor("a"), warning='111 - "old"')])
    asked = request("GET", f"/v2/x/referrers/{SUBJECT}")
    response = await answer(both, both.format.parse("GET", asked.path, asked.query, asked.headers), asked)
    assert response.headers.get("warning") == '111 - "old"'


def test_an_error_about_a_subject_has_a_code_of_the_registry_api() -> None:
    with pytest.raises(BadRequest) as caught:
        wanted("/v2/a/referrers/sha256:0")
    assert code_of(Oci().word(caught.value)) == "DIGEST_INVALID"
