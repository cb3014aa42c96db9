"""JSON Schema of what travels: requests as `wire.codec` reads them, answers as they are made.

A request's schema says exactly what is accepted: scalars where text is wanted, null for a field
that may be absent, numbers below 2^53, any further field. What a field is for stands in its
record's docstring, under `Attributes:`.
"""

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from inspect import getdoc
from typing import Any, Final, Literal

from claude_peers.core.identity import NAME
from claude_peers.wire.codec import LONGEST

Schema = dict[str, Any]

COMPONENTS: Final = "#/components/schemas/"
FORM: Final = "form"
"""The key in a field's metadata where not any value of its type will do: a key of `FORMS`."""
_LIMIT = 1 << 53
_TEXT: Schema = {"type": ["string", "number", "boolean"]}
_WHOLE: Schema = {"type": "integer", "minimum": 1 - _LIMIT, "maximum": _LIMIT - 1}
_GIVEN: dict[Any, Schema] = {
    str: _TEXT,
    int: _WHOLE,
    float: {"type": "number", "exclusiveMinimum": -_LIMIT, "exclusiveMaximum": _LIMIT},
    bool: {"type": "boolean"},
    tuple[str, ...]: {"type": "array", "items": _TEXT},
    tuple[int, ...]: {"type": "array", "items": _WHOLE},
}
"""What `wire.codec` takes for each type of field."""
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
FORMS: Final[dict[str, Schema]] = {
    "name": {
        "anyOf": [
            {"type": "string", "pattern": f"^{NAME.pattern}$"},
            {"type": "integer", "minimum": 0},
            {"type": "number", "minimum": 0, "maximum": 10**15},
            {"type": "boolean"},
        ]
    },
    "addresses": {
        "type": "array",
        "items": {
            "type": "string",
            "pattern": rf"^([A-Za-z0-9.-]{{1,253}}|\[[0-9a-fA-F:.]{{2,45}}\]):{_PORT}$",
        },
    },
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
"""A name that is a number or a boolean is taken as its text, like any other text."""
_TOLD: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
_ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def request_schema(record: type[Any], also: Mapping[str, str]) -> Schema:
    """Return the schema of a request's body.

    Args:
        record: what it is decoded into.
        also: its fields as other implementations call them, and as the record does.
    """
    text, told = _described(record)
    needed = {each.name for each in fields(record) if each.default is MISSING}
    properties: dict[str, Schema] = {}
    for each in fields(record):
        strict = each.name in needed and each.name not in also.values()
        schema = _given(each) if strict else _nullable(_given(each))
        properties[each.name] = _with(schema, told.get(each.name, "")) | _default(each)
    ways = [_either(other, ours, properties, needed=ours in needed) for other, ours in also.items()]
    for other, ours in also.items():
        properties[other] = {"description": f"`{ours}` as other implementations call it."}
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": sorted(needed.difference(also.values())),
    } | ({"allOf": ways} if ways else {})


def answer_schema(shape: Any, components: dict[str, Schema]) -> Schema:
    """Return the schema of an answer; records in it are referred to, and put into `components`.

    Raises:
        LookupError: it has a part that is no shape of JSON we know.
    """
    if shape in _TOLD:
        return dict(_TOLD[shape])
    if typing.is_typeddict(shape):
        if shape.__name__ not in components:
            components[shape.__name__] = {}  # it may refer to itself
            components[shape.__name__] = _record_schema(shape, components)
        return {"$ref": COMPONENTS + shape.__name__}
    if isinstance(shape, type) and issubclass(shape, StrEnum):
        return {"type": "string", "enum": [each.value for each in shape]}
    return _generic_schema(shape, components)


def _generic_schema(shape: Any, components: dict[str, Schema]) -> Schema:
    origin, parts = typing.get_origin(shape), typing.get_args(shape)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin not in (list, dict, types.UnionType, typing.Union):
        raise LookupError(f"{shape!r} is no shape of JSON")
    schemas = [answer_schema(each, components) for each in parts]
    if origin is list:
        return {"type": "array", "items": schemas[0]}
    if origin is dict:
        return {"type": "object", "additionalProperties": schemas[1]}
    return {"anyOf": schemas}


def _record_schema(shape: Any, components: dict[str, Schema]) -> Schema:
    text, told = _described(shape)
    properties = {
        name: _with(answer_schema(hint, components), told.get(name, ""))
        for name, hint in typing.get_type_hints(shape).items()
    }
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": [name for name in properties if name in shape.__required_keys__],
    }


def _given(field: Field[Any]) -> Schema:
    if FORM in field.metadata:
        return dict(FORMS[field.metadata[FORM]])
    kind: Any = next(each for each in _parts(field.type) if each is not type(None))
    if kind not in _GIVEN:
        return request_schema(kind, {})
    longest = {"maxLength": field.metadata[LONGEST]} if LONGEST in field.metadata else {}
    return _GIVEN[kind] | longest


def _parts(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _nullable(schema: Schema) -> Schema:
    """Return a schema that takes null as well, which counts as absent."""
    kind = schema.get("type")
    if kind is None:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema | {"type": [*(kind if isinstance(kind, list) else [kind]), "null"]}


def _either(other: str, ours: str, properties: dict[str, Schema], *, needed: bool) -> Schema:
    """Return that a field comes under our name or, where that is absent or null, under another."""
    kind, null = properties[ours], {"type": "null"}
    given = kind | {"type": [each for each in kind["type"] if each != "null"]}
    ways: list[Schema] = [
        {"properties": {ours: given}, "required": [ours]},
        {"properties": {ours: null, other: given}, "required": [other]},
    ]
    if not needed:
        ways.append({"properties": {ours: null, other: null}})
    return {"anyOf": ways}


def _default(field: Field[Any]) -> Schema:
    if field.default is MISSING or field.default in (None, "", ()):
        return {}
    return {"default": field.default}


def _with(schema: Schema, text: str) -> Schema:
    return schema | {"description": text} if text else schema


def _described(record: type[Any]) -> tuple[str, dict[str, str]]:
    """Return what a record's docstring says about it, and about its fields."""
    text, _, attributes = (getdoc(record) or "").partition("\nAttributes:\n")
    told: dict[str, str] = {}
    for names, about in _ATTRIBUTE.findall(attributes):
        told |= dict.fromkeys(names.split(", "), " ".join(about.split()))
    return " ".join(text.split()), told
