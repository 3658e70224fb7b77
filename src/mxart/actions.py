"""What can be done to a package of a repository, in the words of `[[permission]]` and of tokens' ceilings."""

from __future__ import annotations

from typing import Literal, get_args

Action = Literal["read", "fetch", "publish", "overwrite", "delete", "manage"]
"""read: what is kept here.  fetch: have a proxy ask its upstream for what is not.  publish: new files.  overwrite: move
a tag, replace a file that may change.  delete.  manage: the repository itself, by the API."""

ACTIONS: tuple[Action, ...] = get_args(Action)
READING = frozenset[Action](("read", "fetch"))
