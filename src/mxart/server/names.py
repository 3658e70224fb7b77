"""Names in the scopes of tokens are as clients see them: which repositories and packages they are here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote, urlsplit

from mxart.access.base import Action
from mxart.access.control import Place, Scopes
from mxart.access.scopes import Scope
from mxart.config import Config
from mxart.domains import registrable_domain
from mxart.errors import Problem
from mxart.message import Request
from mxart.repos.base import Format
from mxart.repos.operations import Listing
from mxart.server.routes import Routes, ToRepository, host_of, query_value

_SUFFIX = "/tags/list"
_ACTIONS: dict[str, frozenset[Action]] = {
    "pull": frozenset(("read", "fetch")),
    "push": frozenset(("publish", "overwrite")),
    "delete": frozenset(("delete",)),
}
_DECIDING: dict[str, Action] = {"pull": "read", "push": "publish", "delete": "delete"}


class Names:
    """Where scopes lead. `format_of` gives the format of a repository, `reach` what may be asked through it."""

    def __init__(
        self,
        routes: Routes,
        format_of: Callable[[str], Format],
        reach: Mapping[str, Sequence[str]],
        token_hosts: Iterable[str] = (),
        url: str = "",
    ) -> None:
        self._routes = routes
        self._format_of = format_of
        self._reach = reach
        self._token_hosts = frozenset(token_hosts)
        self._url_authority = urlsplit(url).netloc

    def place(self, request: Request, name: str, service: str = "") -> Place | None:
        """The repository and package that the client means by a name; None if there is none.

        On a host of the token server it is the registry's host that counts, which `service` may tell.
        """
        found = self._find(request, name, service)
        return (found[0], self._adopted(*found)) if found is not None else None

    def _find(self, request: Request, name: str, service: str) -> Place | None:
        """As the client writes the package."""
        namespace = query_value(request.query, "ns")
        query = f"ns={quote(namespace, safe='')}" if namespace else ""
        for authority, sni in self._registries(request, service):
            try:
                to = self._routes.find(authority, sni, f"/v2/{quote(name)}{_SUFFIX}", query)
            except Problem:
                continue
            if isinstance(to, ToRepository):
                return to.repository, to.path.removeprefix("/v2/").removesuffix(_SUFFIX)
        return None

    def _registries(self, request: Request, service: str) -> list[tuple[str, str | None]]:
        host = host_of(request.authority)
        asked = next((name for name in (host, request.peer.sni) if name in self._token_hosts), None)
        if asked is None:
            return [(request.authority, request.peer.sni)]
        family = registrable_domain(asked)
        same = [name for name in self._routes.hosts if registrable_domain(name) == family]
        return [(name, None) for name in ([service] if service else []) + same]

    def _adopted(self, repository: str, package: str) -> str:
        return self._format_of(repository).adopt(Listing(package, "", "name", "tags")).package

    def scopes(self, request: Request, scopes: Iterable[Scope]) -> Scopes:
        """What the scopes of a token let its bearer do here."""
        places: dict[Place, frozenset[Action]] = {}
        catalog = False
        for scope in scopes:
            if scope.type == "registry" and scope.name == "catalog":
                catalog = True
            place = self._find(request, scope.name, "") if scope.type == "repository" else None
            if place is None:
                continue
            actions = frozenset[Action]().union(*(actions_of(word) for word in scope.actions))
            repository, package = place
            for reached in (repository, *self._reach.get(repository, ())):
                for name in {package, self._adopted(reached, package)}:
                    places[reached, name] = places.get((reached, name), frozenset()) | actions
        return Scopes(places, catalog)

    def is_service(self, service: str, request: Request, by: str) -> bool:
        """Whether a token for a service is for the registry that this request is for.

        Where we stand for a registry, its token server's name for it may be another one of its domain.
        """
        if service in {request.authority, self._url_authority or request.authority}:
            return True
        try:
            host, theirs = host_of(request.authority) or request.peer.sni or "", host_of(service)
        except Problem:
            return False
        return service == host or (by == "host" and registrable_domain(theirs) == registrable_domain(host))


def actions_of(word: str) -> frozenset[Action]:
    """What an action of a scope covers: pull, push, delete, or all of them."""
    if word == "*":
        return frozenset[Action]().union(*_ACTIONS.values())
    return _ACTIONS.get(word, frozenset())


def words_granted(asked: Iterable[str], may: Callable[[Action], bool]) -> tuple[str, ...]:
    """Of the actions of a scope those that somebody may do; "*" becomes those of the three that he may."""
    found: dict[str, None] = {}
    for word in asked:
        for one in _DECIDING if word == "*" else (word,):
            if one in _DECIDING and may(_DECIDING[one]):
                found[one] = None
    return tuple(found)


def reach_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Every repository that may be asked through another: its members, theirs, and whom it hands publications to."""

    def walk(name: str, seen: dict[str, None]) -> None:
        repository = config.repositories[name]
        for other in (*repository.members, *repository.targets):
            if other not in seen:
                seen[other] = None
                walk(other, seen)

    found = {}
    for name in config.repositories:
        seen: dict[str, None] = {}
        walk(name, seen)
        found[name] = tuple(seen)
    return found
