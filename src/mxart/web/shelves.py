"""Which repositories keep what one shows: itself, or the members of a group, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from mxart.config import Repository as Settings
from mxart.errors import NotFound
from mxart.repos.callers import Caller
from mxart.store.contents import Contents

RepositoryName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z", description="A repository's name.")]
PackageName = Annotated[str, Meta(min_length=1, max_length=255, description="A package: library/alpine.")]


class Shelves:
    """The configuration's repositories by name, and what they keep."""

    def __init__(self, settings: Mapping[str, Settings], contents: Contents) -> None:
        self.settings = settings
        self.contents = contents

    def found(self, name: str) -> Settings:
        """Raises NotFound."""
        settings = self.settings.get(name)
        if settings is None:
            raise NotFound(f"there is no repository {name}", subject="repository")
        return settings

    def keepers(self, name: str) -> list[str]:
        """The repositories that keep what this one shows; each once. Raises NotFound."""
        settings = self.found(name)
        if settings.kind != "group":
            return [name]
        return [*dict.fromkeys(keeper for member in settings.members for keeper in self.keepers(member))]

    def holders(self, repository: str, package: str, caller: Caller) -> list[str]:
        """Those of them that have a package which the caller may read there: where it is published, only those.

        Raises NotFound.
        """
        held = [name for name in self.keepers(repository) if self.contents.has_package(name, package)]
        owned = [name for name in held if self.settings[name].kind == "local"]
        readable = [name for name in owned or held if caller.grants.may("read", name, package)]
        if not readable:
            raise NotFound(f"{repository} keeps nothing of {package!r}", subject="package")
        return readable
