"""How a server is shown what it knows us by: beforehand where it was learnt, and again when it asks (401).

A token or Basic credentials are shown to the mirror's own origin only; where a redirect leads away from it, only an
anonymous token is ever obtained.  What a mirror wanted is remembered with the mirror.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from mxart.upstream.base import Ask
from mxart.upstream.challenge import parse_challenges
from mxart.upstream.mirror import Mirror
from mxart.upstream.pool import Exchange
from mxart.upstream.tokens import ANONYMOUS, Credentials, Fetch, Tokens, Want
from mxart.upstream.url import Origin

Send = Callable[[str | None], Awaitable[Exchange]]
"""Sends the question with this Authorization, None for none."""


class Authorizer:
    """What one upstream's servers are shown. `fetch` is for its token servers."""

    def __init__(self, credentials: Credentials, fetch: Fetch) -> None:
        self._credentials = credentials
        self._tokens = Tokens(fetch)

    async def exchange(self, mirror: Mirror, origin: Origin, ask: Ask, send: Send, *, trusted: bool) -> Exchange:
        """Send it, and once more with a token if one is wanted; again if that token had just died.

        `origin` is the server that is asked now; `trusted`: it is the mirror's own.  Raises Trouble.
        """
        own = ask.headers.get("authorization") if trusted else None
        credentials = self._credentials if trusted else ANONYMOUS
        want: Want | None = None
        authorization = own
        token = ""
        if own is None and trusted:
            authorization, want, token = await self._forehand(mirror, ask)
        for attempt in range(3):
            exchange = await send(authorization)
            if exchange.status != 401 or own is not None or attempt == 2:
                return exchange
            try:
                challenges = parse_challenges(exchange.headers.get_all("www-authenticate"))
                bearer = next((challenge for challenge in challenges if challenge.scheme == "bearer"), None)
                basic = any(challenge.scheme == "basic" for challenge in challenges)
                if bearer is not None and bearer.get("realm") and not credentials.token:
                    fresh = self._tokens.want(bearer, origin, credentials, ask.scope)
                    if want == fresh:
                        if attempt and bearer.get("error") != "invalid_token":
                            return exchange  # a new token, and still no: another one will not help
                        self._tokens.reject(fresh, token)
                    want = fresh
                    if trusted:
                        mirror.remember(ask.scope, want)
                    await exchange.finish()
                    token = await self._tokens.get(want)
                    authorization = f"Bearer {token}"
                elif basic and credentials.basic is not None and authorization != credentials.basic:
                    await exchange.finish()
                    authorization, want, token = credentials.basic, None, ""
                    mirror.basic = True
                else:
                    return exchange
            except BaseException:
                await exchange.aclose()
                raise
        raise AssertionError("the last attempt returns")

    async def _forehand(self, mirror: Mirror, ask: Ask) -> tuple[str | None, Want | None, str]:
        """What to show before being asked: a static token, Basic where it was wanted, a token like the last ones."""
        if self._credentials.token:
            return f"Bearer {self._credentials.token}", None, ""
        if mirror.basic:
            return self._credentials.basic, None, ""
        if mirror.realm is None or not ask.scope:
            return None, None, ""
        want = mirror.wants.get(ask.scope) or replace(mirror.realm, scopes=(ask.scope,))
        token = await self._tokens.get(want)
        return f"Bearer {token}", want, token
