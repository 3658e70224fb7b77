"""Bodies of requests that are small enough to be looked at as a whole."""

from __future__ import annotations

from collections.abc import Callable

from mxart.errors import TooLarge
from mxart.message import RequestBody


async def whole(body: RequestBody, limit: int, too_large: Callable[[int], TooLarge]) -> bytes:
    """All of it. Raises what `too_large` makes of its size, or of as much as came, if that is more than `limit` bytes.

    Cancelled, or refused: the rest is not read.
    """
    if body.length is not None and body.length > limit:
        raise too_large(body.length)
    chunks: list[bytes] = []
    size = 0
    while chunk := await body.receive():
        size += len(chunk)
        if size > limit:
            raise too_large(size)
        chunks.append(chunk)
    return b"".join(chunks)
