"""Wake an agent for mail: print the hooks of its client, install them into a file, or remove them.

Those of Claude Code wake an idle session when mail comes and show it to a busy one. An entry that a
version of it does not know would void the whole file, so its version is asked (--claude-version
says it by hand). Those of Codex and Gemini CLI tell the agent of its mail after each prompt and at
the end of each turn. Nothing else in a file changes; `remove` takes out what `install` put in.

exit codes: 0 done, or nothing to do, 1 the file cannot be used or Claude Code is too old, 2 usage
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from claude_peers.cli import agent, output, settings_file
from claude_peers.core.errors import ClaudePeersError
from claude_peers.settings import Settings, load
from claude_peers.wire import hooks, hooks_file, turn_hooks

SCOPES = {"user": "settings.json", "project": "settings.json", "local": "settings.local.json"}
WITHIN = 5.0
"""Seconds that `claude --version` may take."""
_SERVER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_UNKNOWN = (
    "The version of Claude Code is unknown, so these are only the hooks that every version since "
    "2.1.80 takes: they wake an idle session. Say it with --claude-version for all of them."
)
_OLD = (
    "This version of Claude Code knows only the hooks that wake an idle session; "
    "update it to 2.1.118 or newer and install again for mail in the middle of a turn."
)
_SERVES = (
    "The hooks call the MCP server {server}, which has to be there under this name in the same "
    "scope, and not as a plugin's as well: otherwise Claude Code shows an error at each of them."
)
_TRUST = (
    "Codex runs a new or changed hook only once you have looked at it: type /hooks in Codex "
    "(`codex exec` in a script takes --dangerously-bypass-hook-trust)."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, where, and for which Claude Code."""
    parser.add_argument(
        "action", choices=("print", "install", "remove"), help="what to do with the hooks"
    )
    parser.add_argument(
        "--client", choices=("claude", *turn_hooks.DIALECTS), default="claude", help="whose hooks"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the change, make none")
    parser.add_argument(
        "--scope", choices=SCOPES, default="user", help="whose settings file; default: user"
    )
    parser.add_argument(
        "--server", metavar="NAME", help="claude-peers' name among the MCP servers of Claude Code"
    )
    parser.add_argument("--claude-version", metavar="X", help="take this as Claude Code's version")


def run(options: argparse.Namespace) -> int:
    """Print, install or remove."""
    settings = load()
    path = _path(options, settings)
    if options.action == "remove":
        return _remove(options, path)
    wanted = _wanted(options, settings)
    if options.action == "install":
        return _install(options, path, wanted)
    if options.json:
        output.tell({"settings": wanted.settings, **wanted.told})
        return output.OK
    output.say(json.dumps(wanted.settings, indent=2, ensure_ascii=False))
    _note(wanted.notes)
    return output.OK


def _install(options: argparse.Namespace, path: str, wanted: "_Wanted") -> int:
    change = settings_file.change(
        path, lambda before: hooks_file.merge(before, wanted.settings), dry_run=options.dry_run
    )
    told = {"events": list(wanted.settings["hooks"]), **wanted.told}
    if change.told(options, told):
        return output.OK
    events = ", ".join(told["events"])
    output.say(
        f"Installed in {path}: {events}. New sessions use them."
        if change.made
        else f"{path} has them already: {events}."
    )
    _note(wanted.notes)
    return output.OK


def _remove(options: argparse.Namespace, path: str) -> int:
    change = settings_file.change(
        path,
        lambda before: None if before is None else hooks_file.without(before),
        dry_run=options.dry_run,
    )
    events = hooks_file.events(change.before) if change.before else []
    if change.told(options, {"events": events}):
        return output.OK
    gone = " Nothing else was in it, so the file is gone." if change.after is None else ""
    output.say(
        f"Removed from {path}: {', '.join(events)}.{gone}"
        if change.made
        else f"There are no hooks of claude-peers in {path}."
    )
    return output.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The hooks for a client.

    Attributes:
        settings: what goes into its settings file.
        told: what a program is told of them.
        notes: what the user should know about them.
    """

    settings: dict[str, Any]
    told: dict[str, Any]
    notes: list[str]


def _wanted(options: argparse.Namespace, settings: Settings) -> _Wanted:
    """Work out what the user's client can take."""
    if options.client == "claude":
        return _for_claude(options, settings)
    # By its name if that is on the PATH: the place of a file may change with the next version.
    program = ["claude-peers"] if shutil.which("claude-peers") else agent.own_command()
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    found = turn_hooks.settings(options.client, join([*program, "notice"]))
    notes = [_TRUST] if options.client == "codex" else []
    return _Wanted(settings=found, told={"client": options.client, "notes": notes}, notes=notes)


def _for_claude(options: argparse.Namespace, settings: Settings) -> _Wanted:
    server = options.server or settings.server_name
    if not _SERVER.fullmatch(server):
        raise output.UsageError(
            f"{server!r} is no name of an MCP server",
            "Use the name that `claude mcp list` shows.",
        )
    told = _claude_version() if options.claude_version is None else options.claude_version
    version = hooks.version(told)
    state = settings.state_folder if hasattr(os, "mkfifo") else None
    found = hooks.settings(state, server, version)
    if not found["hooks"]:
        raise TooOldError(version)
    notes = [_SERVES.format(server=server)] if version and version >= hooks.EVERYTHING else []
    if not notes:
        notes = [_OLD if version else _UNKNOWN]
    shown = ".".join(map(str, version)) if version else None
    about = {"claude_version": shown, "server": server, "notes": notes}
    return _Wanted(settings=found, told=about, notes=notes)


def _path(options: argparse.Namespace, settings: Settings) -> str:
    folder, file, variable, below = ".claude", SCOPES[options.scope], "CLAUDE_CONFIG_DIR", ""
    if options.client != "claude":
        dialect = turn_hooks.DIALECTS[options.client]
        folder, file = dialect.folder, dialect.file
        variable, below = dialect.variable, dialect.below
        if options.scope == "local":
            raise output.UsageError(
                f"{options.client} has no local settings file", "Use --scope user or project."
            )
    if options.scope == "user":
        given = settings.environ.get(variable)
        home = os.path.join(os.path.expanduser("~"), folder)
        folder = os.path.join(given, below) if given else home
    return os.path.join(os.path.abspath(folder), file)


def _claude_version() -> str:
    """Return what `claude --version` says, nothing if it fails or takes too long."""
    program = shutil.which("claude")
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Claude Code, no shell
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WITHIN,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _note(notes: list[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


class TooOldError(ClaudePeersError):
    """This Claude Code has no hooks that help."""

    code = "claude_too_old"

    def __init__(self, version: hooks.Version | None) -> None:
        told = ".".join(map(str, version)) if version else "of an unknown version"
        super().__init__(
            f"Claude Code {told} has no hooks that could wake it here",
            "Update it to 2.1.118 or newer (`claude update`); --claude-version says it by hand.",
        )
