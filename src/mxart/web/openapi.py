"""The OpenAPI document of a table of operations (OpenAPI Specification 3.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from mxart.web.operations import Nothing, Operation, Record
from mxart.web.prefix import PREFIX

Json = dict[str, Any]  # a document of another's making: its own types are the specification

_REF = "#/components/schemas/{name}"
_PROBLEM_TYPE = "application/problem+json"


class ProblemDetails(Record, frozen=True, kw_only=True):
    """Why a request was refused, or failed (RFC 9457)."""

    title: str
    status: int
    detail: Annotated[str, Meta(description="For whoever asked: what is wrong, and what would be right.")]
    type: str = "about:blank"
    field: Annotated[str, Meta(description="The field or parameter that is wrong; empty: none in particular.")] = ""


class Document(Record, frozen=True, kw_only=True):
    """An OpenAPI document."""

    openapi: str
    info: Json
    servers: list[Json]
    security: list[Json]
    paths: Json
    components: Json


def document(operations: Sequence[Operation[Record, Record]], version: str) -> Document:
    """Everything that the table says. Equal tables give equal documents."""
    structs: list[type[Record]] = [ProblemDetails]
    for line in operations:
        structs += [kind for kind in (line.where, line.body, line.answers) if kind is not Nothing]
    structs = list(dict.fromkeys(structs))
    references, components = msgspec.json.schema_components(structs, ref_template=_REF)
    schemas = cast("dict[str, Json]", _portable(components))
    reference: dict[type[Record], Json] = dict(zip(structs, references, strict=True))
    paths: dict[str, object] = {}
    for line in operations:
        entry = cast("Json", paths.setdefault(line.path, {}))
        entry[line.method.lower()] = _operation(line, schemas, reference)
    for kind in {line.where for line in operations} - {Nothing}:
        schemas.pop(_name(reference[kind]), None)  # told parameter by parameter
    return Document(
        openapi="3.1.0",
        info={
            "title": "MxArtifact",
            "version": version,
            "description": "Errors are problem details (RFC 9457). A list has `items` and, if there is more, `next`: "
            "send it as `after`. Writes are JSON. A slash within a path parameter is sent as %2F.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        servers=[{"url": PREFIX}],
        security=[{}, {"password": []}, {"token": []}],
        paths=paths,
        components={
            "schemas": schemas,
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic", "description": "A user's password or token."},
                "token": {"type": "http", "scheme": "bearer", "description": "A token of a user's."},
            },
        },
    )


def _operation(line: Operation[Record, Record], schemas: dict[str, Json], reference: dict[type[Record], Json]) -> Json:
    told: Json = {
        "operationId": line.name,
        "summary": line.summary,
        "description": line.needs.told(changes=line.changes),
        "tags": [line.tag],
        "responses": {
            str(line.status): _content(line, reference),
            "default": {
                "description": "Refused, or failed.",
                "content": {_PROBLEM_TYPE: {"schema": reference[ProblemDetails]}},
            },
        },
    }
    if line.where is not Nothing:
        told["parameters"] = _parameters(line, schemas[_name(reference[line.where])])
    if line.takes_body:
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference[line.body]}},
        }
    return told


def _content(line: Operation[Record, Record], reference: dict[type[Record], Json]) -> Json:
    if line.answers is Nothing:
        return {"description": HTTPStatus(line.status).phrase}
    content = {"application/json": {"schema": reference[line.answers]}}
    return {"description": HTTPStatus(line.status).phrase, "content": content}


def _parameters(line: Operation[Record, Record], schema: Json) -> list[Json]:
    required = cast("list[str]", schema.get("required", []))
    parameters: list[Json] = []
    for name, found in cast("dict[str, Json]", schema["properties"]).items():
        in_path = name in line.in_path
        told = {key: value for key, value in found.items() if key != "description"}
        parameters.append(
            {
                "name": name,
                "in": "path" if in_path else "query",
                "required": in_path or name in required,
                **({"description": found["description"]} if "description" in found else {}),
                "schema": told,
            }
        )
    return parameters


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _portable(value: object) -> object:
    """Patterns as ECMA 262 has them: there `$` is the end and nothing else, and `\\Z` is a letter."""
    if isinstance(value, dict):
        return {
            key: item.replace("\\Z", "$") if key == "pattern" and isinstance(item, str) else _portable(item)
            for key, item in value.items()
        }
    return [_portable(item) for item in value] if isinstance(value, list) else value
