"""How much repositories may hold: bytes of distinct files, however many names these have.

What a repository holds is counted by the catalog's triggers (schema, migration 3), so asking costs microseconds.  The
question that binds is asked in the transaction that publishes, when the new rows are there: of two pushes that
would fit one by one but not both, one is refused.  Before a large file is taken in it is asked too, so that nobody
sends gigabytes in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mxart.digest import Digest
from mxart.errors import StorageFull, TooLarge

Ask = Callable[[str, tuple[str | float, ...]], list[Any]]
"""The rows that a statement finds, for its values."""

# With what is kept out of sight for it (store.changes): that is to be seen soon.
_HELD = """
    SELECT coalesce(sum(u.bytes), 0) FROM usage u JOIN repositories r ON r.id = u.repository
    WHERE r.name = ?1 OR substr(r.name, 1, length(?1) + 1) = ?1 || '+'"""
_HAS = "SELECT 1 FROM holdings h JOIN repositories r ON r.id = h.repository WHERE r.name = ? AND h.digest = ?"


class Quotas:
    """Bytes by repository; who is not named may hold any amount."""

    def __init__(self, quotas: Mapping[str, int]) -> None:
        self._quotas = dict(quotas)

    def of(self, repository: str) -> int | None:
        """How much it may hold; None: any amount."""
        return self._quotas.get(repository)

    def held(self, ask: Ask, repository: str) -> int | None:
        """How much it holds now; None if it has no quota."""
        if repository not in self._quotas:
            return None
        ((held,),) = ask(_HELD, (repository,))
        return int(held)

    def check(self, ask: Ask, repository: str, before: int | None) -> None:
        """Within a transaction that held `before` at its beginning: raise if it now holds too much, and more.

        Raises TooLarge for what can never fit, StorageFull for what does not fit now.
        """
        now = self.held(ask, repository)
        if before is not None and now is not None and now > before:
            self._demand(repository, before, now - before)

    def demand(self, ask: Ask, repository: str, digest: Digest | None, size: int) -> None:
        """Raise as `check` does if a file of that size would be too much; nothing if these bytes are held already."""
        used = self.held(ask, repository)
        if used is None or (digest is not None and ask(_HAS, (repository, str(digest)))):
            return
        self._demand(repository, used, size)

    def _demand(self, repository: str, used: int, asked: int) -> None:
        quota = self._quotas[repository]
        if used + asked <= quota:
            return
        numbers = f"its quota is {quota} bytes, {used} of them are used, and this needs {asked} more"
        if asked > quota:
            raise TooLarge(f"{repository} can never hold this: {numbers}", subject="quota")
        raise StorageFull(
            f"{repository} is full: {numbers}; delete something, and collect it with `mxart gc`", subject="quota"
        )


UNLIMITED = Quotas({})
