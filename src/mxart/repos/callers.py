"""Who asks: what a request shows of the client behind it, and what he may do here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mxart.access.base import ANYBODY, Grants
from mxart.message import Headers


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    `authorization` is for an upstream's eyes: the Authorization field of the request, "" if there is none or its
    credentials are ours.  `name` is our user, "" for nobody in particular, `token` the number of the token of his that
    stands behind the request, and `grants` what this request may do here.
    """

    authorization: str = field(default="", repr=False)
    name: str = ""
    token: str = ""
    grants: Grants = field(default=ANYBODY, repr=False, compare=False)

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
