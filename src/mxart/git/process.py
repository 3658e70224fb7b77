"""git run as a process: it asks nobody anything, reads nobody's settings, and is ended with all that it began.

Theory of operation
-------------------
Arguments go as a list, and no shell is near them.  The environment is made here, from nothing: settings are given by
GIT_CONFIG_COUNT, where no other process sees them; neither the system's configuration nor that of a user counts;
prompts are off, and only https and ssh are spoken.  Each git has a session of its own with whatever it starts
(git-remote-https, ssh, index-pack), and all of them are killed when the caller is cancelled, when they say nothing for
too long, or say too much.

Should *we* be killed, git lives on until its pipes break.  So it inherits the descriptors in `keep`: a lock on the
repository that is bound to one of those is held for as long as anybody writes there.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import trio
from msgspec import field

from mxart.discreet import Discreet
from mxart.git.failures import GitFailed, GitSilent, TooMuch

_PIECE = 1 << 16
MAX_FILE = 16 << 30
"""Bytes of a pack that a server sends at once: a whole history."""
_STDERR = 8 << 10  # of the end of what it says
_CLOSING_SECONDS = 5.0

_SETTINGS: tuple[tuple[str, str], ...] = (
    ("protocol.allow", "never"),
    ("protocol.https.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("protocol.version", "2"),
    ("credential.helper", ""),
    ("core.askPass", ""),
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    # The same bytes on every machine, and the same as the go command has them.
    ("core.autocrlf", "input"),
    ("core.eol", "lf"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    # What comes is there as a whole or not at all: as single objects, a commit may be there without its files.
    ("fetch.unpackLimit", "1"),
    ("repack.writeBitmaps", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("log.showSignature", "false"),
)


class Session(Discreet, frozen=True):
    """What one run is told beside its arguments. `network`: it talks to others, so it may go silent."""

    hidden: ClassVar = frozenset({"settings", "variables"})

    settings: tuple[tuple[str, str], ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    keep: tuple[int, ...] = ()


LOCAL = Session()


class Git:
    """The git command.

    `home` is an empty folder of ours; `silence` the seconds that a network may say nothing; `max_file` the bytes that
    may come of it.
    """

    def __init__(
        self,
        home: Path,
        *,
        silence: float = 60.0,
        at_once: int = 8,
        max_file: int = MAX_FILE,
        program: str = "git",
    ) -> None:
        self._home = home
        self._program = program
        self._silence = silence
        self._max_file = max_file
        self._places = trio.CapacityLimiter(at_once)

    async def run(
        self,
        arguments: Sequence[str],
        folder: Path | None = None,
        session: Session = LOCAL,
        *,
        limit: int = 1 << 20,
        into: int | None = None,
    ) -> bytes:
        """What it prints; written to the descriptor `into` where that is given.

        `folder` is the repository, None where there is none.  Raises GitFailed, GitSilent, TooMuch (above `limit`
        bytes), OSError if it cannot be run.  Cancelled: it is ended, and everything that it started.
        """
        async with self._places:
            process = await trio.lowlevel.open_process(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if into is None else into,
                stderr=subprocess.PIPE,
                env=self._environment(folder, session),
                cwd=str(self._home),
                start_new_session=True,
                pass_fds=session.keep,
            )
            if session.network:
                self._bound(process.pid)
            listener = _Listener(process, limit, self._silence if session.network else math.inf)
            ended = False
            try:
                await listener.listen()
                ended = True
            finally:
                await _close(process, ended=ended)
        if process.returncode != 0:
            raise GitFailed(process.returncode or -1, listener.said())
        return bytes(listener.output)

    def _bound(self, pid: int) -> None:
        """Let neither it nor what it will start write a file without an end: a server sends as much as it likes."""
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._max_file, self._max_file))

    def _environment(self, folder: Path | None, session: Session) -> dict[str, str]:
        found = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            "XDG_CONFIG_HOME": str(self._home),
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self._home.parent),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
        }
        if folder is not None:
            found["GIT_DIR"] = str(folder)
        found |= session.variables
        settings = (*_SETTINGS, *session.settings)
        found["GIT_CONFIG_COUNT"] = str(len(settings))
        for index, (key, value) in enumerate(settings):
            found[f"GIT_CONFIG_KEY_{index}"] = key
            found[f"GIT_CONFIG_VALUE_{index}"] = value
        return found


class _Listener:
    """Hears what a process says until it has ended."""

    def __init__(self, process: trio.Process, limit: int, silence: float) -> None:
        self._process = process
        self._limit = limit
        self._silence = silence
        self._stderr = bytearray()
        self._scope = trio.CancelScope()
        self._too_much = False
        self.output = bytearray()

    def said(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    async def listen(self) -> None:
        """Raises GitSilent, TooMuch. However it ends but by returning, the process goes on: the caller ends it."""
        self._scope.deadline = trio.current_time() + self._silence
        with self._scope:
            async with trio.open_nursery() as readers:
                if self._process.stdout is not None:
                    readers.start_soon(self._read_output, self._process.stdout)
                assert self._process.stderr is not None
                readers.start_soon(self._read_errors, self._process.stderr)
            await self._process.wait()
        if self._too_much:
            raise TooMuch(self._limit)
        if self._scope.cancelled_caught:
            raise GitSilent(self._silence)

    async def _read_output(self, stream: trio.abc.ReceiveStream) -> None:
        async for piece in stream:
            self._scope.deadline = trio.current_time() + self._silence
            self.output += piece
            if len(self.output) > self._limit:
                self._too_much = True
                self._scope.cancel()

    async def _read_errors(self, stream: trio.abc.ReceiveStream) -> None:
        async for piece in stream:
            self._scope.deadline = trio.current_time() + self._silence
            self._stderr += piece
            del self._stderr[:-_STDERR]


async def _close(process: trio.Process, *, ended: bool) -> None:
    """Kill its whole session unless it ended by itself, and wait for the process."""
    if not ended:
        # Nobody has waited for it yet, so the number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.move_on_after(_CLOSING_SECONDS, shield=True):
            await process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            with trio.CancelScope(shield=True):
                await stream.aclose()
