"""Who asks: what a request shows of the client behind it, and what he may do here."""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace

from mxart.access.base import ANYBODY, Grants
from mxart.discreet import Discreet
from mxart.message import Headers


class Caller(Discreet, frozen=True):
    """Who asks.

    `authorization` is for an upstream's eyes: the Authorization field of the request, "" if there is none or its
    credentials are ours.  `name` is our user, "" for nobody in particular, `token` the number of the token of his that
    stands behind the request, and `grants` what this request may do here.
    """

    hidden: ClassVar = frozenset({"authorization", "grants"})

    authorization: str = ""
    name: str = ""
    token: str = ""
    grants: Grants = ANYBODY

    @classmethod
    def of(cls, headers: Headers) -> Caller:
        """Whoever sends several, or of a kind that no registry takes, shows nothing."""
        values = headers.get_all("authorization")
        if len(values) != 1:
            return NOBODY  # nearly everybody
        caller = cls(values[0])
        shown = caller.authorization
        fit = caller.scheme in ("basic", "bearer") and shown.isascii() and shown.isprintable()
        return caller if fit else NOBODY

    @property
    def scheme(self) -> str:
        """The kind of credentials, in lower case (RFC 9110 section 11.1); "" for none."""
        return self.authorization.partition(" ")[0].lower()

    def unshown(self) -> Caller:
        """The same caller, whose credentials are not for this upstream."""
        return replace(self, authorization="") if self.authorization else self


NOBODY = Caller()
