"""Versions made of several files, in a proxy: what is kept of one is of one state of it, and whole.

The parts of a version are asked for one by one, by clients that want some of them, and upstream may change it in
between: a tag moves.  What was decided:

- A small part is kept as soon as it was checked, by itself (module documents), because clients ask for the small ones
  of hundreds of versions and then for the large ones of a few.  Where a checksum database vouches for the files it
  says what each of them is in one record, which never changes: the parts that are kept agree, whenever they came.
- When the large one is fetched, so are the small ones that are not kept yet, while it arrives.  Its judgement ends with
  a look at all of them (Gathering.agree).  The first part that was kept is right, and what does not agree with it is
  refused: that finds out about a moved tag where nobody vouches for anything.
- The large one is recorded when the small ones are.  So whoever finds it finds the version whole, offline too, however
  the process ended: killed before, it has left parts that are right, and nothing that stands for the version.  That
  takes no transaction over all of them.

A small part that upstream does not have, or cannot give now, keeps nobody from the large one, nor it from being kept.
"""

from __future__ import annotations

import trio

from mxart.errors import Problem
from mxart.message import Trace
from mxart.repos.documents import Documents
from mxart.repos.operations import Artifact, Document
from mxart.repos.remote import Remote


class Beside:
    """The small files of the version that an artifact belongs to. `trace` is that of whoever asked for it."""

    __slots__ = ("_came_by", "_documents", "_remote", "_wanted")

    def __init__(self, remote: Remote, documents: Documents, artifact: Artifact, trace: Trace) -> None:
        gathering = remote.format.gathering
        self._remote = remote
        self._documents = documents
        self._wanted = gathering.beside(artifact) if gathering is not None else ()
        self._came_by = trace.came_by

    def begin(self) -> None:
        """Have what is missing fetched, in the background."""
        for document in self._wanted:
            if not self._documents.has(document):
                self._remote.nursery.start_soon(self._data, document)

    async def data(self) -> dict[str, bytes]:
        """What there is of them by now, by path. Waits a moment for what is on its way."""
        found: dict[str, bytes] = {}
        with trio.move_on_after(self._remote.rules.patience):
            for document in self._wanted:
                if (data := await self._data(document)) is not None:
                    found[document.path] = data
        return found

    async def kept(self) -> None:
        """Return when those that were answered are kept."""
        with trio.move_on_after(self._remote.rules.patience):
            for document in self._wanted:
                await self._documents.landed(document, Trace(came_by=self._came_by))

    async def _data(self, document: Document) -> bytes | None:
        try:
            found = await self._documents.find(document, Trace(came_by=self._came_by))
        except Problem:
            return None
        return found.content if isinstance(found.content, bytes) else None
