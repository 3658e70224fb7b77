"""What the command line says about the configuration, and how a user's mistake ends a command."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import click

from mxart.config import Config
from mxart.config_file import decode
from mxart.errors import ConfigError

USER_ERROR = 2
"""The exit code of the user's own mistakes."""


class UserError(click.ClickException):
    """One clear line on standard error, and exit code 2."""

    exit_code = USER_ERROR


class Options:
    """What the command line says about the configuration; `load` reads it afresh."""

    def __init__(
        self, config: str | None, data: str | None, listen: tuple[str, ...], tls: bool, workers: int | None
    ) -> None:
        self._file = config
        self._data = data
        self._listen = listen
        self._tls = tls
        self._workers = workers

    def load(self) -> Config:
        """Raises ConfigError."""
        text, name = "", "command line"
        if self._file is not None:
            name = self._file
            try:
                text = Path(self._file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise ConfigError(f"{name}: cannot be read: {why}") from None
        return decode(
            text,
            file=name,
            environment=os.environ,
            data=self._data,
            workers=self._workers,
            listen=self._listen,
            tls=self._tls,
        )


def raise_file_limit() -> None:
    """Connections are files: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Refused where the system's own ceiling was lowered since; then what there is has to do.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
