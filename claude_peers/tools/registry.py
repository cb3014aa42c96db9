"""Each tool an agent may call, declared once as a function; every face reads it from here.

The function's docstring is what the agent reads, its annotations and defaults become the JSON
schema, its first parameter is the calling session and stays out of the schema. Models are
careless with types and names, so arguments are read leniently wherever the meaning is plain, and
refused with a sentence that the model can act on wherever it is not.
"""

import inspect
import math
import re
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import BODY
from claude_peers.wire.quirks import scalar_as_text

DESCRIPTION = 2000
"""Characters of a description; Claude Code 2.1.118 to 2.1.160 cuts it at 2,048."""
_LONE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?\d{1,16}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Shown:
    """A result that shows messages to the agent.

    Attributes:
        text: what the agent reads.
        message_ids: the messages whose text is in it whole; once it is written they are seen.
        via: by what means, for the messages' stories.
    """

    text: str
    message_ids: tuple[int, ...] = ()
    via: str = "check_messages"


class Progress(Protocol):
    """Tells the client how far a call is; a tool that wants one has a parameter `progress`."""

    async def __call__(self, done: float, total: float, message: str) -> None:
        """Tell it, if the client asked for it; `done` must grow from call to call."""
        ...


Run = Callable[..., Awaitable[str | Shown]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes:
        name: what the agent calls it.
        description: what the agent reads about it.
        input_schema: JSON schema of its arguments, an object.
        run: the function; takes the calling session, then the arguments by name.
        always_load: whether a client that loads tools on demand should load it at once.
        aliases: other names of arguments, to the names in the schema.
        also: other names of the tool, answered but not listed.
        listed: whether `tools/list` shows it.
        reports: whether it takes a `Progress`, which is no argument of the agent's.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    run: Run
    always_load: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    listed: bool = True
    reports: bool = False


def tool(
    *,
    aliases: Mapping[str, str] | None = None,
    always_load: bool = False,
    also: tuple[str, ...] = (),
    listed: bool = True,
    **descriptions: str | Mapping[str, Any],
) -> Callable[[Run], Tool]:
    """Declare the decorated function as a tool.

    Args:
        aliases: other names of arguments, to the names of parameters.
        always_load: see `Tool`.
        also: see `Tool`.
        listed: see `Tool`.
        descriptions: for each parameter a description, or members to add to its schema.
    """

    def declare(run: Run) -> Tool:
        name = getattr(run, "__name__", "")
        text = inspect.getdoc(run) or ""
        if not 0 < len(text) < DESCRIPTION:
            raise TypeError(f"{name} needs a docstring under {DESCRIPTION} characters")
        schema = _object_schema(name, run, descriptions)
        if stray := {*descriptions, *(aliases or {}).values()} - {*schema["properties"]}:
            raise TypeError(f"{name} has no parameters {sorted(stray)}")
        return Tool(
            name, text, schema, run, always_load, aliases or {}, also, listed, _reports(run)
        )

    return declare


def arguments(declared: Tool, given: Any) -> dict[str, Any]:
    """Return what an agent gave as the keyword arguments of `declared.run`.

    Nulls count as absent, unknown names are ignored, an argument's own name wins over its alias.

    Raises:
        BadRequestError: not an object, or an argument is missing or cannot be understood.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise BadRequestError(f"The arguments of {declared.name} must be an object")
    named = {
        **{declared.aliases[name]: given[name] for name in declared.aliases if _set(given, name)},
        **{name: value for name, value in given.items() if value is not None},
    }
    properties: Mapping[str, Mapping[str, Any]] = declared.input_schema["properties"]
    for name in declared.input_schema.get("required", ()):
        if name not in named:
            raise BadRequestError(
                f"{declared.name} needs `{name}`", "Call it again with that argument."
            )
    return {
        name: _read(name, named[name], schema)
        for name, schema in properties.items()
        if name in named
    }


def _set(given: Mapping[str, Any], name: str) -> bool:
    return given.get(name) is not None


def _object_schema(
    name: str, run: Run, descriptions: Mapping[str, str | Mapping[str, Any]]
) -> dict[str, Any]:
    _, *parameters = inspect.signature(run).parameters.values()
    parameters = [each for each in parameters if each.annotation is not Progress]
    properties: dict[str, Any] = {}
    for each in parameters:
        about = descriptions.get(each.name, {})
        more = {"description": about} if isinstance(about, str) else dict(about)
        properties[each.name] = {**_schema(name, each.annotation), **more}
        if each.default not in (None, inspect.Parameter.empty):
            properties[each.name]["default"] = each.default
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _reports(run: Run) -> bool:
    parameter = inspect.signature(run).parameters.get("progress")
    return parameter is not None and parameter.annotation is Progress


def _schema(name: str, annotation: Any) -> dict[str, Any]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        wanted = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(wanted) == 1:
            return _schema(name, wanted[0])
    if typing.get_origin(annotation) is Literal:
        return {"type": "string", "enum": [str(choice) for choice in typing.get_args(annotation)]}
    try:
        return {**_SCHEMAS[annotation]}
    except (KeyError, TypeError):
        raise TypeError(f"{name}: no JSON schema for {annotation!r}") from None


_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list[str]: {"type": "array", "items": {"type": "string"}},
}


def _read(name: str, value: Any, schema: Mapping[str, Any]) -> Any:
    if "enum" in schema:
        return _choice(name, value, schema["enum"])
    return _READERS[schema["type"]](name, value)


def _choice(name: str, value: Any, choices: list[str]) -> str:
    text = _text(name, value)
    if text in choices:
        return text
    raise BadRequestError(f"`{name}` cannot be {text[:64]!r}", f"Use one of {', '.join(choices)}.")


def _text(name: str, value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        return scalar_as_text(value)
    if not isinstance(value, str):
        raise _wrong(name, "a string")
    text = _LONE.sub("\ufffd", value)
    if len(text) * 4 > BODY and len(text.encode()) > BODY:
        raise BadRequestError(
            f"`{name}` has more than {BODY} bytes",
            "Put the long part in a file and send its path.",
        )
    return text


def _integer(name: str, value: Any) -> int:
    whole = isinstance(value, str) and _WHOLE.fullmatch(value.strip())
    if whole or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= _EXACT:
        raise _wrong(name, "a whole number")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise _wrong(name, "a number")


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)) and (text := str(value).strip().lower()) in _BOOLEANS:
        return _BOOLEANS[text]
    raise _wrong(name, "true or false")


def _texts(name: str, value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [_text(f"{name}[{place}]", item) for place, item in enumerate(items)]


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _texts,
}


def _wrong(name: str, wanted: str) -> BadRequestError:
    return BadRequestError(f"`{name}` must be {wanted}")
