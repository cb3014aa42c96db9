"""A JSON text changed in one place, with every other character of it left as it was.

A file that a person keeps cannot be read and written anew: its layout, its escapes and the order
of its keys would change. So a part goes in behind the last one, and goes out together with the
comma that came with it; what was added can be dropped again to the very byte.

How a container looks tells who made it. One that is written with a part has a line break after
its bracket; an empty one that was there takes its first part right behind the bracket.

Every text here has been parsed before: it is JSON, and `at` is where a value begins.
"""

import json
from dataclasses import dataclass
from typing import Any

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
UNIT = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A member of an object, or an element of an array.

    Attributes:
        key: the member's name, None for an element.
        start: where it begins, with its name.
        at: where its value begins.
        end: behind its value.
        value: what it says.
    """

    key: str | None
    start: int
    at: int
    end: int
    value: Any


def beginning(text: str) -> int:
    """Return where the document's value begins."""
    return _skip(text, 1 if text.startswith("\ufeff") else 0)


def parts(text: str, at: int) -> list[Part]:
    """Return what the container at `at` holds; a value of another kind holds nothing."""
    found: list[Part] = []
    if text[at] not in "{[":
        return found
    named, at = text[at] == "{", _skip(text, at + 1)
    while text[at] not in "}]":
        start, key = at, None
        if named:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + len(":"))
        value, end = _DECODER.raw_decode(text, at)
        found.append(Part(key=key, start=start, at=at, end=end, value=value))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def member(text: str, at: int, key: str) -> Part | None:
    """Return the member of an object that counts, which is the last of that name."""
    return next((part for part in reversed(parts(text, at)) if part.key == key), None)


def add(text: str, at: int, key: str | None, value: Any) -> str:
    """Return `text` with one more part, the last, in the container at `at`."""
    held = parts(text, at)
    if not held:
        line = _line_break(text) + _indentation(text, at)
        return text[: at + 1] + _written(text, line, key, value) + text[at + 1 :]
    last = held[-1]
    line = _space_before(text, last.start)
    if "\n" not in line:
        line = _line_break(text) + _indentation(text, last.start) + _unit(text)
    return f"{text[: last.end]},{line}{_written(text, line, key, value)}{text[last.end :]}"


def drop(text: str, at: int, number: int) -> str:
    """Return `text` without one part of the container at `at`."""
    held = parts(text, at)
    start, end = held[number].start, held[number].end
    if number > 0:
        start = held[number - 1].end
    elif len(held) > 1:
        end = held[1].start
    return text[:start] + text[end:]


def was_empty(text: str, at: int) -> bool:
    """Whether the container at `at` was there, and empty, before its first part came."""
    return parts(text, at)[0].start == at + 1


def _written(text: str, line: str, key: str | None, value: Any) -> str:
    """Return a part as the file would have it; `line` is its line break and indentation."""
    dumped = json.dumps(value, indent=_unit(text), ensure_ascii=False).replace("\n", line)
    return dumped if key is None else f"{json.dumps(key, ensure_ascii=False)}: {dumped}"


def _unit(text: str) -> str:
    """Return one level of indentation, as the document's first member shows it."""
    held = parts(text, beginning(text))
    line = _space_before(text, held[0].start) if held else ""
    return line.rpartition("\n")[2] if "\n" in line else UNIT


def _line_break(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _indentation(text: str, at: int) -> str:
    """Return the indentation of the line on which `at` is."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _space_before(text: str, at: int) -> str:
    before = text[:at]
    return before[len(before.rstrip(_SPACE)) :]


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
