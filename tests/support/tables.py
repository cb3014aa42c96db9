"""The README's reference tables, made from what the code declares.

`python -m tests.support.tables --write` puts them between their markers, for instance
`<!-- settings -->` and `<!-- /settings -->`; without `--write` it prints them.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"
Rows = list[tuple[str, ...]]


def settings_rows() -> Rows:
    """Return every variable with its default and what it is for."""
    from claude_peers.settings import Settings

    rows: Rows = [("variable", "default", "what it sets")]
    for each in dataclasses.fields(Settings):
        if each.metadata:
            also = [f"`{name}`" for name in each.metadata["also"]]
            text = each.metadata["text"] + (f" (also {', '.join(also)})" if also else "")
            rows.append((f"`{each.metadata['name']}`", _default(each.default), text))
    return rows


def tool_rows() -> Rows:
    """Return every listed tool with its arguments and the first line of what the agent reads."""
    rows: Rows = [("tool", "arguments", "what it does")]
    for each in _declared("claude_peers.tools", "TOOLS"):
        if each.listed:
            required = each.input_schema.get("required", ())
            taken = _fields((name, name in required) for name in each.input_schema["properties"])
            rows.append((f"`{each.name}`", taken, _first_line(each.description)))
    return rows


def operation_rows() -> Rows:
    """Return every request with its fields and what it does."""
    rows: Rows = [("request", "fields", "what it does")]
    for each in _declared("claude_peers.broker.operations", "OPERATIONS"):
        fields = ((f.name, f.default is dataclasses.MISSING) for f in _record_fields(each.request))
        rows.append((f"`POST {each.path}`", _fields(fields), _first_line(each.summary)))
    return rows


def command_rows() -> Rows:
    """Return every command with what it does."""
    rows: Rows = [("command", "what it does")]
    for each in _declared("claude_peers.cli.commands", "COMMANDS"):
        command = _module_of(each) if isinstance(each, str) else each
        rows.append((f"`{_name_of(command)}`", _first_line(_text_of(command))))
    return rows


TABLES: dict[str, Callable[[], Rows]] = {
    "settings": settings_rows,
    "tools": tool_rows,
    "commands": command_rows,
    "operations": operation_rows,
}


def table(name: str) -> str:
    """Return one table as Markdown.

    Raises:
        NotDeclaredError: the tuple it is made from does not exist.
    """
    head, *rows = TABLES[name]()
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(_cell(part) for part in line)} |" for line in lines)


def shown(readme: str, name: str) -> str | None:
    """Return what stands between a table's markers, or None if they are missing."""
    found = _between(name).search(readme)
    return None if found is None else found[2].strip()


def rewritten(readme: str) -> str:
    """Return the README with every table as it should be; a missing marker is an error."""
    for name in TABLES:
        if shown(readme, name) is None:
            raise LookupError(f"the README has no <!-- {name} --> … <!-- /{name} -->")
        made = f"\n{table(name)}\n"
        readme = _between(name).sub(lambda found, made=made: found[1] + made + found[3], readme)
    return readme


class NotDeclaredError(LookupError):
    """A package has no tuple of that name."""


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->)(.*?)(<!-- /{name} -->)", re.DOTALL)


def _declared(package: str, name: str) -> Iterable[Any]:
    try:
        return tuple(getattr(importlib.import_module(package), name))
    except (ModuleNotFoundError, AttributeError) as missing:
        raise NotDeclaredError(f"{package} has no {name}") from missing


def _module_of(name: str) -> ModuleType:
    return importlib.import_module(f"claude_peers.cli.commands.{name.replace('-', '_')}")


def _name_of(command: Any) -> str:
    told = getattr(command, "usage", None) or getattr(command, "name", None)
    return str(told or command.__name__.rpartition(".")[2].replace("_", "-"))


def _text_of(command: Any) -> str:
    told = (getattr(command, name, None) for name in ("summary", "help", "description"))
    return next((text for text in told if isinstance(text, str) and text), None) or (
        inspect.getdoc(command) or ""
    )


def _record_fields(record: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(record)


def _fields(named: Iterable[tuple[str, bool]]) -> str:
    return ", ".join(f"`{name}`" if required else f"`{name}`?" for name, required in named)


def _default(value: Any) -> str:
    if value in (None, ()):
        return "unset"
    return f"`{int(value) if isinstance(value, bool) else value}`"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].removesuffix(".")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Print the tables, or write them into the README."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write them into the README")
    if parser.parse_args().write:
        README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for name in TABLES:
            with contextlib.suppress(NotDeclaredError):
                print(f"{table(name)}\n")


if __name__ == "__main__":
    main()
