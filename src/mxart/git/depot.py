"""What the copies of one repository of ours share, and how their git talks to servers."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import trio
from msgspec import Struct

from mxart.errors import UpstreamFailed
from mxart.git.logins import Login, Logins, host_options, settings, ssh_config
from mxart.git.process import Git, Session
from mxart.git.url import GitUrl
from mxart.git.ways import Ways
from mxart.store.paths import GitPaths


class Depot(Struct, frozen=True):
    """What the copies of one repository of ours share."""

    name: str
    git: Git
    paths: GitPaths
    logins: Logins
    ways: Ways
    connect_seconds: float = 10.0
    clock: Callable[[], float] = time.time

    async def session(self, url: GitUrl, named_by: str = "") -> Session:
        """What git is told to talk to the server of a repository; `named_by` as in Ways.to.

        Raises UpstreamFailed, UpstreamUnavailable.
        """
        login = self.logins.of(url.host)
        if url.scheme == "http" and not login.insecure:
            raise UpstreamFailed(f"{url} would be read in plain text: use https, or say insecure = true for its host")
        way = await self.ways.to(url, named_by)
        if url.scheme == "ssh":
            file = await trio.to_thread.run_sync(self._ssh_file, login)
            # git hands this to a shell: it is made of our own words, and quoted.
            command = shlex.join(["ssh", "-F", str(file), *host_options(url, way.addresses)])
            return Session(variables={"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"})
        told = settings(url, login, way.addresses, way.proxy)
        if url.scheme == "http":
            told.append(("protocol.http.allow", "always"))
        return Session(tuple(told))

    def _ssh_file(self, login: Login) -> Path:
        text = ssh_config(login, self.connect_seconds)
        file = self.paths.ssh(text)
        if not file.exists():
            scratch = self.paths.scratch()
            scratch.write_text(text)
            scratch.replace(file)
        return file
