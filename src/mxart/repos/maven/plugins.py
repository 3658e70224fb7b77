"""What a group's list of plugins says: notes, for no file tells the prefix of one. Pure.

`mvn site:run` finds its plugin by `<prefix>site</prefix>` in the list of a group.  Who deploys a plugin says its
prefix there, by the way.
"""

from __future__ import annotations

PLUGIN = "plugin "
"""The begin of the key of a note on a group's directory; what follows is the artifact."""


def value(prefix: str, name: str) -> str:
    """A note of a plugin's prefix, and its name for people."""
    return f"{prefix} {name}"


def told(note: str) -> tuple[str, str]:
    """The prefix and the name that a note tells."""
    prefix, _, name = note.partition(" ")
    return prefix, name
