"""What the API can do, as a table of operations. Pure.

An operation says everything that is to be known about it: method, path, what it takes and gives as msgspec structs, and
what its caller needs.  Requests are dispatched and decoded by the table, and the OpenAPI document (module openapi) is
written from it, so the two cannot disagree.

    path        segments; "{name}" is one of `where`'s fields, percent-escaped, a slash within it as %2F
    where       the struct of all parameters: those that the path names, the others are the query's
    body        the struct of the JSON that is sent; Nothing: none
    answers     the struct of the JSON that comes back; Nothing: 204
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Generic, Literal, TypeVar, cast, get_args, get_type_hints
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta, Struct

from mxart.access.base import Action
from mxart.errors import BadRequest
from mxart.message import Request
from mxart.repos.callers import Caller

MAX_PAGE = 1000

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
METHODS: tuple[Method, ...] = get_args(Method)

_MAX_FIELDS = 32
_PARAMETER = re.compile(r"\{(\w+)\}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="How many entries at most.")]
After = Annotated[str, Meta(max_length=512, description="Entries after this one: `next` of the page before.")]


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all structs of the API derive from: a field that is not theirs is refused."""


class Nothing(Record, frozen=True, kw_only=True):
    """No parameters, no body, no answer."""


class Paged(Record, frozen=True, kw_only=True):
    """The parameters of a list."""

    limit: Limit = 100
    after: After = ""


P = TypeVar("P", bound=Record)
B = TypeVar("B", bound=Record)


class Needs(Struct, frozen=True):
    """What a caller must be allowed. `repository` and `package` name the parameters that say of what.

    No action: anybody may ask, and is shown what he may read.  `login`: somebody in particular.  Without a
    `repository` it is on all of them ("*").  `own`: the parameter that names a user, who needs no more than to be that.
    `by_work`: the work itself demands it, of the repository that it ends up in, which may be a member of that one.
    """

    action: Action | None = None
    repository: str = ""
    package: str = ""
    login: bool = False
    own: str = ""
    by_work: bool = False

    def told(self, *, changes: bool) -> str:
        """In words. `changes`: whether something is changed."""
        if self.action is None:
            return "Needs a login." if self.login else "Anybody may ask; shown is what the caller may read."
        of = (
            f"the package of the repository that `{self.repository}` names"
            if self.package
            else (f"the repository that `{self.repository}` names" if self.repository else 'every repository ("*")')
        )
        by = ", with the password, not a token" if changes else ""
        own = f" or to be the user that `{self.own}` names{by}" if self.own else ""
        return f"Needs the action `{self.action}` on {of}{own}."


ANYBODY = Needs()


class Asked(Struct, Generic[P, B], frozen=True):
    """A request for an operation, decoded. The caller is allowed what the operation needs."""

    request: Request
    caller: Caller
    where: P
    body: B


class Operation(Struct, Generic[P, B], frozen=True):
    """One line of the table. `name` is unique, and the document's operationId; `tag` groups operations there.

    `changes`: a call is noted in the audit log.  `secret`: nobody may keep the answer.
    """

    name: str
    method: Method
    path: str
    summary: str
    needs: Needs
    where: type[P]
    body: type[B]
    answers: type[Record]
    do: Callable[[Asked[P, B]], Awaitable[Record]]
    tag: str
    status: int = 200
    secret: bool = False

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    @property
    def takes_body(self) -> bool:
        return self.body is not Nothing

    @property
    def in_path(self) -> tuple[str, ...]:
        """The parameters in the path."""
        return tuple(match[1] for part in self.path.split("/") if (match := _PARAMETER.match(part)))

    def parameters(self, query: str, in_path: dict[str, str]) -> P:
        """Decode the parameters. Raises BadRequest, whose subject is the one that is wrong."""
        values: dict[str, str] = dict(in_path)
        known = [name for name in self.where.__struct_encode_fields__ if name not in in_path]
        for name, value in _query(query):
            if name not in known:
                right = f"known here: {', '.join(known)}" if known else "there are none here"
                raise BadRequest(f"unknown query parameter {name!r}; {right}", subject=name)
            if name in values:
                raise BadRequest(f"{name}: given more than once", subject=name)
            values[name] = value
        try:
            return msgspec.convert(values, self.where, strict=False)
        except msgspec.ValidationError as error:
            raise _told(error, self.where) from None

    def sent(self, body: bytes) -> B:
        """Decode the body. Raises BadRequest, whose subject is the field that is wrong."""
        if not self.takes_body:
            return self.body()
        try:
            return msgspec.json.decode(body, type=self.body)
        except msgspec.ValidationError as error:
            raise _told(error, self.body) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None


class Match(Struct, frozen=True):
    """A path of the table: what it names, and which operations there are by method."""

    in_path: dict[str, str]
    operations: dict[str, Operation[Record, Record]]

    @property
    def allow(self) -> str:
        """The value of the Allow field."""
        return ", ".join(method for method in ("GET", "HEAD", *METHODS[1:]) if self.of(method) is not None)

    def of(self, method: str) -> Operation[Record, Record] | None:
        return self.operations.get("GET" if method == "HEAD" else method)


class Table:
    """All operations. Raises ValueError if they cannot be told apart, or a path names what is no parameter."""

    def __init__(self, operations: Iterable[Operation[Record, Record]]) -> None:
        self.operations = tuple(operations)
        self._paths: dict[tuple[str, ...], dict[str, Operation[Record, Record]]] = {}
        names: set[str] = set()
        for operation in self.operations:
            # Parameters of one place have one name, so that the shape alone tells two paths apart.
            shape = tuple("{}" if _PARAMETER.match(part) else part for part in operation.path[1:].split("/"))
            methods = self._paths.setdefault(shape, {})
            if operation.method in methods or operation.name in names:
                raise ValueError(f"{operation.name}: {operation.method} {operation.path} is there already")
            if not set(operation.in_path) <= set(operation.where.__struct_encode_fields__):
                raise ValueError(f"{operation.name}: the path names what is no parameter")
            if methods and next(iter(methods.values())).path != operation.path:
                raise ValueError(f"{operation.name}: another operation has this path with other names")
            methods[operation.method] = operation
            names.add(operation.name)

    def find(self, path: str) -> Match | None:
        """The operations at an escaped path below PREFIX; None if there are none.

        Raises BadRequest where an escape is broken.
        """
        parts = path[1:].split("/")
        if not path.startswith("/") or "" in parts:
            return None
        for shape, operations in self._paths.items():
            if len(shape) == len(parts) and all(want in ("{}", part) for want, part in zip(shape, parts, strict=True)):
                names = next(iter(operations.values())).in_path
                taken = (part for want, part in zip(shape, parts, strict=True) if want == "{}")
                return Match({name: _unescape(part) for name, part in zip(names, taken, strict=True)}, operations)
        return None


def when(seconds: float) -> datetime:
    """A moment as the API shows it: UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC)


def operation(
    name: str,
    method: Method,
    path: str,
    summary: str,
    needs: Needs,
    do: Callable[[Asked[P, B]], Awaitable[Record]],
    *,
    tag: str,
    status: int = 0,
    secret: bool = False,
) -> Operation[Record, Record]:
    """A line of the table. What it takes and gives is what the annotations of `do` say."""
    told = get_type_hints(do)
    where, body = get_args(told["asked"])
    answers = told["return"]
    line = Operation(
        name,
        method,
        path,
        summary,
        needs,
        where,
        body,
        answers,
        do,
        tag,
        status or (204 if answers is Nothing else 200),
        secret,
    )
    # The table holds all kinds; what `do` takes is made by the line's own `parameters` and `sent`, and by nothing else.
    return cast("Operation[Record, Record]", line)


def _unescape(part: str) -> str:
    try:
        text = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("the path holds an escape that is not UTF-8") from None
    if re.search(r"%(?![0-9A-Fa-f]{2})", part) or _CONTROL.search(text):
        raise BadRequest("the path holds a broken escape, or one of a control character")
    return text


def _query(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadRequest(f"the query cannot be read: at most {_MAX_FIELDS} parameters, escaped as UTF-8") from None


def _told(error: msgspec.ValidationError, kind: type[Record]) -> BadRequest:
    text, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    known = kind.__struct_encode_fields__
    if not place and "field `" in text:  # unknown, or missing: the field is in the text
        subject = text.partition("field `")[2].partition("`")[0]
        text = text.replace("Object contains unknown", "unknown").replace("Object missing required", "missing required")
        if text.startswith("unknown"):
            text += f"; known here: {', '.join(known)}" if known else "; there are none here"
        return BadRequest(text, subject=subject)
    text = text[:1].lower() + text[1:]
    described = _descriptions(kind).get(place, "")
    text += f" ({described[:1].lower()}{described[1:].removesuffix('.')})" if described else ""
    return BadRequest(f"{place}: {text}" if place else f"the body: {text}", subject=place)


@cache  # there are as many as the table has kinds
def _descriptions(kind: type[Record]) -> dict[str, str]:
    """What the fields are, where that is said: a pattern alone tells people little."""
    hints = get_type_hints(kind, include_extras=True)
    metas = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {
        name: meta.description
        for name, found in metas.items()
        for meta in found
        if isinstance(meta, Meta) and meta.description
    }
