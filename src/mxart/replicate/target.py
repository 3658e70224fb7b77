"""A registry that is written to: the requests of distribution-spec, "Pushing", and what their answers mean."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec
from msgspec import Struct

from mxart.digest import Digest
from mxart.errors import NotFound, UpstreamDenied, UpstreamFailed
from mxart.message import Headers
from mxart.replicate.manifests import MAX_MANIFEST, Manifest, referrers_tag
from mxart.repos.oci import media
from mxart.upstream.base import Ask, Upstream
from mxart.upstream.payload import Outgoing

# What is the target's word on the question itself. A limit (429) and troubles of the way are the upstream's affair.
_SAID = (204, *(status for status in range(400, 429) if status not in (407, 408, 425)), 431, 451, 501, 507)
_RANGE = re.compile(r"(?:bytes[ =])?0-(\d{1,18})\Z")
_BLOB = (("content-type", media.BLOB), ("accept-encoding", "identity"))
_SAYING_BYTES = 65536


class _Said(msgspec.Struct):
    code: str = ""
    message: str = ""
    detail: object = None


class _Errors(msgspec.Struct):
    errors: list[_Said] = []


class Refused(UpstreamFailed):
    """The target understood, and will not. `said` is its status, `codes` are those of its error body."""

    def __init__(self, message: str, said: int, codes: tuple[str, ...]) -> None:
        super().__init__(message)
        self.said = said
        self.codes = codes

    @property
    def rights(self) -> bool:
        """Whether it is about who asks."""
        return self.said in (401, 403)


class Begun(Struct, frozen=True):
    """An upload. `location` "": there is nothing to upload, the blob was mounted."""

    location: str
    chunk: int = 0  # the least size of a chunk but the last, in bytes


class _Answer(Struct, frozen=True):
    status: int
    headers: Headers
    located: str
    data: bytes


class Target:
    """One repository of a registry."""

    def __init__(self, upstream: Upstream, name: str) -> None:
        self._upstream = upstream
        self._name = name
        self._lists_referrers: bool | None = None

    @property
    def place(self) -> str:
        """What it is called in messages and remembered by."""
        return f"{self._upstream.name}/{self._name}"

    async def has_blob(self, digest: Digest) -> bool:
        """Raises Problems, as everything here does; Refused is one."""
        answer = await self._ask("HEAD", f"blobs/{digest}")
        if answer.status == 404:
            return False
        self._good(answer, "HEAD", f"blobs/{digest}")
        return True

    async def lends(self, digest: Digest, name: str) -> bool:
        """Whether another repository of the same registry has a blob, and shows it to us."""
        scope = f"{self._scope} repository:{name}:pull"
        return (await self._ask("HEAD", f"blobs/{digest}", name=name, scope=scope)).status == 200

    async def has_manifest(self, reference: str, digest: Digest) -> bool:
        """Whether this very manifest is there, under a tag or its digest."""
        path = f"manifests/{reference}"
        answer = await self._ask("HEAD", path, (("accept", media.ACCEPT),))
        if answer.status == 404:
            return False
        self._good(answer, "HEAD", path)
        declared = answer.headers.get("docker-content-digest")
        return reference == str(digest) if declared is None else declared == str(digest)

    async def begin(self, digest: Digest, mount_from: str = "") -> Begun:
        """Begin an upload, or mount the blob from another repository of the same registry where that can be."""
        # Who does not hear the algorithm at the beginning would have to hash all of it again at the end.
        query = "" if digest.algorithm == "sha256" else f"?digest-algorithm={digest.algorithm}"
        scope = self._scope
        if mount_from:
            query = f"?mount={quote(str(digest), safe='')}&from={quote(mount_from, safe='')}"
            scope = f"{scope} repository:{mount_from}:pull"
        path = f"blobs/uploads/{query}"
        answer = await self._ask("POST", path, _BLOB, scope=scope)
        if mount_from:
            if answer.status == 201:
                return Begun("")
            if answer.status != 202:
                return await self.begin(digest)  # whoever cannot mount, or may not, says so in many ways
        self._good(answer, "POST", "blobs/uploads/")
        least = answer.headers.get("oci-chunk-min-length") or ""
        return Begun(self._place_of(answer, ""), int(least) if least.isdigit() and len(least) < 12 else 0)

    async def status(self, location: str) -> tuple[str, int] | None:
        """Where an upload is, and how far; None if the target knows nothing of it, or not how far it is."""
        answer = await self._ask("GET", "", url=location)
        if answer.status >= 300:
            if answer.status in (401, 403):
                self._good(answer, "GET", "blobs/uploads/…")
            return None
        reached = _reached(answer)
        # "0-0" is what registries say both of nothing and of one byte.
        return None if reached is None or reached == 1 else (self._place_of(answer, location), reached)

    async def append(self, location: str, start: int, end: int, body: Outgoing, *, whole: bool) -> tuple[str, int]:
        """Send the bytes from `start` to `end`; where the upload is now, and how far.

        `whole`: as one piece without a Content-Range, as registries want it that know no chunks.
        """
        fields = _BLOB if whole else (*_BLOB, ("content-range", f"{start}-{end - 1}"))
        answer = await self._ask("PATCH", "", fields, url=location, body=body, once=True, bulk=True)
        self._good(answer, "PATCH", "blobs/uploads/…")
        reached = _reached(answer)
        return self._place_of(answer, location), end if reached is None or reached > end else reached

    async def finish(self, location: str, digest: Digest, body: Outgoing = b"") -> None:
        """Name what was uploaded by its digest, with all of it or nothing more in the body."""
        mark = "&" if "?" in location else "?"
        url = f"{location}{mark}digest={quote(str(digest), safe='')}"
        answer = await self._ask("PUT", "", _BLOB, url=url, body=body, once=True, bulk=bool(body))
        self._good(answer, "PUT", f"blobs/uploads/…?digest={digest}")

    async def cancel(self, location: str) -> None:
        """Give up an upload. What the target says to that changes nothing."""
        await self._ask("DELETE", "", url=location)

    async def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Under a tag or its digest. Refused also where the target keeps other bytes than it was sent."""
        path = f"manifests/{reference}"
        answer = await self._ask("PUT", path, (("content-type", manifest.media_type),), body=manifest.data)
        self._good(answer, "PUT", path)
        kept = answer.headers.get("docker-content-digest")
        same_algorithm = (kept or "").partition(":")[0] == manifest.digest.algorithm
        if kept is not None and same_algorithm and kept != str(manifest.digest):
            raise Refused(f"{self.place} made {kept} of the manifest {manifest.digest}", answer.status, ())

    async def lists_referrers(self, subject: Digest) -> bool:
        """Whether the target has the API for it: such a one answers 200 whatever it is asked about."""
        if self._lists_referrers is None:
            try:
                answer = await self._ask("GET", f"referrers/{subject}", (("accept", media.INDEX),))
            except NotFound:
                self._lists_referrers = False
            else:
                found = media.essence(answer.headers.get("content-type"))
                self._lists_referrers = answer.status == 200 and found == media.INDEX
        return self._lists_referrers

    async def referrers_index(self, subject: Digest) -> bytes | None:
        """The list under the tag that stands for it, None if there is none."""
        path = f"manifests/{referrers_tag(subject)}"
        answer = await self._ask("GET", path, (("accept", media.INDEX),), most=MAX_MANIFEST)
        if answer.status == 404:
            return None
        self._good(answer, "GET", path)
        return answer.data

    @property
    def _scope(self) -> str:
        return f"repository:{self._name}:pull,push"

    async def _ask(
        self,
        method: str,
        path: str,
        fields: tuple[tuple[str, str], ...] = (),
        *,
        url: str = "",
        body: Outgoing = b"",
        once: bool = False,
        bulk: bool = False,
        scope: str = "",
        name: str = "",
        most: int = _SAYING_BYTES,
    ) -> _Answer:
        ask = Ask(
            method,
            "" if url else f"v2/{name or self._name}/{path}",
            Headers(fields),
            scope or self._scope,
            body=body,
            once=once,
            bulk=bulk,
            url=url,
            expects=_SAID,
        )
        async with self._upstream.open(ask) as reply:
            data = b""
            while piece := await reply.receive():
                data += piece
                if len(data) > most:
                    if most == MAX_MANIFEST:
                        raise UpstreamFailed(f"{self.place} answers {method} {path} with more than {most} bytes")
                    break
            return _Answer(reply.status, reply.headers, reply.located, data)

    def _place_of(self, answer: _Answer, before: str) -> str:
        """Where an upload goes on. Raises Refused if that was never said, or is less safe than the target."""
        location = answer.located or before
        if not location:
            why = f"{self.place} begins an upload without saying where (no usable Location)"
            raise Refused(why, answer.status, ())
        if location.startswith("http:") and self._upstream.site.startswith("https:"):
            why = (
                f"{self.place} wants the upload at an http:// Location, which is refused; "
                "a registry behind a proxy has to be told that it is reached by https"
            )
            raise Refused(why, answer.status, ())
        return location

    def _good(self, answer: _Answer, method: str, path: str) -> None:
        if answer.status < 300:
            return
        try:
            errors = msgspec.json.decode(answer.data, type=_Errors).errors
        except (msgspec.MsgspecError, UnicodeDecodeError):
            errors = []
        words = "; ".join(f"{error.code}: {error.message}".strip(": ")[:300] for error in errors[:3])
        clean = "".join(char if char.isprintable() else " " for char in words)
        message = f"{self.place} answers {answer.status} to {method} {path}" + (f": {clean}" if clean else "")
        codes = tuple(error.code for error in errors)
        raise Refused(message, answer.status, codes)


def fatal(error: Exception) -> bool:
    """Whether trying again cannot help: rights are wanting, or what is to be sent is gone."""
    if isinstance(error, Refused):
        return error.rights
    return isinstance(error, UpstreamDenied | NotFound)


def _reached(answer: _Answer) -> int | None:
    """How many bytes of an upload the target has, by its Range (which ends with the last byte's number)."""
    match = _RANGE.match((answer.headers.get("range") or "").strip())
    return int(match[1]) + 1 if match is not None else None
