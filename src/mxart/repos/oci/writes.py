"""Writes of the registry API: what a request wants, and how the answer says what became of it.

distribution-spec, "Push" and "Content Management"; its main branch for `digest-algorithm` (end-4c), several tags
(end-7b) and cancelling (end-14).  Pure.
"""

from __future__ import annotations

import re
from typing import assert_never
from urllib.parse import parse_qs, quote

from mxart.digest import Digest
from mxart.errors import BadRequest, MethodNotAllowed, UriTooLong
from mxart.message import Headers, Response
from mxart.repos.oci import manifests, media
from mxart.repos.oci.errors import VERSION
from mxart.repos.oci.names import MAX_NAME, check_digest, check_name, is_tag, shown, unescape
from mxart.repos.operations import Facts
from mxart.repos.publishing import (
    Append,
    Begin,
    Cancel,
    Delete,
    Finish,
    Gone,
    Inspection,
    Progress,
    Publish,
    Published,
    Stored,
    Uploading,
    Write,
)

MAX_TAGS = 100  # in one request
_UPLOADS = re.compile(r"(.*)/blobs/uploads/?\Z", re.DOTALL)
_UPLOAD = re.compile(r"(.*)/blobs/uploads/([^/]+)\Z", re.DOTALL)
_FILE = re.compile(r"(.*)/(manifests|blobs)/([^/]*)\Z", re.DOTALL)
_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?\Z")
_READS = ("GET", "HEAD")


def is_upload(below: str) -> bool:
    """Whether this path, below `/v2/`, is about uploads: its reading, too, is no file's."""
    return _UPLOADS.match(below) is not None or _UPLOAD.match(below) is not None


def parse(method: str, below: str, query: str, headers: Headers) -> Write:
    """What a request wants. `below` is its path below `/v2/`, without escapes.

    Raises BadRequest, NotFound, MethodNotAllowed, UriTooLong.
    """
    if match := _UPLOADS.match(below):
        name = check_name(match[1])
        if method != "POST":
            raise _not_allowed(method, "POST")
        return _begin(name, _parameters(query))
    if match := _UPLOAD.match(below):
        return _upload(method, check_name(match[1]), match[2], query, headers)
    match = _FILE.match(below)
    if match is None:
        raise _not_allowed(method, "GET, HEAD")
    name, kind, reference = check_name(match[1]), match[2], match[3]
    path = f"{name}/{kind}/{reference}"
    if kind == "blobs":
        if method != "DELETE":
            raise _not_allowed(method, "GET, HEAD, DELETE")
        return Delete(name, f"{name}/blobs/{check_digest(reference)}", "blob")
    if method not in ("PUT", "DELETE"):
        raise _not_allowed(method, "GET, HEAD, PUT, DELETE")
    digest = check_digest(reference) if ":" in reference else None
    if digest is None and not is_tag(reference):
        raise BadRequest(f"{shown(reference)} is neither a tag nor a digest", subject="reference")
    if method == "DELETE":
        return Delete(name, path, "manifest", str(digest) if digest is not None else "")
    tags = [*([reference] if digest is None else []), *_tags(query)]
    pairs = tuple((tag, f"{name}/manifests/{tag}") for tag in dict.fromkeys(tags))
    conditions = Headers.lowered(tuple(item for item in headers if item[0] in ("if-match", "if-none-match")))
    media_type = media.essence(headers.get("content-type"))
    return Publish(name, "manifest", media_type, digest, pairs, path, conditions)


def _begin(name: str, parameters: dict[str, list[str]]) -> Begin:
    algorithm = _one(parameters, "digest-algorithm")
    if algorithm not in ("", "sha256", "sha512"):
        raise BadRequest(
            f"digest-algorithm {shown(algorithm)} is not known here: use sha256 or sha512", subject="digest"
        )
    if mount := _one(parameters, "mount"):
        digest = check_digest(mount)
        path = f"{name}/blobs/{digest}"
        source = _one(parameters, "from")
        # Longer than any name with a prefix is no name; every part of it would be looked up.
        return Begin(
            name, "blob", algorithm, mount=digest, path=path, source=source if len(source) <= 2 * MAX_NAME else ""
        )
    if wanted := _one(parameters, "digest"):
        digest = check_digest(wanted)
        return Begin(name, "blob", algorithm or digest.algorithm, digest, path=f"{name}/blobs/{digest}")
    return Begin(name, "blob", algorithm)


def _upload(method: str, name: str, upload: str, query: str, headers: Headers) -> Write:
    match method:
        case "GET" | "HEAD":
            return Progress(name, "upload", upload)
        case "PATCH":
            return Append(name, "upload", upload, _start(headers))
        case "PUT":
            digest = check_digest(_one(_parameters(query), "digest"))
            return Finish(name, "upload", upload, f"{name}/blobs/{digest}", digest, _start(headers))
        case "DELETE":
            return Cancel(name, "upload", upload)
        case _:
            raise _not_allowed(method, "GET, HEAD, PATCH, PUT, DELETE")


def _start(headers: Headers) -> int | None:
    """Where Content-Range says that the body begins; None if it says nothing."""
    text = headers.get("content-range")
    if text is None:
        return None
    match = _RANGE.match(text.strip())
    if match is None:
        raise BadRequest(f"Content-Range {shown(text)} is not <first>-<last>, as in 0-1023", subject="upload")
    start, last = int(match[1]), int(match[2])
    length = headers.get("content-length")
    if last < start or (length is not None and length.isdigit() and int(length) != last - start + 1):
        raise BadRequest(
            f"Content-Range {shown(text)} does not fit Content-Length {shown(length or '')}", subject="size"
        )
    return start


def _tags(query: str) -> list[str]:
    if query.count("tag=") > MAX_TAGS:
        raise UriTooLong(f"at most {MAX_TAGS} tags are taken in one request", subject="reference")
    tags = _parameters(query).get("tag", [])
    for tag in tags:
        if not is_tag(tag):
            raise BadRequest(f"{shown(tag)} is not a tag", subject="reference")
    return tags


def _parameters(query: str) -> dict[str, list[str]]:
    if not query:
        return {}
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=MAX_TAGS + 32, errors="strict")
    except ValueError:
        raise BadRequest("the query cannot be read", subject="reference") from None


def _one(parameters: dict[str, list[str]], name: str) -> str:
    values = parameters.get(name, [""])
    if len(values) > 1:
        raise BadRequest(f"give {name} once", subject="digest")
    return values[0]


def _not_allowed(method: str, allowed: str) -> MethodNotAllowed:
    return MethodNotAllowed(f"{shown(method)} is not supported here", subject="route", headers=(("allow", allowed),))


class Pushes:
    """See roles.Pushing. Every Location is under the client's own name, with any prefix of the router's, and `ns`."""

    def accept(self, operation: Publish, data: bytes) -> tuple[str, Facts]:
        facts = manifests.accept(operation.media_type, operation.digest, data)
        return f"{operation.package}/manifests/{facts.digest}", facts

    def inspect(self, package: str, facts: Facts, data: bytes) -> Inspection:
        return manifests.inspect(package, facts, data)

    def outcome(self, operation: Write, outcome: Uploading | Stored | Published, target: str) -> Response:
        path, _, query = target.partition("?")
        here = _Here(path, query)
        match outcome:
            case Uploading():
                fields = (*self.resume(outcome, target), VERSION)
                return Response(204 if isinstance(operation, Progress) else 202, Headers(fields))
            case Stored(digest=digest):
                return _created(here.at(f"/blobs/{digest}"), digest)
            case Published(digest=digest, tags=tags, subject=subject):
                more = [
                    ("oci-tag", tag) for tag in tags if isinstance(operation, Publish) and operation.digest is not None
                ]
                if subject is not None:
                    more.append(("oci-subject", str(subject)))
                return _created(here.at(f"/manifests/{digest}"), digest, *more)
            case _:
                assert_never(outcome)

    def resume(self, at: Uploading, target: str) -> tuple[tuple[str, str], ...]:
        """`0-0` is what registries say of an empty one, too."""
        path, _, query = target.partition("?")
        location = _Here(path, query).at(f"/blobs/uploads/{at.upload}")
        return (("location", location), ("range", f"0-{max(0, at.offset - 1)}"), ("docker-upload-uuid", at.upload))


def gone(operation: Delete | Cancel, outcome: Gone) -> Response:
    """See Format.gone."""
    told = (("warning", f'299 - "{outcome.warning}"'),) if outcome.warning else ()
    return Response(204 if isinstance(operation, Cancel) else 202, Headers((*told, VERSION)))


class _Here:
    """The package, under the name by which the client called it."""

    def __init__(self, path: str, query: str) -> None:
        path = unescape(path)  # it was parsed: nothing in it needs an escape
        self._prefix = path[: max(path.rfind("/blobs/"), path.rfind("/manifests/"))]
        try:
            namespaces = parse_qs(query).get("ns", [])[:1]
        except ValueError:
            namespaces = []
        self._query = "".join(f"?ns={quote(namespace, safe='')}" for namespace in namespaces)

    def at(self, rest: str) -> str:
        return f"{self._prefix}{rest}{self._query}"


def _created(location: str, digest: Digest, *more: tuple[str, str]) -> Response:
    fields = (("location", location), ("docker-content-digest", str(digest)), *more, VERSION)
    return Response(201, Headers(fields))
