"""Where log lines go: readable text on a terminal, one JSON object a line elsewhere.

Everything goes through the standard library's logging; `mxart` is the root of our loggers.  Lines
are gathered and written together (see `LineSink`), so that a log line an exchange costs a server
microseconds; warnings and worse are written at once.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

Level = Literal["debug", "info", "warning", "error"]

_encode = msgspec.json.Encoder().encode
_COLOURS = {"DEBUG": "\x1b[2m", "INFO": "", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_FLUSH_BYTES = select.PIPE_BUF  # what a pipe takes as one piece, so that lines of several workers do not mix


class LineSink:
    """Writes lines to a descriptor: each at once, or, after `gather`, several together.

    Who asks it to gather calls `flush` often.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._gathering = False
        self._lines: list[bytes] = []
        self._size = 0

    def gather(self) -> None:
        """Keep lines back until `flush`, an important line, or a bufferful."""
        self._gathering = True

    def write(self, line: bytes, *, at_once: bool = False) -> None:
        """Take a line, with its newline."""
        if self._size + len(line) > _FLUSH_BYTES:
            self.flush()
        self._lines.append(line)
        self._size += len(line)
        if at_once or not self._gathering:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. A log that nobody reads any more is not a reason to fail."""
        if not self._lines:
            return
        data, self._lines, self._size = b"".join(self._lines), [], 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LineSink, formatter: logging.Formatter) -> None:
        super().__init__()
        self._sink = sink
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # a log line never breaks what it tells about
            self.handleError(record)
            return
        self._sink.write(line.encode("utf-8", "backslashreplace") + b"\n", at_once=record.levelno >= logging.WARNING)


class _Clock:
    """Timestamps; the part that changes once a second is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, seconds: float) -> str:
        whole = int(seconds)
        if whole != self._second:
            self._second, self._text = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{self._text}.{int((seconds - whole) * 1000):03d}Z"


_time = _Clock()


def _json(
    seconds: float, level: str, logger: str, message: str, fields: Mapping[str, object] | None
) -> dict[str, object]:
    line: dict[str, object] = {"time": _time(seconds), "level": level, "logger": logger, "message": message}
    if fields:
        line.update(fields)
    return line


def _encoded(line: Mapping[str, object]) -> bytes:
    """As JSON, whatever is in it."""
    try:
        return _encode(line)
    except (UnicodeEncodeError, TypeError):  # half a surrogate pair, as in the name of a file that is not UTF-8
        return _encode({key: _plainly(value) for key, value in line.items()})


def _plainly(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exchange's fields stand beside time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = _json(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encoded(line).decode()


class TextFormatter(logging.Formatter):
    """For people: time of day, message, then the fields that say something."""

    def format(self, record: logging.LogRecord) -> str:
        text = _text(record.created, record.levelname, record.getMessage(), getattr(record, "fields", None))
        if record.exc_info:
            text += "\n" + "\n".join(map(_visible, self.formatException(record.exc_info).splitlines()))
        return text


def _text(seconds: float, level: str, message: str, fields: Mapping[str, object] | None) -> str:
    text = f"{_time(seconds)[11:23]} {_COLOURS.get(level, '')}{level[:4]:4}\x1b[0m {_visible(message)}"
    if fields:
        told = " ".join(f"{key}={_visible(str(value))}" for key, value in fields.items() if value not in ("", None))
        text += f"  \x1b[2m{told}\x1b[0m"
    return text


def _visible(text: str) -> str:
    """Control characters of a stranger's request must not reach a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class EventLog:
    """The lines that come once an exchange: the same form as all others, without the cost of a log record."""

    def __init__(self, name: str, sink: LineSink | None, *, readable: bool = False) -> None:
        self._name = name
        self._sink = sink  # None: this level is not wanted
        self._readable = readable

    def named(self, name: str) -> EventLog:
        """The same for another kind of event."""
        return EventLog(name, self._sink, readable=self._readable)

    def __bool__(self) -> bool:
        """Whether anybody wants these lines."""
        return self._sink is not None

    def __call__(self, message: str, fields: Mapping[str, object]) -> None:
        """One line, at level info."""
        if self._sink is None:
            return
        now = time.time()
        if self._readable:
            line = _text(now, "INFO", message, fields).encode("utf-8", "backslashreplace")
        else:
            line = _encoded(_json(now, "info", self._name, message, fields))
        self._sink.write(line + b"\n")


SILENT = EventLog("", None)


def configure(level: Level, fd: int = 2) -> tuple[LineSink, EventLog]:
    """Send our loggers' lines, and those of exchanges, to a descriptor. Once a process, before anything is logged."""
    sink = LineSink(fd)
    readable = os.isatty(fd)
    root = logging.getLogger("mxart")
    root.handlers[:] = [_SinkHandler(sink, TextFormatter() if readable else JsonFormatter())]
    root.setLevel(level.upper())
    root.propagate = False
    logging.logMultiprocessing = logging.logProcesses = logging.logThreads = False
    wanted = root.isEnabledFor(logging.INFO)
    return sink, EventLog("mxart.exchange", sink if wanted else None, readable=readable)
