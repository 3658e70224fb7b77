"""Configurations from text, and files in memory as planners of clients' settings read them."""

from __future__ import annotations

import posixpath

from mxart.config import Config
from mxart.config_file import decode
from mxart.setup.plan import Plan


class Kept(dict[str, str]):
    """Texts by path (plan.Files)."""

    def read(self, path: str) -> str | None:
        return self.get(path)

    def names(self, folder: str) -> list[str] | None:
        found = {path[len(folder) + 1 :].partition("/")[0] for path in self if path.startswith(f"{folder}/")}
        return sorted(found) or None

    def after(self, plan: Plan) -> Kept:
        """These, with a plan carried out."""
        assert all(posixpath.isabs(change.path) for change in plan.changes)
        return Kept({**self, **{change.path: change.content for change in plan.changes}})


def configured(text: str) -> Config:
    """The configuration that a file with this text gives."""
    return decode(text, file="mxart.toml", environment={})
