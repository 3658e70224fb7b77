"""What is remembered of each server of an upstream: its health, and how it wants to be asked."""

from __future__ import annotations

from msgspec import Struct, field

from mxart.errors import ConfigError
from mxart.upstream.breaker import Breaker
from mxart.upstream.tokens import Want
from mxart.upstream.url import Url

_REMEMBERED = 1024


class Mirror(Struct, eq=False):
    """One server that has what the upstream has, and how it fares."""

    text: str  # as configured
    url: Url
    breaker: Breaker = field(default_factory=Breaker)
    rests_until: float = 0.0  # what its Retry-After said, on trio's clock
    last_trouble: str = "it failed several times in a row"
    wants: dict[str, Want] = field(default_factory=dict)  # what its challenges wanted, by the scope of the question
    realm: Want | None = None  # the last of these
    basic: bool = False  # it wants Basic on every request
    challenge: tuple[str, ...] = ()  # the last one that wanted Basic and nothing else

    @classmethod
    def parse(cls, name: str, text: str) -> Mirror:
        """From a repository's name and its `upstream`. Raises ConfigError."""
        try:
            return cls(text, Url.parse(text.rstrip("/")))
        except ValueError as error:
            raise ConfigError(f"repository.{name}: upstream: {error}") from None

    def wait(self, now: float) -> float | None:
        """None if it may be asked now; else for how many seconds it is left alone."""
        waits = [self.rests_until - now] if now < self.rests_until else []
        if (rest := self.breaker.wait(now)) is not None:
            waits.append(rest)
        return max(waits) if waits else None

    def remember(self, scope: str, want: Want) -> None:
        """Next time the token is shown before it is asked for."""
        self.realm = want
        if len(self.wants) >= _REMEMBERED:
            self.wants.clear()
        self.wants[scope] = want
