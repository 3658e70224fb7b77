"""What a token is asked for, and what it grants (distribution, docs/content/spec/auth/scope.md). Pure.

    repository:library/alpine:pull,push     repository(plugin):host:5000/name:pull     registry:catalog:*

A scope that cannot be read asks for nothing: a token server answers with less, not with an error, since clients
ask for all that they might need. Only what no client would send is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from mxart.errors import BadRequest

MAX_SCOPES = 100
"""In one token: a build that mounts layers across repositories asks for some dozens."""
MAX_CHARACTERS = 16384
"""Of all scopes together."""

# The name may hold the colon of a port, so it ends at the last one.
_SCOPE = re.compile(
    r"(?P<type>[a-z0-9]{1,32})(?:\([a-z0-9]{1,32}\))?"
    r":(?P<name>[A-Za-z0-9][A-Za-z0-9._:/@-]{0,299})"
    r":(?P<actions>(?:[a-z]{1,32}|\*)(?:,(?:[a-z]{1,32}|\*)){0,15})\Z"
)


class Scope(Struct, frozen=True):
    """Actions on one resource: "repository", "library/alpine", "pull"."""

    type: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def parse_scope(text: str) -> Scope | None:
    """One scope; None if it is none."""
    match = _SCOPE.match(text)
    if match is None:
        return None
    return Scope(match["type"], match["name"], tuple(dict.fromkeys(match["actions"].split(","))))


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Those of all `scope` parameters, each of which may hold several; one for each resource, in order of appearance.

    Raises BadRequest if they are more, or longer, than a client could mean.
    """
    values = tuple(values)
    texts = [text for value in values for text in value.split()]
    if len(texts) > MAX_SCOPES or sum(map(len, values)) > MAX_CHARACTERS:
        raise BadRequest(f"too much is asked for at once: {MAX_SCOPES} scopes of {MAX_CHARACTERS} characters at most")
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for text in texts:
        scope = parse_scope(text)
        if scope is not None:
            resource = (scope.type, scope.name)
            found[resource] = tuple(dict.fromkeys((*found.get(resource, ()), *scope.actions)))
    return tuple(Scope(*resource, actions) for resource, actions in found.items())
