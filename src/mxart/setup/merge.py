"""Puts our settings into what the user has, key by key, and loses nothing of his. Pure.

JSON keeps the order of its keys and its indentation, TOML also its comments.  In lists, what is
missing is added in front.  A value that the user has set otherwise is a conflict: the text then has
ours.  What needs no change comes back as it was, byte for byte.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from mxart.setup.plan import Conflict, SetupError

Value = str | int | bool | list[str] | Mapping[str, "Value"]
Wanted = Mapping[str, Value]
Merged = tuple[str, tuple[Conflict, ...]]

_HOST_TABLE = re.compile(r"""^[ \t]*\[[ \t]*(?:host|"host"|'host')[ \t]*[.\]]""", re.MULTILINE)


def merge_json(path: str, text: str | None, wanted: Wanted) -> Merged:
    """Raises SetupError if the text is not a JSON object."""
    if not (text or "").strip():
        return json.dumps(wanted, indent=2) + "\n", ()
    old = text or ""
    try:
        document = json.loads(old, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{path} is not JSON, nothing was changed: {error}") from None
    if not isinstance(document, dict):
        raise SetupError(f"{path} is not a JSON object, nothing was changed")
    conflicts: list[Conflict] = []
    if not _merge(path, "", document, wanted, conflicts):
        return old, ()
    indent = re.search(r"\n([ \t]+)\S", old)
    return json.dumps(document, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n", tuple(conflicts)


def merge_toml(path: str, text: str | None, wanted: Wanted) -> Merged:
    """Raises SetupError if the text is not TOML."""
    document = parse_toml(path, text or "")
    conflicts: list[Conflict] = []
    if not _merge(path, "", document, wanted, conflicts):
        return text or "", ()
    merged = tomlkit.dumps(document)
    if _plain(tomllib.loads(merged)) != _plain(document.unwrap()):
        raise SetupError(f"{path} cannot be changed without losing something: it has to be done by hand")
    return merged, tuple(conflicts)


def merge_hosts(path: str, text: str | None, url: str, wanted: Wanted) -> Merged:
    """containerd's hosts.toml with `url` tried before every other host, as their order in the file says.

    Raises SetupError if the text is not TOML.
    """
    mine = f"[host.{json.dumps(url)}]\n" + "".join(f"  {key} = {json.dumps(value)}\n" for key, value in wanted.items())
    if not (text or "").strip():
        return mine, ()
    old = text or ""
    document = parse_toml(path, old).unwrap()
    if url in table_of(path, document, "host"):
        return merge_toml(path, old, {"host": {url: wanted}})
    first = _HOST_TABLE.search(old)
    before, after = (old[: first.start()], "\n" + old[first.start() :]) if first else (_ended(old) + "\n", "")
    merged = before + mine + after
    expected = {**document, "host": {**document.get("host", {}), url: dict(wanted)}}
    try:
        right = tomllib.loads(merged) == expected
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise SetupError(f"{path} is written in a way that cannot be added to: it has to be done by hand:\n{mine}")
    return merged, ()


def parse_toml(path: str, text: str) -> tomlkit.TOMLDocument:
    """Raises SetupError."""
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError) as error:
        raise SetupError(f"{path} is not TOML, nothing was changed: {error}") from None


def table_of(path: str, document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The table that is there by these keys, one below the other; an empty one if there is none. Raises SetupError."""
    found: Any = document
    for depth, key in enumerate(keys, 1):
        found = found.get(key, {})
        if not isinstance(found, Mapping):
            raise SetupError(f"{path}: {'.'.join(keys[:depth])} is not a table, nothing was changed")
    return cast("Mapping[str, Any]", found)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError where a key stands twice: one of the values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is there twice")
    return found


def _no_constant(text: str) -> object:
    """Raises ValueError: NaN and the like are Python's alone."""
    raise ValueError(f"there is no {text} in JSON")


def _merge(path: str, above: str, there: MutableMapping[str, Any], wanted: Wanted, conflicts: list[Conflict]) -> bool:
    """Whether anything had to change."""
    changed = False
    for key, value in wanted.items():
        place = f"{above}.{key}" if above else key
        if key not in there:
            there[key] = _made(value, there)
            changed = True
        elif isinstance(value, Mapping) and isinstance(there[key], MutableMapping):
            changed |= _merge(path, place, there[key], value, conflicts)
        elif isinstance(value, list) and isinstance(there[key], list):
            missing = [item for item in value if item not in there[key]]
            for item in reversed(missing):
                there[key].insert(0, item)
            changed |= bool(missing)
        elif there[key] != value or isinstance(there[key], bool) != isinstance(value, bool):
            if there[key] not in ("", None):  # as good as nothing: what generated files say of what is not set
                conflicts.append(Conflict(path, place, _unwrapped(there[key]), value))
            there[key] = _made(value, there)
            changed = True
    return changed


def _made(value: Value, beside: MutableMapping[str, Any]) -> Any:
    """A value to put into a JSON object, or a table of TOML with nothing but tables in it into TOML."""
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, list) else value
    if isinstance(beside, dict) and not hasattr(beside, "unwrap"):
        return dict(value)
    table = tomlkit.table(is_super_table=all(isinstance(item, Mapping) for item in value.values()))
    for key, item in value.items():
        table[key] = _made(item, cast("MutableMapping[str, Any]", table))
    return table


def _unwrapped(value: Any) -> object:
    return value.unwrap() if hasattr(value, "unwrap") else value


def _plain(value: Any) -> object:
    """For comparing: dates and numbers of two parsers as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
