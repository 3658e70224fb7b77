"""What an upstream says it will still take (draft-polli-ratelimit-headers, as Docker Hub speaks it). Pure.

`ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`: of 100 pulls in six hours 76 are left.  Hub counts
every GET of a manifest, and no HEAD: that is what moving tags are revalidated by.
"""

from __future__ import annotations

from msgspec import Struct

from mxart.message import Headers


class Budget(Struct, frozen=True):
    """Requests that are left, and of how many; `limit` is 0 where that is not told."""

    remaining: int
    limit: int = 0

    @property
    def is_low(self) -> bool:
        """Whether less than a tenth is left."""
        return self.remaining * 10 < self.limit

    @property
    def is_ample(self) -> bool:
        """Whether a fifth is left: so much above low that it does not flicker."""
        return self.remaining * 5 >= self.limit


def budget_of(headers: Headers) -> Budget | None:
    """What an answer says, None if nothing that can be understood."""
    remaining = _number(headers.get("ratelimit-remaining"))
    if remaining is None:
        return None
    return Budget(remaining, _number(headers.get("ratelimit-limit")) or 0)


def _number(value: str | None) -> int | None:
    text = (value or "").partition(",")[0].partition(";")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
