"""A round in a process of its own: what it does to processor, memory and interpreter lock, no request feels."""

from __future__ import annotations

import logging
import sys
from subprocess import PIPE

import msgspec
import trio

from mxart.store.space.round import Busy, Done, Ended, Failed, Line, Said, Step
from mxart.store.space.task import Report, Task, Tell, ignore_progress

log = logging.getLogger(__name__)

_lines: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_COMMAND = (sys.executable, "-m", "mxart.store.space.round")


async def run_round(task: Task, tell: Tell = ignore_progress) -> Report:
    """Do it. Raises Busy, Failed.

    Cancelled: the process is ended, which is harmless at any point.
    """
    complaints = b""
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[trio.Process]) -> None:
            nonlocal complaints
            done = await trio.run_process(
                _COMMAND,
                stdin=msgspec.json.encode(task),
                stdout=PIPE,
                capture_stderr=True,
                check=False,
                task_status=task_status,
            )
            complaints = done.stderr or b""

        process = await nursery.start(start)
        last = await _follow(process, tell)
    match last:
        case Done():
            return last.report
        case Ended(busy=True):
            raise Busy(last.error)
        case Ended():
            raise Failed(last.error)
        case _:
            log.error("the end of a process that gave space back: %s", complaints.decode(errors="replace").strip())
            raise Failed(f"its process ended with {process.returncode} before it was done")


async def _follow(process: trio.Process, tell: Tell) -> Line | None:
    assert process.stdout is not None
    last: Line | None = None
    rest = b""
    async with process.stdout:
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                last = _lines.decode(line)
                if isinstance(last, Step):
                    tell(last.done, last.total, last.what)
                elif isinstance(last, Said):
                    log.log(last.level, "%s", last.text)
    return last
