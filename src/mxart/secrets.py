"""Secrets that the configuration names by files."""

from __future__ import annotations

from pathlib import Path

from mxart.errors import ConfigError


def secret(file: str, place: str) -> str:
    """What a file holds, without white space around it; "" where none is named. Raises ConfigError naming the place."""
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{place}: {file} cannot be read: {why}") from None
