"""Our hooks in the text of a settings file of Claude Code.

They are known by what they are (`wire.hooks.is_ours`), whatever group they were moved to. Nothing
else in the text changes, and taking them out gives back what was there (`wire.json_text`).
"""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from claude_peers.wire import json_text
from claude_peers.wire.hooks import is_ours
from claude_peers.wire.json_text import Part

_Place = tuple[int, int]
"""A container and the number of the part in it."""


class NotSettingsError(ValueError):
    """A text is not a settings file that can be changed; the message says why."""


def merge(text: str | None, ours: dict[str, Any]) -> str:
    """Return a settings file's text with our hooks in it, in place of older ones.

    Args:
        text: the file's text, None if there is no file.
        ours: what `wire.hooks.settings` returned.

    Raises:
        NotSettingsError: the text is not one that hooks can be put into.
    """
    left = None if text is None else without(text)
    if left is None:
        return json.dumps(ours, indent=json_text.UNIT, ensure_ascii=False) + "\n"
    _check_hooks(left)
    for event, groups in ours["hooks"].items():
        for group in groups:
            left = _with(left, event, group)
    return left


def without(text: str) -> str | None:
    """Return a settings file's text without our hooks, None if nothing else was in it.

    Raises:
        NotSettingsError: the text is no JSON object.
    """
    _check(text)
    while found := next(_entries(text), None):
        _, entry, *around = found
        places = (entry, *around) if len(json_text.parts(text, entry[0])) > 1 else around
        held = next((place for place in places if _stays(text, place[0])), None)
        if held is None:
            return None
        text = json_text.drop(text, *held)
    return text


def events(text: str) -> list[str]:
    """Return the events in which a settings file's text has hooks of ours.

    Raises:
        NotSettingsError: the text is no JSON object.
    """
    _check(text)
    return list(dict.fromkeys(event for event, *_ in _entries(text)))


def _check(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotSettingsError(f"it is not JSON ({where}: {error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise NotSettingsError(f"it is not JSON that can be read ({error})") from None
    if not isinstance(found, dict):
        raise NotSettingsError("it holds no JSON object")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _check_hooks(text: str) -> None:
    hooks = _check(text).get("hooks", {})
    if not isinstance(hooks, dict) or not all(isinstance(each, list) for each in hooks.values()):
        raise NotSettingsError('its "hooks" are not an object of lists, so Claude Code ignores it')


def _with(text: str, event: str, group: dict[str, Any]) -> str:
    root = json_text.beginning(text)
    hooks = json_text.member(text, root, "hooks")
    if hooks is None:
        return json_text.add(text, root, "hooks", {event: [group]})
    groups = json_text.member(text, hooks.at, event)
    if groups is None:
        return json_text.add(text, hooks.at, event, [group])
    return json_text.add(text, groups.at, None, group)


def _stays(text: str, at: int) -> bool:
    """Whether a container is kept without our part in it: for its other parts, or as it was."""
    return len(json_text.parts(text, at)) > 1 or json_text.was_empty(text, at)


def _entries(text: str) -> Iterator[tuple[str, _Place, _Place, _Place, _Place]]:
    """Yield the event of each entry of ours, and its place in its list and in all around it."""
    root = json_text.beginning(text)
    for i, hooks in _named(text, root, "hooks"):
        for j, event in enumerate(json_text.parts(text, hooks.at)):
            for k, group in enumerate(json_text.parts(text, event.at)):
                for _, inner in _named(text, group.at, "hooks"):
                    for m, entry in enumerate(json_text.parts(text, inner.at)):
                        if is_ours(entry.value):
                            places = (inner.at, m), (event.at, k), (hooks.at, j), (root, i)
                            yield str(event.key), *places


def _named(text: str, at: int, key: str) -> list[tuple[int, Part]]:
    return [each for each in enumerate(json_text.parts(text, at)) if each[1].key == key]
