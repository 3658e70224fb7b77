"""One blob to a target, however often the way breaks.

Theory of operation
-------------------
A blob goes up in chunks, one PATCH after the other, and is named by a PUT.  After any failure the target is asked how
far it came, and the upload goes on from there; where it knows nothing any more, a new one begins.  That may go on for
as long as each round comes further than any round before; `_ROUNDS` in a row that do not are the end.  A target that
refuses a chunk after the first gets everything in one piece from then on.

Where the upload is, is remembered on disk after every step, so a later run goes on with it, too.  A small blob goes
with the PUT that names it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import trio
from msgspec import Struct

from mxart.errors import MxartError, Problem
from mxart.replicate.manifests import Part
from mxart.replicate.memo import Kept, Memo
from mxart.replicate.source import Reader, Short, Source
from mxart.replicate.target import Refused, Target, fatal

_log = logging.getLogger("mxart.replicate")
_ROUNDS = 8  # with their pauses a minute and a half: a registry is restarted in that time
_REJECTED = 2
_SMALL = 1 << 20
USUAL_CHUNK = 32 << 20
_LONGEST_PAUSE = 600.0  # seconds; a Retry-After beyond it is an error

Way = Literal["there", "mounted", "sent"]


class Manner(Struct, frozen=True):
    """How blobs are sent. `mount_from` are repositories of the target's registry that may have them already."""

    chunk: int = USUAL_CHUNK  # bytes: what is lost when the way breaks, where the target keeps no half of a chunk
    first_pause: float = 0.5  # seconds, before the second round; doubles
    mount_from: tuple[str, ...] = ()


class Uploader:
    """Sends blobs from one source to one target."""

    def __init__(self, source: Source, target: Target, memo: Memo, manner: Manner) -> None:
        self._source = source
        self._target = target
        self._memo = memo
        self._manner = manner
        self._whole = False  # it takes no chunks

    async def send(self, part: Part, moved: Callable[[int], None]) -> tuple[Way, int]:
        """See to it that the target has a blob; how that came, and how many of its bytes were there of an earlier run.

        `moved` is told up to which offset it is there; that may go back.  Raises MxartError.  Cancelled: the
        connections are closed, and the upload stays at the target for the next run.
        """
        if await self._target.has_blob(part.digest):
            return "there", 0
        with self._memo.hold(self._target.place, str(part.digest)) as kept:
            upload = _Upload(self, part, kept, moved)
            try:
                return await upload.run()
            finally:
                await upload.aclose()

    # For an upload.

    @property
    def source(self) -> Source:
        return self._source

    @property
    def target(self) -> Target:
        return self._target

    @property
    def manner(self) -> Manner:
        return self._manner

    @property
    def whole(self) -> bool:
        """Whether this target wants a blob in one piece."""
        return self._whole

    def refuse_chunks(self) -> None:
        """It was seen to want that."""
        _log.debug("%s takes no chunks", self._target.place)
        self._whole = True


class _Upload:
    """One blob's way."""

    def __init__(self, uploader: Uploader, part: Part, kept: Kept, moved: Callable[[int], None]) -> None:
        self._uploader = uploader
        self._target = uploader.target
        self._part = part
        self._kept = kept
        self._moved = moved
        self._reader: Reader = uploader.source.blob(part)
        self._offset = 0
        self._least = 0
        self._rejected = 0

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def run(self) -> tuple[Way, int]:
        resumed, best, failures = 0, -1, 0
        if self._kept.location:
            await self._look()
            resumed = self._offset
        while True:
            try:
                if not self._kept.location and not await self._begin():
                    return "mounted", 0
                await self._forward()
            except MxartError as error:
                if fatal(error) or isinstance(error, Short) or (isinstance(error, Refused) and not self._kept.location):
                    raise
                trouble = error
            else:
                self._moved(self._part.size)
                self._kept.forget()
                return "sent", resumed
            _log.debug("%s to %s: %s", self._part.digest, self._target.place, trouble)
            if await self._recover(trouble):
                return "sent", resumed
            resumed = min(resumed, self._offset)
            failures = 0 if self._offset > best >= 0 else failures + 1
            best = max(best, self._offset)
            if failures >= _ROUNDS:
                raise trouble
            await self._pause(trouble, failures)

    async def _begin(self) -> bool:
        """False: there is nothing to send, another repository had it."""
        self._offset = 0
        begun = await self._target.begin(self._part.digest, await self._lender())
        if not begun.location:
            return False
        self._least = begun.chunk
        self._keep(begun.location)
        return True

    async def _lender(self) -> str:
        """The repository to mount from, "" for none. One alone is not asked: mounting shows whether it can."""
        names = self._uploader.manner.mount_from
        if len(names) == 1:
            return names[0]
        for name in names:
            if await self._target.lends(self._part.digest, name):
                return name
        return ""

    async def _forward(self) -> None:
        """To the end, if nothing breaks."""
        size = self._part.size
        if not self._offset and size <= _SMALL:
            await self._target.finish(
                self._kept.location, self._part.digest, self._reader.chunk(0, size, self._moved) if size else b""
            )
            return
        while self._offset < size:
            whole = self._uploader.whole
            start = self._offset
            end = size if whole else min(start + max(self._uploader.manner.chunk, self._least), size)
            location, self._offset = await self._target.append(
                self._kept.location,
                start,
                end,
                self._reader.chunk(start, end, self._moved),
                whole=not start and end == size,
            )
            self._keep(location)
            self._moved(self._offset)
        await self._target.finish(self._kept.location, self._part.digest)

    async def _recover(self, trouble: Exception) -> bool:
        """After a failure: whether the blob is there all the same; else where to go on from."""
        if isinstance(trouble, Refused) and (trouble.said == 413 or trouble.said not in (400, 404, 416)):
            if not self._offset or self._uploader.whole or trouble.said == 413:
                raise trouble  # said so once, said so always
            self._uploader.refuse_chunks()
            await self._drop()
            return False
        try:
            if await self._target.has_blob(self._part.digest):
                self._kept.forget()
                return True  # only the answer was lost, or somebody else was faster
            if isinstance(trouble, Refused) and trouble.said == 400:
                # The bytes or the chunk are not to its liking. A whole new attempt shows which, and no third one more.
                self._rejected += 1
                if self._offset and self._offset < self._part.size:
                    self._uploader.refuse_chunks()
                await self._drop()
                if self._rejected > _REJECTED:
                    raise trouble
            elif self._kept.location:
                await self._look()
        except Problem as problem:
            if problem is trouble or fatal(problem):
                raise
            _log.debug("%s: %s", self._target.place, problem)  # the next round asks again
        return False

    async def _look(self) -> None:
        """Ask the target how far it is; forget what it knows nothing of."""
        found = await self._target.status(self._kept.location)
        if found is None or found[1] > self._part.size:
            self._kept.forget()
            self._offset = 0
        else:
            self._keep(found[0])
            self._offset = found[1]
        self._moved(self._offset)

    async def _drop(self) -> None:
        location = self._kept.location
        self._kept.forget()
        self._offset = 0
        self._moved(0)
        if location:
            await self._target.cancel(location)

    def _keep(self, location: str) -> None:
        try:
            self._kept.keep(location)
        except OSError as error:
            _log.warning("what was begun is not remembered: %s", error.strerror)

    async def _pause(self, trouble: Exception, failures: int) -> None:
        wait = self._uploader.manner.first_pause * 2.0 ** min(failures, 6)
        after = trouble.retry_after if isinstance(trouble, Problem) else None
        if after is not None:
            if after > _LONGEST_PAUSE:
                raise trouble
            wait = max(wait, after)
        await trio.sleep(wait)
