"""The judgement on a download of which everything is there."""

from __future__ import annotations

import logging

from mxart.digest import Digest
from mxart.errors import Problem, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers
from mxart.store.base import Unjudged
from mxart.store.download import Download
from mxart.store.whole import opened

log = logging.getLogger(__name__)

UNTOLD = (UpstreamUnavailable, UpstreamTimeout)
"""The Problems that do not say that a file is wrong: nobody can tell now (Naming.judge)."""


async def verdict(download: Download, digest: Digest) -> Problem | None:
    """What is wrong with it, if anything; one of `UNTOLD` if that is not known. Cancelled: it is not judged.

    A judge that fails in a way that nobody foresaw has seen something that nobody should be given.
    """
    headers = download.notes.headers or Headers()
    try:
        with opened(download.file) as whole:
            await download.promise.judge(Unjudged(whole, download.file.written, digest, headers))
    except Problem as problem:
        return problem
    except Exception as error:
        log.exception("%s: judging it failed in an unforeseen way", download.label)
        return Problem(f"{download.label}: {type(error).__name__} while judging it")
    return None
