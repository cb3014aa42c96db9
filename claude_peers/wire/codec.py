"""JSON in and out, and request bodies as frozen records.

Reading is strict about JSON and lenient about what upstream clients rely on: unknown fields are
ignored, a null counts as absent, scalars become text where text is wanted (`wire.quirks`).
"""

import json
import re
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import cache
from math import isfinite
from typing import Any, Final, NoReturn, TypeVar

from claude_peers.core.errors import BadRequestError
from claude_peers.wire.quirks import scalar_as_text

Record = TypeVar("Record")
LONGEST: Final = "longest"
"""The key in a text field's metadata for how many characters it may have."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dumps(value: Any) -> bytes:
    """Return compact UTF-8 JSON, always a single line."""
    return _compact(value).encode("utf-8", "replace")


def loads(data: bytes) -> Any:
    """Return the value of a JSON text; bad UTF-8 and lone surrogates become U+FFFD.

    Raises:
        BadRequestError: it is not JSON, or nested or long beyond reason.
    """
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        value = _decode(text)
        return _mend(value) if _SURROGATE.search(text) else value
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:120]
        raise BadRequestError(f"The body is not JSON: {reason}") from None


def load_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        BadRequestError: it is not JSON, or not an object.
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise BadRequestError(f"The body is a JSON {_kind(value)}, not an object")
    return value


def decode(record: type[Record], body: dict[str, Any]) -> Record:
    """Return `body` as a `record`.

    Raises:
        BadRequestError: a field is missing or of the wrong type; the text names it.
    """
    values = {}
    for name, read, required in _plan(record):  # type: ignore[arg-type]  # a class is hashable
        given = body.get(name)
        if given is None:
            if required:
                raise BadRequestError(f"`{name}` is missing")
        else:
            values[name] = read(name, given)
    return record(**values)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _refuse_constant(digits[:20])


def _mend(value: Any) -> Any:
    match value:
        case str():
            return _LONE.sub("\ufffd", value)
        case list():
            return [_mend(item) for item in value]
        case dict():
            return {_mend(name): _mend(item) for name, item in value.items()}
        case _:
            return value


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode


@cache
def _plan(record: type[Any]) -> tuple[tuple[str, Callable[[str, Any], Any], bool], ...]:
    return tuple(
        (each.name, _field_reader(each), each.default is MISSING) for each in fields(record)
    )


def _field_reader(field: Field[Any]) -> Callable[[str, Any], Any]:
    read = _reader(_plain_type(field.type))
    longest = field.metadata.get(LONGEST)
    return read if longest is None else _at_most(longest, read)


def _reader(kind: Any) -> Callable[[str, Any], Any]:
    return _READERS.get(kind) or _record_of(kind)


def _plain_type(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return scalar_as_text(value)
    raise _wrong(name, "a string", value)


def _at_most(longest: int, read: Callable[[str, Any], str]) -> Callable[[str, Any], str]:
    def read_short(name: str, value: Any) -> str:
        text = read(name, value)
        if len(text) > longest:
            raise BadRequestError(
                f"`{name}` has {len(text)} characters, {longest} are the most",
                "Use a shorter one.",
            )
        return text

    return read_short


def _integer(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 1.0 is 1
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return value
    raise _wrong(name, "a whole number below 2^53", value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return float(value)
    raise _wrong(name, "a number below 2^53", value)


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(name, "true or false", value)


def _list_of(read: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple[Any, ...]]:
    def read_list(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong(name, "a list", value)
        return tuple(read(f"{name}[{place}]", item) for place, item in enumerate(value))

    return read_list


def _record_of(record: Any) -> Callable[[str, Any], Any]:
    def read_record(name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(name, "an object", value)
        return decode(record, value)

    return read_record


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    tuple[str, ...]: _list_of(_text),
    tuple[int, ...]: _list_of(_integer),
}


def _wrong(name: str, wanted: str, value: Any) -> BadRequestError:
    return BadRequestError(f"`{name}` must be {wanted}, not a JSON {_kind(value)}")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
