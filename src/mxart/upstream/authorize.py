"""How a server is shown what it knows us by: beforehand where it was learnt, and again when it asks (401).

A token or Basic credentials are shown to the mirror's own origin only; where a redirect leads away from it, only an
anonymous token is ever obtained.  What a mirror wanted is remembered with the mirror.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from mxart.message import Headers
from mxart.upstream.base import Ask
from mxart.upstream.challenge import parse_challenges, render
from mxart.upstream.failure import Cause, Trouble
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
        if own is not None or ask.bare:
            return await send(own)
        credentials = self._credentials if trusted else ANONYMOUS
        want: Want | None = None
        authorization: str | None = None
        token = ""
        if trusted:
            authorization, want, token = await self._forehand(mirror, ask)
        for attempt in range(3):
            exchange = await send(authorization)
            if exchange.status != 401 or attempt == 2:
                return exchange
            try:
                challenges = parse_challenges(exchange.headers.get_all("www-authenticate"))
                bearer = next((challenge for challenge in challenges if challenge.scheme == "bearer"), None)
                basic = any(challenge.scheme == "basic" for challenge in challenges)
                if trusted and basic and bearer is None:
                    mirror.challenge = render(challenges)
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
                    token = await self._token(want)
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
        want = mirror.wants.get(ask.scope) or replace(mirror.realm, scopes=tuple(ask.scope.split()))
        token = await self._token(want)
        return f"Bearer {token}", want, token

    async def _token(self, want: Want) -> str:
        try:
            return await self._tokens.get(want)
        except Trouble as error:
            if error.cause is Cause.UNAUTHORIZED:
                error.challenge = render([want.challenge])
            raise


def challenge_of(mirror: Mirror, ask: Ask, status: int, headers: Headers) -> tuple[str, ...] | None:
    """How a login that might lift a 401 or 403 of the mirror's is asked for; None if it is not about rights.

    A 403 says nothing about that (RFC 9110 section 15.5.4), so it is what was wanted before.  One with a page for
    people is no registry's, but that of a filter on the way.
    """
    said = render(parse_challenges(headers.get_all("www-authenticate")))
    if said:
        return said
    if status == 403 and (headers.get("content-type") or "").lower().startswith("text/html"):
        return None
    if mirror.realm is not None and ask.scope:
        want = mirror.wants.get(ask.scope) or replace(mirror.realm, scopes=tuple(ask.scope.split()))
        return render([want.challenge])
    if mirror.challenge:
        return mirror.challenge
    # Who showed credentials of his own was refused, whatever is known of a login.
    return () if "authorization" in ask.headers else None
