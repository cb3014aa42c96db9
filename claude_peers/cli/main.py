"""The command line: finds the command, runs it, turns errors into exit codes."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from claude_peers import __version__
from claude_peers.cli import output
from claude_peers.cli.commands import COMMANDS, Command
from claude_peers.core.errors import ClaudePeersError


def run(words: Sequence[str]) -> int:
    """Run a command line without the program's name; return its exit code."""
    rest = list(words[1:] if words[:1] == ["cli"] else words)
    if rest[:1] == ["--version"]:
        output.say(f"claude-peers {__version__}")
        return output.OK
    if not rest or rest[0] in ("help", "-h", "--help"):
        output.say(overview())
        return output.OK
    found = {command.name: command for command in COMMANDS}.get(rest[0])
    if found is None:
        return _unknown(rest[0])
    return _execute(found, _parse(found, rest[1:]))


def _execute(command: Command, options: argparse.Namespace) -> int:
    try:
        return int(_module(command).run(options))
    except ClaudePeersError as error:
        return output.complain(error, as_json=options.json)
    except BrokenPipeError:  # whoever read our output has had enough
        sys.stderr.close()
        return output.FAILED
    except KeyboardInterrupt:
        return 130


def overview() -> str:
    """Return the help of the whole program."""
    lines = [
        f"{output.style('claude-peers', 'bold')} {__version__}: agents find each other and talk.",
        "",
        "Without arguments it is an MCP server for an agent, and the broker if there is none yet.",
        "",
        output.style("Commands", "bold"),
        *(f"  {output.style(f'{c.usage:<30}', 'cyan')} {c.summary}" for c in COMMANDS),
        "",
        "Every command takes --json and --help. `claude-peers cli COMMAND` is the same.",
        "Give it to Claude Code: claude mcp add --scope user claude-peers -- claude-peers",
    ]
    return "\n".join(lines)


def _unknown(word: str) -> int:
    names = [command.name for command in COMMANDS]
    close = difflib.get_close_matches(word, names, n=1)
    hint = (
        f"Did you mean `claude-peers {close[0]}`?" if close else "`claude-peers help` lists them."
    )
    print(f"There is no command {word!r}. {hint}", file=sys.stderr)
    return output.USAGE


def _parse(command: Command, words: list[str]) -> argparse.Namespace:
    module = _module(command)
    parser = argparse.ArgumentParser(
        prog=f"claude-peers {command.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else, on stdout")
    module.arguments(parser)
    return parser.parse_args(words)


def _module(command: Command) -> Any:
    # Loaded by name, so that one command never pays for another.
    return importlib.import_module(f"claude_peers.cli.commands.{command.module}")
