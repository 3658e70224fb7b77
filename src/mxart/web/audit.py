"""The audit log, read from its end: what was written and what was denied, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import trio
from msgspec import Meta

from mxart.access.audit import Audit, Entry
from mxart.web.operations import MAX_PAGE, Asked, Needs, Nothing, Operation, Record, operation

MAX_SCANNED = 50_000
"""Lines that one call looks at: a filter that fits nothing must not read hundreds of megabytes at once."""

Text = Annotated[str, Meta(max_length=1024)]


class AuditWanted(Record, frozen=True, kw_only=True):
    """Which entries. An empty one is no filter; `path` fits the package and all below it."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="How many entries at most.")] = 100
    after: Annotated[str, Meta(pattern=r"^(?:[0-9TZ:.-]{24}/[0-9]{1,9})?\Z", description="`next` of a page.")] = ""
    who: Text = ""
    token: Text = ""
    source: Annotated[str, Meta(max_length=64, description="An address.")] = ""
    action: Text = ""
    repository: Text = ""
    path: Text = ""
    outcome: Literal["", "done", "denied", "failed"] = ""
    since: Annotated[str, Meta(max_length=24, description="Not older than this: 2027-01-15, 2027-01-15T08:00.")] = ""


class AuditEntry(Record, frozen=True, kw_only=True):
    """One line. `who` empty: nobody in particular; `token` is its id; `rule` is what decided."""

    time: str
    who: str
    token: str
    source: str
    action: str
    repository: str
    path: str
    outcome: str
    status: int
    rule: str
    detail: str


class AuditPage(Record, frozen=True, kw_only=True):
    """Entries, the newest first. With a `next`, older lines were not looked at yet, even where `items` is empty."""

    items: list[AuditEntry]
    next: str = ""


class AuditOperations:
    """The log's end."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "listAudit",
            "GET",
            "/audit",
            "What was written and what was denied, the newest first.",
            Needs("manage"),
            self._list,
            tag="audit",
            secret=True,
        )

    async def _list(self, asked: Asked[AuditWanted, Nothing]) -> AuditPage:
        return await trio.to_thread.run_sync(self._read, asked.where)

    def _read(self, where: AuditWanted) -> AuditPage:
        """In a thread. A page ends with the moment of its last line, and how many lines of that moment came before."""
        moment, _, count = where.after.partition("/")
        left = int(count or 0)
        items: list[AuditEntry] = []
        last, same, looked = "", 0, 0
        for entry in self._audit.backwards(moment):
            if where.since and entry.time < where.since:
                break
            if left and entry.time == moment:  # told on the page before
                left -= 1
            elif len(items) == where.limit or looked == MAX_SCANNED:
                return AuditPage(items=items, next=f"{last}/{same}")
            else:
                looked += 1
                if _fits(entry, where):
                    items.append(_shown(entry))
            same = same + 1 if entry.time == last else 1
            last = entry.time
        return AuditPage(items=items)


def _fits(entry: Entry, where: AuditWanted) -> bool:
    wanted = (
        (where.who, entry.who),
        (where.token, entry.token),
        (where.source, entry.source),
        (where.action, entry.action),
        (where.repository, entry.repository),
        (where.outcome, entry.outcome),
    )
    if any(want and want != found for want, found in wanted):
        return False
    return not where.path or entry.path == where.path or entry.path.startswith(f"{where.path}/")


def _shown(entry: Entry) -> AuditEntry:
    return AuditEntry(
        time=entry.time,
        who=entry.who,
        token=entry.token,
        source=entry.source,
        action=entry.action,
        repository=entry.repository,
        path=entry.path,
        outcome=entry.outcome,
        status=entry.status,
        rule=entry.rule,
        detail=entry.detail,
    )
