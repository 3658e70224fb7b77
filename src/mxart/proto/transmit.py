"""Sends a body over a transport the cheapest way it can travel.

Small bytes are gathered with the head into one send; files go by `Transport.send_file`; a growing
file is sent as far as it is there, and then waited for.  Before any wait, what has been gathered is
sent, so that the client has the head as soon as upstream has answered.

A body is sent whole or visibly short: when it cannot be finished truthfully the transport is aborted.
"""

from __future__ import annotations

import os
from time import perf_counter

from msgspec import Struct

from mxart.body import Body, Source, Span
from mxart.errors import BodyBroken
from mxart.proto.transport import Transport

_GATHER = 65536  # bytes up to which copying into one send is cheaper than a send of their own
_SMALL_FILE = 16384  # a piece of a file up to this size is read and gathered, too
_PIECE = 1 << 20  # bytes of a file handed to the transport at once; what `Progress` is exact to


class Progress(Struct):
    """How far a transmission has come. `first_byte` is of `time.perf_counter`; `body_bytes` without framing."""

    first_byte: float | None = None
    body_bytes: int = 0


class _Sender:
    """Gathers small pieces, and counts what has left."""

    __slots__ = ("_counted", "_gathered", "_progress", "_size", "_transport")

    def __init__(self, transport: Transport, progress: Progress) -> None:
        self._transport = transport
        self._progress = progress
        self._gathered: list[bytes] = []
        self._size = 0
        self._counted = 0

    async def add(self, data: bytes, payload: bool) -> None:
        if self._size + len(data) > _GATHER:
            await self.flush()
        self._gathered.append(data)
        self._size += len(data)
        if payload:
            self._counted += len(data)

    async def flush(self) -> None:
        if not self._gathered:
            return
        data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        counted = self._counted
        self._gathered.clear()
        self._size = self._counted = 0
        await self._transport.send_all(data)
        self._count(counted)

    async def file(self, source: Source, offset: int, count: int) -> None:
        """`count` bytes of a file that are known to be there."""
        if count <= _SMALL_FILE:
            try:
                data = os.pread(source.fileno(), count, offset)
            except OSError as error:
                raise BodyBroken(f"the file cannot be read: {error.strerror}") from None
            if len(data) != count:
                raise BodyBroken(f"the file ends at {offset + len(data)}, {count - len(data)} bytes too early")
            await self.add(data, payload=True)
            return
        await self.flush()
        # The descriptor is asked for each time: a growing file may have moved since.
        await self._transport.send_file(source.fileno(), offset, count)
        self._count(count)

    def _count(self, payload: int) -> None:
        if self._progress.first_byte is None:
            self._progress.first_byte = perf_counter()
        self._progress.body_bytes += payload


async def transmit(
    transport: Transport,
    body: Body,
    *,
    head: bytes = b"",
    chunked: bool = False,
    progress: Progress | None = None,
) -> None:
    """Send `head`, then the body; the caller closes the body.

    `chunked` frames it for HTTP/1.1 (RFC 9112 section 7.1).  A body whose length is None needs that,
    or a connection that ends with it.

    Raises Disconnected when the client is gone; BodyBroken, with the transport aborted, when the
    body cannot be finished.  Cancelled, it leaves a torn stream: abort the transport.
    """
    sender = _Sender(transport, progress if progress is not None else Progress())
    try:
        if head:
            await sender.add(head, payload=False)
        for segment in body.segments:
            if isinstance(segment, Span):
                await _send_span(sender, segment, chunked)
            elif segment:
                await _send_bytes(sender, segment, chunked)
        if chunked:
            await sender.add(b"0\r\n\r\n", payload=False)
        await sender.flush()
    except BodyBroken:
        transport.abort()
        raise


async def _send_bytes(sender: _Sender, data: bytes, chunked: bool) -> None:
    if chunked:
        await sender.add(b"%x\r\n" % len(data), payload=False)
    await sender.add(data, payload=True)
    if chunked:
        await sender.add(b"\r\n", payload=False)


async def _send_span(sender: _Sender, span: Span, chunked: bool) -> None:
    source, offset = span.source, span.offset
    end = None if span.length is None else offset + span.length
    while end is None or offset < end:
        there = source.ready(offset)
        if there <= offset:
            await sender.flush()
            there = await source.available(offset)
            if there <= offset:
                break
        count = min(there - offset, _PIECE)
        if end is not None:
            count = min(count, end - offset)
        if chunked:
            await sender.add(b"%x\r\n" % count, payload=False)
        await sender.file(source, offset, count)
        if chunked:
            await sender.add(b"\r\n", payload=False)
        offset += count
    if end is not None and offset < end:
        raise BodyBroken(f"the file ends at {offset}, {end - offset} bytes too early")
