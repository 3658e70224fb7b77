"""The OpenAPI document says what there is, all of it, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from kit.api import api_world
from mxart.web.operations import ANYBODY, Asked, Nothing, Operation, Record, Table, operation


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


async def described(tmp_path: Path) -> dict[str, Any]:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", "/openapi.json")
    assert told.status == 200
    document: dict[str, Any] = told.json
    return document


async def test_it_is_whole_every_reference_resolves_and_every_schema_is_used(tmp_path: Path) -> None:
    document = await described(tmp_path)
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    schemas = document["components"]["schemas"]
    used = {found["$ref"] for found in walk(document) if "$ref" in found}
    assert used == {f"#/components/schemas/{name}" for name in schemas}
    assert document["servers"] == [{"url": "/-/api/v1"}]
    for requirement in document["security"]:
        assert requirement.keys() <= document["components"]["securitySchemes"].keys()


async def test_every_operation_is_there_with_its_parameters_its_answer_and_what_it_needs(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        document = world.document
        operations = world.api.table.operations
    names: list[str] = []
    for path, methods in document["paths"].items():
        in_path = re.findall(r"\{(\w+)\}", path)
        for method, told in methods.items():
            names.append(told["operationId"])
            assert told["summary"].endswith(".")
            assert told["description"].endswith(".")
            assert told["tags"]
            parameters = told.get("parameters", [])
            assert [p["name"] for p in parameters if p["in"] == "path"] == in_path, path
            assert all(p["required"] for p in parameters if p["in"] == "path")
            assert len({p["name"] for p in parameters}) == len(parameters)
            good = [status for status in told["responses"] if status.startswith("2")]
            assert len(good) == 1
            assert "default" in told["responses"]
            if "requestBody" in told:
                assert told["requestBody"]["required"]
                assert method in ("post", "put", "patch")
            else:
                assert method not in ("post", "patch"), "a form of another site can send these"
    assert sorted(names) == sorted(line.name for line in operations)


async def test_patterns_end_as_other_languages_have_it(tmp_path: Path) -> None:
    document = await described(tmp_path)
    patterns = [found["pattern"] for found in walk(document) if isinstance(found.get("pattern"), str)]
    assert patterns
    assert all("\\Z" not in pattern and pattern.endswith("$") for pattern in patterns)


async def test_it_is_sent_again_only_if_it_changed(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        told = await world.call("GET", "/openapi.json")
        etag = told.headers.get("etag")
        assert etag
        again = await world.call("GET", "/openapi.json", fields=[("if-none-match", etag)])
    assert again.status == 304
    assert json.loads(told.text)


class _Named(Record, frozen=True, kw_only=True):
    name: str


async def _nothing(asked: Asked[Nothing, Nothing]) -> Nothing:
    return Nothing()


async def _by_name(asked: Asked[_Named, Nothing]) -> Nothing:
    return Nothing()


def _line(name: str, path: str) -> Operation[Record, Record]:
    return operation(name, "GET", path, "It.", ANYBODY, _nothing, tag="t")


def _named(name: str, path: str) -> Operation[Record, Record]:
    return operation(name, "GET", path, "It.", ANYBODY, _by_name, tag="t")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([_line("a", "/x"), _line("b", "/x")], "there already"),
        ([_line("a", "/x"), _line("a", "/y")], "there already"),
        ([_line("a", "/x/{name}")], "no parameter"),
        ([_named("a", "/x/{name}"), _named("b", "/x/{name}")], "there already"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(lines: list[Operation[Record, Record]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Table(lines)


def test_every_struct_of_the_api_refuses_what_it_does_not_know() -> None:
    def below(kind: type[Struct]) -> Iterator[type[Struct]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    for kind in below(Record):
        assert kind.__struct_config__.forbid_unknown_fields, kind
        assert kind.__struct_config__.frozen, kind
        if kind.__module__.startswith("mxart."):
            assert kind.__doc__, kind
