"""A small checker of JSON against the schemas that our OpenAPI document uses (JSON Schema 2020-12, a part of it)."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$ref", "title", "description", "examples", "default", "type", "format", "enum", "const", "anyOf", "pattern",
    "minLength", "maxLength", "minimum", "maximum", "properties", "required", "additionalProperties", "items",
    "maxItems", "minItems",
}  # fmt: skip


def faults(value: Any, schema: Any, components: dict[str, Any], place: str = "$") -> list[str]:
    """Where a value is not what the schema says. A keyword that this does not know is a fault, too."""
    found = [f"{place}: the checker does not know {key}" for key in schema if key not in _KNOWN]
    if "$ref" in schema:
        return [*found, *faults(value, components[schema["$ref"].rpartition("/")[2]], components, place)]
    if "anyOf" in schema:
        if all(faults(value, one, components, place) for one in schema["anyOf"]):
            found.append(f"{place}: {value!r} is none of the kinds")
        return found
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value!r} is not one of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{place}: {value!r} is not {schema['const']!r}")
    kind = schema.get("type")
    if kind is None:
        return found
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind in ("integer", "number")):
        return [*found, f"{place}: {value!r} is no {kind}"]
    if isinstance(value, str):
        found += _text(value, schema, place)
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{place}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        more = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                found += faults(item, properties[name], components, f"{place}.{name}")
            elif more is False:
                found.append(f"{place}: {name} is unknown")
            elif isinstance(more, dict):
                found += faults(item, more, components, f"{place}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += faults(item, schema.get("items", {}), components, f"{place}[{index}]")
    elif isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{place}: {value!r} is out of range")
    return found


def _text(value: str, schema: dict[str, Any], place: str) -> list[str]:
    found = []
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{place}: {value!r} does not match {schema['pattern']}")
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        found.append(f"{place}: {value!r} is too short or too long")
    if schema.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value):
        found.append(f"{place}: {value!r} is no moment")
    return found
