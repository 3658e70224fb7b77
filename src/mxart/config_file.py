"""Reads the configuration file (TOML), strictly.

Every table is converted by itself, so that an error names it; what it says is the file, the key and
what would be right.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from mxart.config import (
    Config,
    Count,
    Dns,
    Gc,
    GoSettings,
    Limits,
    Listener,
    Name,
    Replicate,
    Repository,
    Store,
    Tls,
    TokenServer,
    Tunnel,
    Upstreams,
    default_repositories,
    default_tunnels,
)
from mxart.config_access import AccessSettings, Permission
from mxart.config_check import check
from mxart.errors import ConfigError

_T = TypeVar("_T")


class _Decoder:
    """Converts tables one by one, naming each in its errors."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self.file = file
        self.environment = environment

    def fail(self, place: str, why: str) -> ConfigError:
        return ConfigError(f"{self.file}: {place}: {why}" if place else f"{self.file}: {why}")

    def expand(self, value: Any, place: str) -> Any:
        """Replace `${NAME}` in every string below."""
        if isinstance(value, str):

            def one(match: re.Match[str]) -> str:
                found = self.environment.get(match[1])
                if found is None:
                    raise self.fail(place, f"the environment has no variable {match[1]}")
                return found

            return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", one, value)
        if isinstance(value, list):
            return [self.expand(item, f"{place}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.expand(item, f"{place}.{key}" if place else key) for key, item in value.items()}
        return value

    def convert(self, value: Any, place: str, kind: type[_T]) -> _T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            text, _, where = str(error).partition(" - at `$")
            where = where.rstrip("`")
            known = getattr(_table_at(kind, where), "__struct_fields__", ())
            if "unknown field" in text and known:
                text += "; known here: " + ", ".join(name for name in known if name != "name")
            if "enum value" in text and (values := _values(kind, where)):
                text += "; write one of " + ", ".join(values)
            raise self.fail(place + where, text[:1].lower() + text[1:]) from None

    def table(self, document: dict[str, Any], key: str) -> dict[str, Any]:
        value = document.pop(key, {})
        if not isinstance(value, dict):
            raise self.fail(key, f"expected a table: write [{key}.NAME]")
        return value

    def tables(self, document: dict[str, Any], key: str) -> list[Any]:
        value = document.pop(key, [])
        if not isinstance(value, list):
            raise self.fail(key, f"expected a list of tables: write [[{key}]]")
        return value


def _table_at(kind: type, where: str) -> type | None:
    """What the table at ".key" or ".key[0]" of a table is; None where it is none of ours."""

    def tables(annotation: Any) -> list[type]:
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            return [annotation]
        return [table for part in get_args(annotation) for table in tables(part)]

    for name in re.findall(r"\.(\w+)", where):
        found = tables(get_type_hints(kind).get(name))
        if not found:
            return None
        kind = found[0]
    return kind


def _values(kind: type, where: str) -> list[str]:
    """What the field at ".key" or ".key[0]" of a table may be, where that is one of some words."""

    def words(annotation: Any) -> list[str]:
        if get_origin(annotation) is Literal:
            return [str(word) for word in get_args(annotation)]
        return [word for part in get_args(annotation) for word in words(part)]

    return list(dict.fromkeys(words(get_type_hints(kind).get(re.split(r"[.\[]", where)[1]))))


def decode(
    text: str,
    *,
    file: str,
    environment: Mapping[str, str],
    data: str | None = None,
    workers: int | None = None,
    listen: tuple[str, ...] = (),
    tls: bool = False,
) -> Config:
    """Turn a configuration file's text, and what the command line says over it, into a checked Config.

    Raises ConfigError.
    """
    decoder = _Decoder(file, environment)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise decoder.fail("", str(error)) from None
    document = cast("dict[str, Any]", decoder.expand(document, ""))
    named_data = decoder.convert(document.pop("data", "mxart-data"), "data", str)
    named_workers = decoder.convert(document.pop("workers", 0), "workers", Count)
    listeners = tuple(
        decoder.convert(item, f"listener[{index}]", Listener)
        for index, item in enumerate(decoder.tables(document, "listener"))
    )
    if listen:
        listeners = tuple(Listener(address=address, tls=tls) for address in listen)
    elif not listeners:
        listeners = (Listener(address="127.0.0.1:8080", tls=tls),)
    tls_table = decoder.convert(document.pop("tls", {}), "tls", Tls)
    upstreams = decoder.convert(document.pop("upstreams", {}), "upstreams", Upstreams)
    stores = {
        decoder.convert(name, f"store.{name}", Name): decoder.convert(item, f"store.{name}", Store)
        for name, item in decoder.table(document, "store").items()
    }
    repositories: dict[str, Repository] = {}
    for name, item in decoder.table(document, "repository").items():
        place = f"repository.{name}"
        decoder.convert(name, place, Name)
        if isinstance(item, dict) and "name" in item:
            raise decoder.fail(f"{place}.name", "the table's own name is the repository's name; leave this out")
        repositories[name] = msgspec.structs.replace(decoder.convert(item, place, Repository), name=name)
    tunnels = tuple(
        decoder.convert(item, f"tunnel[{index}]", Tunnel)
        for index, item in enumerate(decoder.tables(document, "tunnel"))
    )
    dns = decoder.convert(document.pop("dns"), "dns", Dns) if "dns" in document else None
    if dns is not None and not upstreams.nameservers:
        # Whoever runs our DNS has clients, and perhaps this machine itself, ask it: it must not lead us to ourselves.
        upstreams = msgspec.structs.replace(upstreams, nameservers=dns.forward)
    token_server = decoder.convert(document.pop("token_server", {}), "token_server", TokenServer)
    permissions = tuple(
        decoder.convert(item, f"permission[{index}]", Permission)
        for index, item in enumerate(decoder.tables(document, "permission"))
    )
    access = decoder.convert(document.pop("access", {}), "access", AccessSettings)
    replicate = decoder.convert(document.pop("replicate", {}), "replicate", Replicate)
    go = decoder.convert(document.pop("go", {}), "go", GoSettings)
    limits = decoder.convert(document.pop("limits", {}), "limits", Limits)
    gc = decoder.convert(document.pop("gc", {}), "gc", Gc)
    if document:
        known = (
            "data, workers, listener, tls, upstreams, store, repository, tunnel, dns, token_server, permission, "
            "access, replicate, go, limits, gc"
        )
        raise decoder.fail(next(iter(document)), f"unknown key; known at the top: {known}")
    config = Config(
        data=Path(data if data is not None else named_data).absolute(),
        workers=workers or named_workers or len(os.sched_getaffinity(0)),
        listeners=listeners,
        tls=tls_table,
        upstreams=upstreams,
        stores=stores,
        repositories=repositories or default_repositories(),
        tunnels=tunnels if repositories or tunnels else default_tunnels(but=token_server.hosts),
        dns=dns,
        token_server=token_server,
        permissions=permissions,
        access=access,
        replicate=replicate,
        go=go,
        limits=limits,
        gc=gc,
    )
    for place, why in check(config):
        raise decoder.fail(place, why)
    return config
