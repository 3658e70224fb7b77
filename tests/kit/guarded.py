"""An upstream in memory that lets everybody see what is public, and its users what is theirs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from kit.repos import FakeUpstream
from mxart.errors import UpstreamDenied
from mxart.upstream.base import Ask, Reply

CHALLENGE = 'Bearer realm="https://auth.registry.example/token",service="registry.example"'


class Guarded(FakeUpstream):
    """`public` are packages; `users` are credentials, as shown, and the packages that they may see."""

    def __init__(self, challenge: str = CHALLENGE) -> None:
        super().__init__()
        self.challenge = challenge
        self.public: set[str] = set()
        self.users: dict[str, set[str]] = {}
        self.forbids = False  # 403 to whoever is known
        self.gate: trio.Event | None = None  # nobody is judged before it opens

    def shown(self) -> list[str]:
        """The credentials of each question, in order."""
        return [ask.headers.get("authorization") or "" for ask in self.asks]

    def asked_as(self, credential: str) -> list[str]:
        """What was asked as one user; "" is as ourselves."""
        return [line for line, shown in zip(self.asked, self.shown(), strict=True) if shown == credential]

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        shown = ask.headers.get("authorization") or ""
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is None and not self._lets(ask, shown):
            self.asked.append(f"{ask.method} {ask.path}")
            self.asks.append(ask)
            error = ',error="insufficient_scope"' if shown or not ask.bare else ""
            raise UpstreamDenied(
                f"{self.name} answers 401",
                challenge=(f"{self.challenge}{error}",),
                forbidden=self.forbids and shown in self.users,
            )
        async with super().open(ask) as reply:
            yield reply

    def _lets(self, ask: Ask, shown: str) -> bool:
        if "/referrers/" in ask.path and ask.path not in self.answers:
            return True  # an address that it does not know, whoever asks
        match = re.match(r"(?:v2/)?(.+)/(?:manifests|blobs|tags|referrers|@v)/", ask.path)
        if match is None:  # the ping
            return shown in self.users
        return match[1] in self.public or match[1] in self.users.get(shown, set())
