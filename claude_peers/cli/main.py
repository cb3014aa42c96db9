"""The command line: finds the command, runs it, turns errors into exit codes."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from claude_peers import __version__
from claude_peers.cli import output
from claude_peers.cli.commands import COMMANDS, Command
from claude_peers.core.errors import ClaudePeersError


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong like every other error: with a code, and in JSON where that is wanted."""

    def error(self, message: str) -> NoReturn:
        raise output.UsageError(message, " ".join(self.format_usage().split()))


def run(words: Sequence[str]) -> int:
    """Run a command line without the program's name; return its exit code."""
    output.prepare()
    try:
        first, *rest = words or ("help",)
        return _run(rest if first == "cli" else [first, *rest])
    except BrokenPipeError:  # whoever read our output has had enough
        output.give_up()
        return output.FAILED
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        output.say(f"claude-peers {__version__}")
        return output.OK
    if not words or words[0] in ("help", "-h", "--help"):
        output.say(overview())
        return output.OK
    # Cut by hand: argparse takes away a second `--` as well, which is somebody's text.
    cut = words.index("--") if "--" in words else len(words)
    try:
        command = _find(words[0])
        options = _parse(command, words[1:cut], words[cut + 1 :])
        return int(_module(command).run(options))
    except ClaudePeersError as error:
        return output.complain(error, as_json="--json" in words[:cut])
    except SystemExit:  # argparse has printed a command's help
        sys.stdout.flush()
        return output.OK


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


def _find(word: str) -> Command:
    found = {command.name: command for command in COMMANDS}
    if word in found:
        return found[word]
    close = difflib.get_close_matches(word, found, n=1)
    raise output.UsageError(
        f"There is no command {word!r}",
        f"Did you mean `claude-peers {close[0]}`?" if close else "`claude-peers help` lists them.",
    )


def _parse(command: Command, words: list[str], rest: list[str]) -> argparse.Namespace:
    """Return a command's options; `rest` is what followed a `--`, of which none is an option."""
    module = _module(command)
    parser = _Parser(
        prog=f"claude-peers {command.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else, on stdout")
    module.arguments(parser)
    options = parser.parse_intermixed_args(words)
    if rest and "message" not in options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    return options


def _module(command: Command) -> Any:
    # Loaded by name, so that one command never pays for another.
    return importlib.import_module(f"claude_peers.cli.commands.{command.module}")
