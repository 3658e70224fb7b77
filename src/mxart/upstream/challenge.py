"""WWW-Authenticate, read leniently (RFC 9110 section 11.6.1): several challenges, quoted or bare values. Pure.

`render` writes them strictly, to pass them on.

    WWW-Authenticate: Basic realm="x", Bearer realm="https://auth.example/token",service=example,scope="a b"

A comma separates both parameters and challenges.  What tells them apart: a parameter is a token with
"=" and a value behind it, a scheme is a token with a space or a comma (or nothing) behind it.
Registries send values that grammar would refuse bare (`realm=https://host/token`), so a bare value
runs to the next comma or space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110's word, not a secret
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)("|\Z)|([^\s,"]+))', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|\Z)")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_PASSED_ON = ("basic", "bearer")
_MOST_CHALLENGES = 8
_LONGEST = 4096


class Challenge(Struct, frozen=True):
    """One way to authenticate. `scheme` and the names of `parameters` are lower case."""

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str) -> str:
        """A parameter, "" where it is missing."""
        return self.parameters.get(name, "")


def parse_challenges(lines: Iterable[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate fields, in order.

    What cannot be read is skipped, never an error: whoever finds no challenge it knows says so.
    """
    found: list[Challenge] = []
    for line in lines:
        found += _parse_line(line)
    return found


def render(challenges: Iterable[Challenge], *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Challenges as values of WWW-Authenticate, one each: those for a login, at most a few of sensible length.

    `without` are parameters that are not for the reader's eyes.
    """
    lines = [_line(challenge, without) for challenge in challenges if challenge.scheme in _PASSED_ON]
    return tuple(line for line in lines[:_MOST_CHALLENGES] if len(line) <= _LONGEST)


def _line(challenge: Challenge, without: tuple[str, ...]) -> str:
    parameters = ",".join(
        f'{name}="{_quoted(value)}"' for name, value in challenge.parameters.items() if name not in without
    )
    return f"{challenge.scheme.capitalize()} {parameters}".rstrip()


def _quoted(value: str) -> str:
    """The inside of a quoted-string (RFC 9110 section 5.6.4)."""
    return "".join(f"\\{char}" if char in '\\"' else char for char in value if " " <= char <= "~")


def _parse_line(line: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    at = 0
    while at < len(line):
        if match := _PARAMETER.match(line, at):
            if found:  # parameters in front of any scheme belong to nobody
                quoted, bare = match[2], match[4]
                parameters.setdefault(match[1].lower(), bare if quoted is None else _ESCAPE.sub(r"\1", quoted))
            at = match.end()
        elif match := _SCHEME.match(line, at):
            parameters = {}
            found.append(Challenge(match[1].lower(), parameters))
            at = match.end()
            if blob := _TOKEN68.match(line, at):
                at = blob.end()
        else:
            at += 1  # white space, commas, and whatever else stands there
    return found
