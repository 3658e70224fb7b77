"""Remarks of which only the body tells whose they are: all repositories that a group publishes to hear them.

A list of a group's plugins says prefixes of artifacts that may be in any of them, and the list that ends a deploy does
not tell where its files went.
"""

from __future__ import annotations

from collections.abc import Sequence

from mxart.errors import Forbidden
from mxart.message import RequestBody, Trace
from mxart.repos.callers import Caller
from mxart.repos.publishing import Heard, Publisher, Remark


class _Again:
    """A body that several read, one after the other; what the first has read is kept for the others.

    How much that may be is for whoever reads to say.
    """

    def __init__(self, body: RequestBody) -> None:
        self.length = body.length
        self._body = body
        self._chunks: list[bytes] = []
        self._at = 0
        self._ended = False

    def begin(self) -> None:
        """The next one reads it from its first byte on."""
        self._at = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._at < len(self._chunks):
            chunk = self._chunks[self._at]
        elif self._ended:
            return b""
        else:
            chunk = await self._body.receive(max_bytes)
            self._ended = not chunk
            self._chunks.append(chunk)
        self._at += 1
        return chunk


async def tell(
    operation: Remark, publishers: Sequence[Publisher], body: RequestBody, trace: Trace, caller: Caller
) -> Heard:
    """Have all of them hear it; there is at least one. Raises what any of them does, but what only some forbid.

    What was said to one before another one refuses it stays said.
    """
    again = _Again(body)
    forbidden: Forbidden | None = None
    heard: list[bool] = []
    for publisher in publishers:
        again.begin()
        try:
            outcome = await publisher.write(operation, again, trace, caller)
        except Forbidden as problem:
            forbidden = forbidden or problem
            continue
        assert isinstance(outcome, Heard), "that is what becomes of a remark"
        heard.append(outcome.new)
    if not heard:
        assert forbidden is not None, "there is one that heard it, or forbade it"
        raise forbidden
    return Heard(new=any(heard))
