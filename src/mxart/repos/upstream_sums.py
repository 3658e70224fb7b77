"""Files of a Maven upstream are compared with what it says their checksums are, before anybody has the last of them.

In the head of the answer, if they are told there (maven.expected), else in the file beside, `.sha1` or `.md5`.  Where
nobody tells any, the file is taken as its format has judged it, and the exchange's log line says so.  Of signatures and
of lists no file beside is asked for: a signature proves itself, and a list may have changed between two questions.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from mxart.errors import NotFound, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.message import Trace
from mxart.repos.maven import checksums, expected
from mxart.repos.maven.coordinates import SIGNATURES, Algorithm
from mxart.repos.operations import Artifact, Document, Found
from mxart.repos.remote import Received, Remote

_BESIDE: tuple[Algorithm, ...] = ("sha1", "md5")  # what every upstream has, if it has any
_log = logging.getLogger("mxart.maven")


class UpstreamSums:
    """See remote.Verifier. `remote` is the repository's own."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        sums = checksums.recall(received.checksum, received.digest.hex)
        assert sums is not None, "the format has judged it"
        told = expected.told(received.headers)
        if told is None and not _proves_itself(operation):
            told = await self._beside(operation, received.trace)
            if told is None:
                received.trace.notes.append(f"unverified: {self._remote.upstream.name} tells no checksum of it")
        if told is None or sums.get(told[0]) == told[1]:
            return
        algorithm, right = told
        message = (
            f"{self._remote.upstream.name} sent {operation.path} with the {algorithm} {sums.get(algorithm)},"
            f" and says that it is {right}"
        )
        _log.error("%s: %s; it is not kept", self._remote.name, message)
        raise UpstreamFailed(message, subject=operation.subject)

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> Found | None:
        """It has no documents of its own."""
        return None

    async def _beside(self, operation: Document | Artifact, trace: Trace) -> tuple[Algorithm, str] | None:
        for algorithm in _BESIDE:
            text = await self._read(operation, algorithm, trace)
            if text:
                return algorithm, text
        return None

    async def _read(self, operation: Document | Artifact, algorithm: Algorithm, trace: Trace) -> str:
        """What a file beside tells; "" if there is none that tells anything. Raises UpstreamUnavailable, …Timeout."""
        remote = self._remote
        path = f"{operation.path}.{algorithm}"
        ask = remote.ask(replace(operation, path=path, head=False), "GET")
        try:
            async with remote.open(ask, trace) as reply:
                size = reply.headers.get("content-length") or ""
                if size.isdigit() and int(size) > checksums.MAX_TEXT:
                    return ""  # a page, in all likelihood
                data = b""
                while chunk := await reply.receive():
                    data += chunk
                    if len(data) > checksums.MAX_TEXT:
                        return ""
        except (NotFound, UpstreamDenied):  # object stores deny what is not there
            return ""
        except UpstreamFailed as problem:
            message = f"{path} cannot be had now, so nobody can tell whether this is it: {problem.message}"
            raise UpstreamUnavailable(message, subject=operation.subject, retry_after=5.0) from None
        return checksums.read(data, algorithm)


def _proves_itself(operation: Document | Artifact) -> bool:
    mutable = isinstance(operation, Document) and operation.mutable
    return mutable or operation.path.endswith(SIGNATURES)
