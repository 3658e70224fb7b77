"""What must hold across tables of the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from mxart.config import Config


def check(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (place, what is wrong and what would be right) for each fault."""
    yield from ()
