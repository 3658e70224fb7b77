"""What files need that were kept before anybody noted that: catalogs of older programs.

Such a catalog knows a cache's manifests, and not what they link, so eviction would take their layers first.  Each is
read once and published again as it is, with what it needs.  Killed in between, it is done again from the beginning;
what is done by then is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from msgspec.structs import replace

from mxart.repos.base import Format
from mxart.repos.operations import Facts
from mxart.repos.roles import having
from mxart.repos.stock import MAX_DOCUMENT, Stock
from mxart.store.base import FileRecord
from mxart.store.published import Need, Publication, Vanished

log = logging.getLogger(__name__)

_TOGETHER = 50  # in one transaction, more or less

Look = Callable[[int], tuple[int | None, list[FileRecord]]]
"""Files without links among those after a number: the number to go on with, None at the end, and what there is."""


async def relink(look: Look, is_document: Callable[[str], bool], format: Format, stock: Stock) -> int:  # noqa: A002
    """Note what the kept documents of a proxy need; returns of how many. `is_document` is asked of media types.

    Raises a Problem if the store or the catalog cannot be used.
    """
    done = 0
    after: int | None = 0
    while after is not None:
        after, records = look(after)
        found = {(record.package, record.digest): record for record in records if is_document(record.media_type)}
        left = list(found.values())
        while left:
            async with trio.open_nursery() as nursery:
                for record in left[:_TOGETHER]:
                    nursery.start_soon(_relink, record, format, stock)
            done += len(left[:_TOGETHER])
            del left[:_TOGETHER]
        await trio.lowlevel.checkpoint()
    return done


async def _relink(record: FileRecord, format: Format, stock: Stock) -> None:  # noqa: A002
    data = await stock.blobs.read(record.digest, MAX_DOCUMENT)
    if data is None:
        return
    inspection = having(format.pushing).inspect(
        record.package, Facts(record.digest, len(data), record.media_type), data
    )
    if not inspection.needs and inspection.referrer is None:
        return
    immutable = f"{record.path.rpartition('/')[0]}/{record.digest}"
    needs = tuple(Need(need.digest, None) for need in inspection.needs)  # upstream has it
    publication = Publication(replace(record, path=immutable), (), needs, inspection.referrer)
    try:
        await stock.publications.publish(publication, lambda: stock.blobs.has(record.digest))
    except Vanished:
        log.debug("%s: is gone", record.digest)
